"""Report of Figure 4, memory of a training step against batch size: reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``config``: limit_gb, precision, device, batches.
* ``result["titles"]``: model -> title of its panel.
* ``result["curves"]``: per curve model, variant, parameters, resident_bytes (parameters and buffers), optimiser_bytes,
  input_bytes (per sample), slope_bytes and intercept_bytes (line through the peaks from an eighth of the largest batch
  size on), off_line_bytes (farthest of them from it), kept_bytes (for the backward pass, per sample), full_batch
  (largest within the limit), and reference: mb_per_sample and full_batch as known from elsewhere, or neither.
* arrays ``<model>.<variant>.batch``, and in bytes ``.peak`` (of the step alone) and ``.total`` (with all that is
  resident).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.reporting.style import FAINT, SHADE, VariantStyle, new_figure, publication_style, save_figure
from kansciml.reporting.style import variant_styles as general_styles
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.tables import Table, format_number, save_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MB, GB = 10**6, 10**9
EXPERIMENTS = ("fig4a", "fig4b")
BASELINE = "mlp"
STYLES = {
    "textbook": VariantStyle("KAN, textbook recursion", "#444444", (0, (3, 1, 1, 1, 1, 1)), "^"),
    "kan-spline": VariantStyle("KAN, SplineKAN", "#D55E00", (0, (5, 1.5)), "s"),
    "kan-rswaf": VariantStyle("KAN, RSWAFKAN", "#009E73", (0, (5, 1.2, 1.2, 1.2)), "D"),
}
KERNELS = {
    "cpu": "SplineKAN and RSWAFKAN: kernels in plain PyTorch, in the blocks that suit a CPU. On a GPU the blocks are "
    "larger: --device gpu counts those.",
    "gpu": "SplineKAN and RSWAFKAN: kernels in plain PyTorch, in the blocks that suit a GPU. At small batches a block "
    "grows with the batch, and so the memory grows faster there than its slope says.",
}
ACTIVATIONS = 0.95
"""Least share of what is kept per sample, the input among it, that the slope must have where activations dominate."""
HIGHER, MUCH_HIGHER = 1.05, 2.0
"""Ratios to the MLPs' memory per sample from which the verdict calls it higher, and significantly higher."""
SIGNIFICANT, SLIGHT, NOT_HIGHER, TOO_SMALL = (
    "significantly higher",
    "higher, but not by much",
    "not higher",
    "too small",
)
"""What `rating` says."""


def variant_styles(variants: list[str]) -> Mapping[str, VariantStyle]:
    """A style for each variant; those without one here look as elsewhere."""
    return {**general_styles(variants), **{name: STYLES[name] for name in variants if name in STYLES}}


def summary(record: Record) -> list[Table]:
    """Memory per sample and largest batch of every curve, with the verdict in words; and the points measured.

    Raises:
        KansciError: the record holds no finished run of figure 4.
    """
    curves, limit = read_curves(record), record.config["limit_gb"]
    styles = variant_styles([row["variant"] for row in curves])
    above = {(row["model"], row["variant"]): above_up_to(record, row["model"], row["variant"]) for row in curves}
    rows = []
    for row in curves:
        base = baseline(curves, row["model"])
        rows.append(
            [
                row["model"],
                styles[row["variant"]].name,
                row["slope_bytes"] / MB,
                None if base is None else row["slope_bytes"] / base["slope_bytes"],
                row["reference"].get("mb_per_sample"),
                row["full_batch"],
                row["reference"].get("full_batch"),
                row["kept_bytes"] / MB,
                (row["resident_bytes"] + row["optimiser_bytes"]) / MB,
                above[row["model"], row["variant"]],
            ]
        )
    columns = [
        "model", "variant", "MB per sample", "over MLP", "reference MB", f"batch in {limit:g} GB", "reference batch",
        "kept MB per sample", "weights + AdamW MB",
        "above MLP up to batch",
    ]  # fmt: skip
    off = max(row["off_line_bytes"] / (limit * GB) for row in curves)
    notes = [verdict(title, curves, name, above) for name, title in record.result["titles"].items()]
    notes += [
        "Growth: from an eighth of the largest batch size on, no peak is off a straight line by more than "
        f"{max(off, 1e-6):.1g} of {limit:g} GB.",
        "MB per sample: slope of the peak of forward pass, loss and backward pass, counted exactly on tensors without "
        "data, gradients among them. The largest batch leaves room for weights, AdamW's two moments and the input.",
        "Above MLP up to batch: the largest batch size, of those measured for both, at which it takes more in all.",
        "Reference: efficient-kan, and the same MLPs, measured independently.",
        KERNELS[record.config["device"]],
        "Not counted: workspace inside a library's kernels, an allocator's rounding, a GPU's context.",
    ]
    if record.config["precision"] != "32":
        notes.append(
            "Autocast to bfloat16; weights and their gradients in float32. Without data, PyTorch takes the statistics "
            "of normalisations for bfloat16 as well: the peaks are low by them, about 0.1 %."
        )
    return [Table("Memory of a training step", columns, rows, notes), *_points(record, curves, styles)]


