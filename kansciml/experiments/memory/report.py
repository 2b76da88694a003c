"""Report of Figure 4, memory of a training step against batch size: reads the record only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.memory.record import (
    BASELINE,
    GB,
    MB,
    NOT_HIGHER,
    SIGNIFICANT,
    TOO_SMALL,
    Curve,
    MemoryRecord,
)
from kansciml.reporting.legends import hollow, key, place_legend
from kansciml.reporting.palette import FAINT, SHADE, TRUTH, VariantStyle
from kansciml.reporting.palette import variant_styles as general_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"kan-spline": "KAN, SplineKAN", "kan-rswaf": "KAN, RSWAFKAN"}
KERNELS = {
    "cpu": "SplineKAN and RSWAFKAN: kernels in plain PyTorch, in the blocks that suit a CPU. On a GPU the blocks are "
    "larger: --device gpu counts those.",
    "gpu": "SplineKAN and RSWAFKAN: kernels in plain PyTorch, in the blocks that suit a GPU. At small batches a block "
    "grows with the batch, and so the memory grows faster there than its slope says.",
}


def variant_styles(variants: Sequence[str]) -> Mapping[str, VariantStyle]:
    """A style for each variant, as elsewhere, under the names of the layers that are measured."""
    return {name: replace(style, name=NAMES.get(name, style.name)) for name, style in general_styles(variants).items()}


def summary(record: Record) -> list[Table]:
    """Memory per sample and largest batch of every curve, with the verdict in words; and the points measured."""
    memory = MemoryRecord.read(record)
    limit, styles = memory.limit_gb, variant_styles(memory.variants)
    columns = [
        "model", "variant", "MB per sample", "over MLP", "reference MB", f"batch in {limit:g} GB", "reference batch",
        "kept MB per sample", "weights + AdamW MB", "above MLP up to batch",
    ]  # fmt: skip
    rows = []
    for curve in memory.curves:
        base, reference = memory.baseline(curve.model), curve.reference
        over = None if base is None else curve.over(base)
        held = (curve.resident_bytes + curve.optimiser_bytes) / MB
        above = None if base is None else curve.above_up_to(base)
        rows.append(
            [curve.model, styles[curve.variant].name, curve.mb_per_sample, over, reference.mb_per_sample,
             curve.full_batch, reference.full_batch, curve.kept_bytes / MB, held, above]
        )  # fmt: skip
    off = max(curve.off_line_bytes / (limit * GB) for curve in memory.curves)
    notes = [verdict(memory, model) for model in memory.titles]
    notes += [
        "Growth: from an eighth of the largest batch size on, no peak is off a straight line by more than "
        f"{max(off, 1e-6):.1g} of {limit:g} GB.",
        "MB per sample: slope of the peak of forward pass, loss and backward pass, counted exactly on tensors without "
        "data, gradients among them. The largest batch leaves room for weights, AdamW's two moments and the input.",
        "Above MLP up to batch: the largest batch size, of those measured for both, at which it takes more in all.",
        "Reference: efficient-kan, and the same MLPs, measured independently.",
        KERNELS[memory.device],
        "Not counted: workspace inside a library's kernels, an allocator's rounding, a GPU's context.",
    ]
    if memory.precision != "32":
        notes.append(
            "Autocast to bfloat16; weights and their gradients in float32. Without data, PyTorch takes the statistics "
            "of normalisations for bfloat16 as well: the peaks are low by them, about 0.1 %."
        )
    return [
        Table("Memory of a training step", columns, rows, notes),
        *(_points(memory, model, styles) for model in memory.titles),
    ]


def _points(memory: MemoryRecord, model: str, styles: Mapping[str, VariantStyle]) -> Table:
    totals = {styles[curve.variant].name: curve.gigabytes for curve in memory.of(model)}
    batches = sorted({batch for points in totals.values() for batch in points})
    rows = [[batch, *(points.get(batch) for points in totals.values())] for batch in batches]
    note = f"Weights, AdamW's state, input and peak; above {memory.limit_gb:g} GB: out of memory."
    return Table(f"Memory in all, {model}", ["batch size", *(f"{name} [GB]" for name in totals)], rows, [note])


def verdict(memory: MemoryRecord, model: str) -> str:
    """One sentence on the paper's claim, "significantly higher memory usage", for one model."""
    title, base = memory.titles[model], memory.baseline(model)
    if base is None:
        return f"{title}: no verdict without the MLPs' own memory."
    styles = variant_styles(memory.variants)
    parts = []
    for curve in memory.of(model):
        if curve.variant == BASELINE:
            continue
        words = rating = curve.rating(base)
        if rating == TOO_SMALL:
            words = "batch sizes too small to tell: gradients outweigh activations"
        elif rating == SIGNIFICANT:
            words += ", as the paper says"
        elif rating == NOT_HIGHER and (up_to := curve.above_up_to(base)) is not None:
            words += f", but more in all up to batch {up_to}"
        parts.append(
            f"{_short(styles[curve.variant])} {curve.over(base):.3g} times ({words}; largest batch"
            f" {curve.full_batch} against {base.full_batch})"
        )
    return f"{title}: memory per sample over the MLPs': {'; '.join(parts) or 'no KAN was measured'}."


