"""Report of Table 1 (``kansciml run table1``): printed beside computed and measured. Reads the record only."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.table1.claims import claims_table, flatness_table
from kansciml.experiments.table1.record import FAIR, PAPER, Row, Table1Record
from kansciml.experiments.vision.report import drawings
from kansciml.reporting.groups import diverged_notes, mean_error, over, plus_minus
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import FAINT, TRUTH, VariantStyle, variant_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.2
"""Inches."""
MARK: dict[str, Any] = {"marker": "|", "linestyle": "", "color": TRUTH, "markersize": 7, "markeredgewidth": 1.4}
"""How printed numbers are drawn."""


def size_table(table1: Table1Record) -> Table:
    """Parameters, operations and memory of all rows as printed and matched; nothing of it is measured by training."""
    body = []
    for row in table1.published:
        mlp = table1.mlps[row.size]
        body.append(
            [*row.key, row.kan_hidden, row.printed_parameters / 1e6, (row.parameters + row.dead) / 1e6, row.dead / 1e6,
             row.parameters, row.parameters / mlp.parameters, over(row.flops, 1e9), over(row.flops, mlp.flops),
             row.step_bytes / 1e6, row.step_bytes / mlp.step_bytes]
        )  # fmt: skip
    columns = ["Protocol", "Size", "Model", "KAN hidden", "Printed (M)", "Computed (M)", "of it dead (M)", "Used"]
    columns += ["/ MLP", "GFLOPs", "/ MLP ", "Step (MB)", "/ MLP  "]
    batch = table1.published[0].batch
    notes = [
        "At the printed sizes: 224 x 224 pixels, 100 classes. Dead: MLPs that the paper's source builds and never"
        " calls, which are in the printed numbers; a user pays for those used. GFLOPs: forward, per image: matrix"
        f" products, and all of MLPs or KANs. Step: peak of forward and backward pass at batch {batch} in float32,"
        " activations and gradients, of this package's layers in plain PyTorch, counted on tensors without data;"
        " parameters and AdamW's state apart.",
        "Fair: KANs with the MLPs' biases and drop-path, and a hidden width with as many parameters, or operations.",
    ]
    return Table("Table 1: what its models hold and need", columns, body, notes)


def accuracy_table(table1: Table1Record) -> Table:
    """Accuracy of every row, printed beside measured: mean over seeds +- its standard error."""
    rows = [(row.key, row.printed_top1, row.printed_top5, row.trained) for row in table1.published]
    rows += [((FAIR, size, group.label), math.nan, math.nan, group) for size, group in table1.scratch.items()]
    body = []
    for key, top1, top5, group in rows:
        if group is None:
            body.append([*key, top1, None, top5, *[None] * 6])
            continue
        own = group.first
        body.append(
            [*key, top1, plus_minus(group.values(lambda row: row.percent)), top5,
             plus_minus(group.values(lambda row: row.percent5)), len(group.rows), own.parameters,
             over(own.flops, 1e6), over(own.step_bytes, 1e6), group.median(lambda row: row.seconds_per_step)]
        )  # fmt: skip
    columns = ["Protocol", "Size", "Model", "Top-1 printed (%)", "measured", "Top-5 printed (%)", "measured ", "Seeds"]
    columns += ["Parameters", "MFLOPs", "Step (MB)", "Step (s)"]
    own, data = table1.groups[0].first, table1.data_of(table1.groups[0])
    notes = [
        f"Measured: {data.title} at {own.network['image_size']} pixels, {data.n_train} training images, {own.steps}"
        f" steps in batches of {own.batch_size}; mean over the seeds that did not diverge, +- its standard error; test"
        " images, weights of the last step. A dash: not trained in this run. Parameters, MFLOPs and steps: of the"
        " trained models."
    ]
    notes += [*table1.caveat, *diverged_notes(table1.groups)]
    return Table("Table 1: accuracy, printed beside measured", columns, body, notes)


def overview(table1: Table1Record) -> Figure:
    """All printed rows, and those of protocol fair. Call it within `publication_style`."""
    sizes = list(dict.fromkeys(row.size for row in table1.published))
    rows = sorted(table1.published, key=lambda row: (sizes.index(row.size), row.protocol != PAPER))
    styles = variant_styles(row.group for row in rows)
    figure = new_figure(0.7 + ROW_HEIGHT * len(rows))
    panels = figure.subplots(1, 4, sharey=True, width_ratios=(1.25, 1, 0.8, 1.25))
    places = [-place - 0.6 * sizes.index(row.size) for place, row in enumerate(rows)]
    for place, row in zip(places, rows):
        style = styles[row.group]
        _parameters(panels[0], place, row, style)
        panels[1].barh(place, row.step_bytes / 1e9, 0.62, color=style.colour)
        if row.protocol == PAPER:
            panels[2].plot(row.printed_top1, place, **MARK)
        _measured(panels[3], place, row, style)
    names = [f"{row.size.capitalize()}: {styles[row.group].name}" for row in rows]
    panels[0].set_yticks(places, names)
    panels[0].tick_params(axis="y", length=0)
    first = table1.groups[0]
    measured = f"Measured: {table1.data_of(first).title}, {first.first.network['image_size']} px"
    labels = ("parameters (M)", "step memory (GB)", "top-1 (%)", "top-1 (%)")
    titles = ("Parameters", f"Batch of {rows[0].batch}", "Printed", measured)
    for axes, label, title in zip(panels, labels, titles):
        axes.set(xlabel=label, title=title)
        axes.xaxis.get_major_locator().set_params(nbins=4)
        for place in places:
            axes.axhline(place, color=FAINT, linewidth=0.3, alpha=0.5, zorder=0)
    for axes in panels[:2]:
        axes.set_xlim(left=0)
    for axes in panels[2:]:
        axes.margins(x=0.12)
    panels[0].set_ylim(min(places) - 0.7, 0.7)
    _legend(figure)
    return figure


def _parameters(axes: Axes, place: float, row: Row, style: VariantStyle) -> None:
    used, dead = row.parameters / 1e6, row.dead / 1e6
    axes.barh(place, used, 0.62, color=style.colour)
    if dead:
        axes.barh(place, dead, 0.62, left=used, facecolor="none", edgecolor=style.colour, hatch="/////", linewidth=0.6)
    if row.protocol == PAPER:
        axes.plot(row.printed_parameters / 1e6, place, **MARK)


def _measured(axes: Axes, place: float, row: Row, style: VariantStyle) -> None:
    """A small mark per seed, and their mean +- its standard error."""
    top1 = row.trained.values(lambda one: one.percent) if row.trained else []
    if not top1:
        text = "diverged" if row.trained else "not trained"
        axes.text(0.5, place, text, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=6,
                  color=FAINT, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        return
    mean, error = mean_error(top1)
    axes.plot(top1, [place] * len(top1), style.marker, color=style.colour, alpha=0.4, markersize=3, markeredgewidth=0)
    bar = None if math.isnan(error) else error
    axes.errorbar(mean, place, xerr=bar, fmt=style.marker, color=style.colour, markersize=4, capsize=2, linewidth=1)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=FAINT, label="used by the forward pass"),
        Patch(facecolor="none", edgecolor=FAINT, hatch="/////", label="never called"),
        Line2D([], [], **MARK, label="printed"),
        Line2D([], [], color=FAINT, marker="o", linestyle="-", label="mean +- standard error; faint: seeds"),
    ]
    place_legend(figure, handles, handlelength=1.8)


def summary(record: Record) -> list[Table]:
    """Sizes, accuracies and claims; on minima, where they were measured. KansciError: it is no finished run."""
    table1 = Table1Record.read(record)
    sharper = [one for one in (flatness_table(table1),) if one]
    sharper += hessian.verdict_tables(table1.hessian) if table1.hessian else []
    return [size_table(table1), accuracy_table(table1), claims_table(table1), *sharper]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``table1``, the curves of each size, ``spectra`` (SVG, PNG and PDF), ``tables`` (Markdown and JSON)."""
    table1 = Table1Record.read(record)
    spectra = {"spectra": partial(hessian.spectra, table1.hessian)} if table1.hessian else {}
    return save_report(folder, summary(record), {**drawings(table1), **spectra, "table1": partial(overview, table1)})