def _points(record: Record, curves: list[dict[str, Any]], styles: Mapping[str, VariantStyle]) -> list[Table]:
    tables = []
    for model in record.result["titles"]:
        own = [row["variant"] for row in curves if row["model"] == model]
        totals = {name: _total(record, model, name) for name in own}
        batches = sorted({batch for points in totals.values() for batch in points})
        rows = [[batch, *(totals[name].get(batch) for name in own)] for batch in batches]
        note = f"Weights, AdamW's state, input and peak; above {record.config['limit_gb']:g} GB: out of memory."
        columns = ["batch size", *(f"{styles[name].name} [GB]" for name in own)]
        tables.append(Table(f"Memory in all, {model}", columns, rows, [note]))
    return tables


def above_up_to(record: Record, model: str, variant: str) -> int | None:
    """Largest batch size, of those measured for both, at which a variant takes more memory in all than the MLPs."""
    if variant == BASELINE or f"{model}.{BASELINE}.total" not in record.arrays:
        return None
    own, base = _total(record, model, variant), _total(record, model, BASELINE)
    return max((batch for batch in own if batch in base and own[batch] > base[batch]), default=None)


def _total(record: Record, model: str, variant: str) -> dict[int, float]:
    batches, total = (record.arrays[f"{model}.{variant}.{key}"] for key in ("batch", "total"))
    return {int(batch): float(value) / GB for batch, value in zip(batches, total)}


def verdict(
    title: str, curves: list[dict[str, Any]], model: str, above: Mapping[tuple[str, str], int | None] | None = None
) -> str:
    """One sentence on the paper's claim, "significantly higher memory usage", for one model.

    Args:
        above: (model, variant) -> `above_up_to`, told of variants that take no more per sample.
    """
    base = baseline(curves, model)
    if base is None:
        return f"{title}: no verdict without the MLPs' own memory."
    styles = variant_styles([row["variant"] for row in curves])
    parts = []
    for row in (row for row in curves if row["model"] == model and row["variant"] != BASELINE):
        ratio = row["slope_bytes"] / base["slope_bytes"]
        rated = rating(row, base)
        words = {
            TOO_SMALL: "batch sizes too small to tell: gradients outweigh activations",
            SIGNIFICANT: "significantly higher, as the paper says",
        }.get(rated, rated)
        up_to = (above or {}).get((model, row["variant"]))
        if rated == NOT_HIGHER and up_to is not None:
            words += f", but more in all up to batch {up_to}"
        name = styles[row["variant"]].name.removeprefix("KAN, ")
        parts.append(
            f"{name} {ratio:.3g} times ({words}; largest batch {row['full_batch']} against {base['full_batch']})"
        )
    return f"{title}: memory per sample over the MLPs': {'; '.join(parts) or 'no KAN was measured'}."


def rating(row: dict[str, Any], base: dict[str, Any]) -> str:
    """How a curve's memory per sample stands to the MLPs': `SIGNIFICANT`, `SLIGHT`, `NOT_HIGHER` or `TOO_SMALL`."""
    if too_small(row) or too_small(base):
        return TOO_SMALL
    ratio = row["slope_bytes"] / base["slope_bytes"]
    return SIGNIFICANT if ratio >= MUCH_HIGHER else SLIGHT if ratio > HIGHER else NOT_HIGHER


