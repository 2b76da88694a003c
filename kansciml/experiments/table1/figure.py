"""The picture of Table 1: a line per row, with parameters, memory of a step, and accuracy printed and measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kansciml.experiments.table1.record import PAPER, Row, Table1Record
from kansciml.reporting.groups import mean_error
from kansciml.reporting.legends import legend_below
from kansciml.reporting.style import FAINT, TRUTH, VariantStyle, new_figure, variant_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.2
"""Inches."""
MARK: dict[str, Any] = {"marker": "|", "linestyle": "", "color": TRUTH, "markersize": 7, "markeredgewidth": 1.4}
"""How printed numbers are drawn."""


def overview(table1: Table1Record) -> Figure:
    """All printed rows, and those of protocol fair. Call it within `publication_style`."""
    sizes = list(dict.fromkeys(row.size for row in table1.published))
    rows = sorted(table1.published, key=lambda row: (sizes.index(row.size), row.protocol != PAPER))
    styles = variant_styles(row.group for row in rows)
    figure = new_figure(1.15 + ROW_HEIGHT * len(rows))
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
    legend_below(figure, handles, most=4, handlelength=1.8)
