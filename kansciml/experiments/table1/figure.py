"""The picture of Table 1: a line per row, with parameters, memory of a step, and accuracy printed and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kansciml.experiments.table1.record import SCRATCH, Row, Table1Record, rows_of
from kansciml.experiments.vision.record import STYLES
from kansciml.reporting.groups import mean_error
from kansciml.reporting.style import FAINT, TRUTH, VariantStyle, new_figure, variant_styles
from kansciml.runs.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.2
"""Inches."""
NAMES = {
    "mlp": "MLP",
    SCRATCH: "MLP, from scratch",
    "kan-spline": "KAN, splines",
    "kan-rswaf": "KAN, RSWAF",
}
MATCHED = {"params": "equal parameters", "flops": "equal FLOPs"}


def overview(record: Record) -> Figure:
    """All printed rows, and those of protocol fair. Call it within `publication_style`."""
    rows = rows_of(record)
    sizes = list(dict.fromkeys(row.published["size"] for row in rows))
    rows.sort(key=lambda row: (sizes.index(row.published["size"]), row.published["protocol"] != "paper"))
    figure = new_figure(1.15 + ROW_HEIGHT * len(rows))
    panels = figure.subplots(1, 4, sharey=True, width_ratios=(1.25, 1, 0.8, 1.25))
    places = [-place - 0.6 * sizes.index(row.published["size"]) for place, row in enumerate(rows)]
    for place, row in zip(places, rows):
        style = _style(row.published["group"])
        _parameters(panels[0], place, row, style)
        panels[1].barh(place, row.published["step_bytes"] / 1e9, 0.62, color=style.colour)
        if row.published.get("printed_top1") is not None:
            panels[2].plot(row.published["printed_top1"], place, "|", color=TRUTH, markersize=7, markeredgewidth=1.4)
        _measured(panels[3], place, row, style)
    panels[0].set_yticks(places, [_name(row) for row in rows])
    panels[0].tick_params(axis="y", length=0)
    vision = Table1Record.read(record)
    data = vision.data_of(vision.groups[0]).title
    pixels = vision.groups[0].first.network["image_size"]
    labels = ("parameters (M)", "step memory (GB)", "top-1 (%)", "top-1 (%)")
    titles = ("Parameters", f"Batch of {rows[0].published['batch']}", "Printed", f"Measured: {data}, {pixels} px")
    for axes, label, title in zip(panels, labels, titles):
        axes.set_xlabel(label)
        axes.set_title(title)
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
    used, dead = (row.published[name] / 1e6 for name in ("parameters", "dead"))
    axes.barh(place, used, 0.62, color=style.colour)
    if dead:
        axes.barh(place, dead, 0.62, left=used, facecolor="none", edgecolor=style.colour, hatch="/////", linewidth=0.6)
    printed = row.published.get("printed_parameters")
    if printed is not None:
        axes.plot(printed / 1e6, place, "|", color=TRUTH, markersize=7, markeredgewidth=1.4)


def _measured(axes: Axes, place: float, row: Row, style: VariantStyle) -> None:
    """A small mark per seed, and their mean +- its standard error."""
    top1 = [] if row.group is None else row.group.values(lambda one: one.percent)
    if not top1:
        text = "not trained" if row.group is None else "diverged"
        axes.text(0.5, place, text, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=6,
                  color=FAINT, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        return
    mean, error = mean_error(top1)
    axes.plot(top1, [place] * len(top1), style.marker, color=style.colour, alpha=0.4, markersize=3, markeredgewidth=0)
    bar = error if error == error else None
    axes.errorbar(mean, place, xerr=bar, fmt=style.marker, color=style.colour, markersize=4, capsize=2, linewidth=1)


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=FAINT, label="used by the forward pass"),
        Patch(facecolor="none", edgecolor=FAINT, hatch="/////", label="never called"),
        Line2D([], [], color=TRUTH, marker="|", linestyle="", markersize=7, label="printed"),
        Line2D([], [], color=FAINT, marker="o", linestyle="-", label="mean +- standard error; faint: seeds"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.8)


def _style(group: str) -> VariantStyle:
    return STYLES.get(group) or variant_styles(["mlp"])["mlp"]


def _name(row: Row) -> str:
    """``Tiny: KAN, splines, equal parameters``."""
    group = row.published["group"]
    name = NAMES.get(group)
    if name is None:
        kind, _, by = group.rpartition("-")
        name = f"{NAMES[kind]}, {MATCHED[by]}"
    return f"{row.published['size'].capitalize()}: {name}"