def too_small(row: dict[str, Any]) -> bool:
    """Whether a curve's slope is not yet that of its activations, all of which are there when backward begins."""
    return row["slope_bytes"] + row["input_bytes"] < ACTIVATIONS * row["kept_bytes"]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``memory`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths.

    Raises:
        KansciError: the record holds no finished run of figure 4, or the folder cannot be written.
    """
    paths = save_tables(summary(record), folder, "tables")
    with publication_style():
        figure = memory_figure(record)
    return [*paths, *save_figure(figure, folder, "memory")]


def memory_figure(record: Record) -> Figure:
    """One panel per model, memory in all against batch size; hollow marks are out of memory. Within
    `publication_style`."""
    curves, limit = read_curves(record), record.config["limit_gb"]
    titles = record.result["titles"]
    styles = variant_styles([row["variant"] for row in curves])
    columns = min(len(titles), 3)
    lines = -(-len(titles) // columns)
    figure = new_figure(0.55 + 2.55 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(titles) :]:
        axes.set_visible(False)
    every = np.concatenate([record.arrays[f"{row['model']}.{row['variant']}.total"] for row in curves]) / GB
    batches = [int(b) for row in curves for b in record.arrays[f"{row['model']}.{row['variant']}.batch"]]
    for axes, (model, title) in zip(panels.flat, titles.items()):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(every.min() / 1.6, max(every.max(), limit) * 2.2)
        axes.set_xlim(min(batches) / 1.35, max(batches) * 1.35)
        _limit(axes, limit)
        for row in (row for row in curves if row["model"] == model):
            _curve(axes, record, row, styles[row["variant"]], limit)
        _slopes(axes, [row for row in curves if row["model"] == model], styles)
        _ticks(axes, min(batches), max(batches))
        axes.set_title(title.replace(": ", "\n", 1))
    for axes in panels[:, 0]:
        axes.set_ylabel("memory [GB]")
    for axes in panels.flat[max(0, len(titles) - columns) : len(titles)]:
        axes.set_xlabel("batch size")
        axes.tick_params(labelbottom=True)
    _legend(figure, styles)
    return figure


def _limit(axes: Axes, limit: float) -> None:
    axes.axhspan(limit, axes.get_ylim()[1], color=SHADE, linewidth=0, zorder=0)
    axes.axhline(limit, color=FAINT, linewidth=0.8, zorder=1)
    axes.annotate(
        f"{limit:g} GB", (0, limit), xycoords=("axes fraction", "data"), xytext=(3, 2.5), textcoords="offset points",
        fontsize=6.5, color="#555555",
    )  # fmt: skip


def _curve(axes: Axes, record: Record, row: dict[str, Any], style: VariantStyle, limit: float) -> None:
    """Measured points, hollow where they are out of memory, and lines between them that are straight in the batch."""
    name = f"{row['model']}.{row['variant']}"
    batches, totals = record.arrays[f"{name}.batch"], record.arrays[f"{name}.total"] / GB
    between = np.geomspace(batches[0], batches[-1], 200)
    axes.plot(between, np.interp(between, batches, totals), linestyle=style.line, color=style.colour, linewidth=1.1)
    fits = totals <= limit
    axes.plot(batches[fits], totals[fits], style.marker, color=style.colour, markersize=3.4)
    axes.plot(
        batches[~fits], totals[~fits], style.marker, color=style.colour, markersize=4.6, markerfacecolor="white",
        markeredgewidth=1.1,
    )  # fmt: skip


def _slopes(axes: Axes, rows: list[dict[str, Any]], styles: Mapping[str, VariantStyle]) -> None:
    """MB per sample of each variant, in its colour, in the corner that growing curves leave free."""
    lines = [("MB per sample", "#333333")]
    lines += [
        (f"{styles[row['variant']].name.removeprefix('KAN, ')}  {format_number(row['slope_bytes'] / MB)}",
         styles[row["variant"]].colour)
        for row in rows
    ]  # fmt: skip
    for place, (text, colour) in enumerate(reversed(lines)):
        axes.annotate(
            text, (1, 0), xycoords="axes fraction", xytext=(-4, 5 + 9 * place), textcoords="offset points",
            ha="right", fontsize=6.5, color=colour,
        )  # fmt: skip


def _ticks(axes: Axes, low: int, high: int) -> None:
    exponents = range(int(np.floor(np.log2(low))), int(np.ceil(np.log2(high))) + 1)
    step = max(1, -(-len(exponents) // 8))
    axes.set_xticks([2.0**k for k in exponents[::step]], [f"{2.0**k:g}" for k in exponents[::step]])
    axes.set_xticks([], minor=True)
    bottom, top = axes.get_ylim()
    decades = range(int(np.ceil(np.log10(bottom))), int(np.floor(np.log10(top))) + 1)
    axes.set_yticks([10.0**k for k in decades], [f"{10.0**k:g}" for k in decades])


def _legend(figure: Figure, styles: Mapping[str, VariantStyle]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle=s.line, color=s.colour, marker=s.marker, markersize=3.4, linewidth=1.1, label=s.name)
        for s in styles.values()
    ]
    handles.append(
        Line2D(
            [],
            [],
            linestyle="",
            color=FAINT,
            marker="o",
            markersize=4.6,
            markerfacecolor="white",
            label="out of memory",
        )
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.4, handlelength=2.6)


def baseline(curves: list[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """The curve of a model's MLPs; None where they were not measured."""
    found = [row for row in curves if row["model"] == model and row["variant"] == BASELINE]
    return found[0] if found else None


def read_curves(record: Record) -> list[dict[str, Any]]:
    """``result["curves"]``.

    Raises:
        KansciError: the record holds no finished run of figure 4.
    """
    curves = record.result.get("curves", ())
    wanted = [f"{row['model']}.{row['variant']}.{key}" for row in curves for key in ("batch", "peak", "total")]
    if record.experiment not in EXPERIMENTS or not curves or any(name not in record.arrays for name in wanted):
        raise DamagedRecord(f"{record.folder} holds no finished run of figure 4: kansciml run fig4a makes one")
    return list(curves)