def _short(style: VariantStyle) -> str:
    return style.name.removeprefix("KAN, ")


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``memory`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), {"memory": partial(memory_figure, MemoryRecord.read(record))})


def memory_figure(memory: MemoryRecord) -> Figure:
    """One panel per model, memory in all against batch size; hollow marks are out of memory. Within
    `publication_style`."""
    styles, titles = variant_styles(memory.variants), memory.titles
    columns = min(len(titles), 3)
    lines = -(-len(titles) // columns)
    figure = new_figure(0.2 + 2.55 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(titles) :]:
        axes.set_visible(False)
    every = np.concatenate([curve.total for curve in memory.curves]) / GB
    batches = np.concatenate([curve.batch for curve in memory.curves])
    for axes, (model, title) in zip(panels.flat, titles.items()):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(every.min() / 1.6, max(every.max(), memory.limit_gb) * 2.2)
        axes.set_xlim(batches.min() / 1.35, batches.max() * 1.35)
        _limit(axes, memory.limit_gb)
        for curve in memory.of(model):
            _draw(axes, curve, styles[curve.variant], memory.limit_gb)
        _slopes(axes, memory.of(model), styles)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(title.replace(": ", "\n", 1))
    for axes in panels[:, 0]:
        axes.set_ylabel("memory [GB]")
    for axes in panels.flat[max(0, len(titles) - columns) : len(titles)]:
        axes.set_xlabel("batch size")
        axes.tick_params(labelbottom=True)
    handles = [key(style, markersize=3.4, linewidth=1.1) for style in styles.values()]
    handles.append(hollow("out of memory", markersize=4.6))
    place_legend(figure, handles, columnspacing=1.4)
    return figure


def _limit(axes: Axes, limit: float) -> None:
    axes.axhspan(limit, axes.get_ylim()[1], color=SHADE, linewidth=0, zorder=0)
    axes.axhline(limit, color=FAINT, linewidth=0.8, zorder=1)
    axes.annotate(
        f"above {limit:g} GB", (0, 1), xycoords="axes fraction", xytext=(3, -3), textcoords="offset points", va="top",
        fontsize=6.5, color=FAINT,
    )  # fmt: skip


def _draw(axes: Axes, curve: Curve, style: VariantStyle, limit: float) -> None:
    """Measured points, hollow where they are out of memory, and lines between them that are straight in the batch."""
    batches, totals = curve.batch, curve.total / GB
    between = np.geomspace(batches[0], batches[-1], 200)
    axes.plot(between, np.interp(between, batches, totals), linestyle=style.line, color=style.colour, linewidth=1.1)
    fits = totals <= limit
    axes.plot(batches[fits], totals[fits], style.marker, color=style.colour, markersize=3.4)
    axes.plot(
        batches[~fits], totals[~fits], style.marker, color=style.colour, markersize=4.6, markerfacecolor="white",
        markeredgewidth=1.1,
    )  # fmt: skip


def _slopes(axes: Axes, curves: Sequence[Curve], styles: Mapping[str, VariantStyle]) -> None:
    """MB per sample of each variant, in its colour, in the corner that growing curves leave free."""
    lines = [("MB per sample", TRUTH)]
    for curve in curves:
        style = styles[curve.variant]
        lines.append((f"{_short(style)}  {format_number(curve.mb_per_sample)}", style.colour))
    for place, (text, colour) in enumerate(reversed(lines)):
        axes.annotate(
            text, (1, 0), xycoords="axes fraction", xytext=(-4, 5 + 9 * place), textcoords="offset points",
            ha="right", fontsize=6.5, color=colour,
        )  # fmt: skip
