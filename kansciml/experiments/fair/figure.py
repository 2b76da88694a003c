"""The picture of the comparisons on equal terms: error of the KAN over that of the MLP, per task and protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.fair.record import PROTOCOLS, Comparison, FairRecord
from kansciml.reporting.legends import hollow, key, legend_below, log_ticks
from kansciml.reporting.style import FAINT, TRUTH, VariantStyle, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KAN_SIDE, MLP_SIDE = "#fbe9df", "#e2eef7"
"""Pale forms of the colours of KAN and MLP."""
STYLES = {
    "width": ("#D55E00", "s"),
    "params": ("#009E73", "D"),
    "params-up": ("#56B4E9", "v"),
    "flops": ("#E69F00", "^"),
    "flops-up": ("#666666", "P"),
    "time": ("#0072B2", "o"),
}
"""Colour and marker of each protocol, after Okabe and Ito (2008)."""
LINE, GAP = 0.17, 0.16
"""Inches of height per comparison, and between tasks."""
OUTSIDE = 3.0
"""Factor by which the axis reaches beyond the ratios and the ends of intervals that it shows."""
LARGEST = 1e4
"""An interval's end so many times beyond the ratios is drawn as an arrow, not waited for."""


def ratio_figure(fair: FairRecord) -> Figure:
    """Ratios with intervals on a log axis, the protocols of a task one below the other; within `publication_style`.

    A filled mark is a verdict, a ringed one stands after the correction over the table, a hollow one is undecided. An
    arrow is an interval that goes on beyond the picture.
    """
    n, lines = len(fair.protocols), fair.lines
    figure = new_figure(1.25 + (LINE * n + GAP) * len(lines))
    axes = figure.subplots()
    low, high = limits(fair)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvspan(low, 1, color=KAN_SIDE, linewidth=0, zorder=0)
    axes.axvspan(1, high, color=MLP_SIDE, linewidth=0, zorder=0)
    axes.axvline(1, color=TRUTH, linewidth=0.8, zorder=1)
    ticks, height = [], LINE * n + GAP
    for place, (task, layer) in enumerate(lines):
        ticks.append(place * height + LINE * (n - 1) / 2)
        if place:
            axes.axhline(place * height - (LINE + GAP) / 2, color="white", linewidth=1.6, zorder=1)
        for index, protocol in enumerate(fair.protocols):
            row = fair.of(task, layer, protocol)
            if row and row.n_pairs:
                _mark(axes, row, place * height + index * LINE, (low, high))
    axes.set_ylim((len(lines) - 1) * height + LINE * (n - 1) + (LINE + GAP) / 2, -(LINE + GAP) / 2)
    axes.set_yticks(ticks, [fair.title(task, layer).replace(", ", "\n", 1) for task, layer in lines])
    axes.tick_params(axis="y", length=0)
    log_ticks(axes.xaxis, (low, high), few=1000.0)
    seeds = max(len(row.seeds) for row in fair.rows)
    axes.set_xlabel(
        f"error of the KAN / error of the MLP, with {100 * (1 - fair.alpha):g} % intervals over {seeds}"
        f" seed{'s' * (seeds != 1)}"
    )
    for text, x, side in (("KAN better", 0.0, "left"), ("MLP better", 1.0, "right")):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha=side,
            fontsize=8.5, fontweight="bold", color=STYLES["width" if side == "left" else "time"][0],
        )  # fmt: skip
    _legend(figure, fair)
    return figure


def limits(fair: FairRecord) -> tuple[float, float]:
    """Ends of the axis: around all ratios and 1, and the intervals' ends that are not too far from them."""
    ratios = [row.ratio for row in fair.rows if 0 < row.ratio < math.inf]
    around = min([1.0, *ratios]), max([1.0, *ratios])
    ends = [end for row in fair.rows for end in (row.low, row.high)]
    ends = [end for end in ends if around[0] / LARGEST < end < around[1] * LARGEST]
    return min([around[0], *ends]) / OUTSIDE, max([around[1], *ends]) * OUTSIDE


def _mark(axes: Axes, row: Comparison, y: float, ends: tuple[float, float]) -> None:
    colour, marker = STYLES[row.protocol]
    low, high = (float(np.clip(end, *ends)) for end in (row.low, row.high))
    ratio = float(np.clip(row.ratio, ends[0] * 1.2, ends[1] / 1.2))
    axes.plot((low, high), (y, y), color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    for whole, end in ((row.low, low), (row.high, high)):
        if whole == end:
            axes.plot(end, y, marker="|", color=colour, markersize=5, zorder=2)
        else:  # 4 and 5 are matplotlib's caretleft and caretright
            axes.plot(end, y, marker=4 if end == ends[0] else 5, color=colour, markersize=5, clip_on=False, zorder=2)
    if row.confirmed:
        axes.plot(ratio, y, "o", markersize=8.5, markerfacecolor="none", markeredgecolor=colour, zorder=3)
    axes.plot(
        ratio, y, marker, color=colour, markersize=5, markerfacecolor=colour if row.decided else "white",
        markeredgewidth=1.1, zorder=4,
    )  # fmt: skip
    if not 0 < row.ratio < math.inf:
        axes.annotate(
            _why_boundless(row), (ratio, y), xytext=(0, 3.5), textcoords="offset points", va="bottom", fontsize=6,
            ha="right" if row.ratio else "left", color=colour,
        )  # fmt: skip


def _why_boundless(row: Comparison) -> str:
    """Of a ratio that is infinite or zero."""
    higher, lower, losses = ("KAN", "MLP", row.kan_losses) if row.ratio else ("MLP", "KAN", row.mlp_losses)
    return f"{higher} diverged" if None in losses else f"{lower} without error"


def _legend(figure: Figure, fair: FairRecord) -> None:
    handles = [
        key(VariantStyle(PROTOCOLS[protocol], STYLES[protocol][0], "-", STYLES[protocol][1]), markersize=5)
        for protocol in fair.protocols
    ]
    handles.append(hollow("undecided", markersize=5))
    if any(row.decided for row in fair.rows):
        handles.append(hollow("decided by itself", markersize=5, markerfacecolor=FAINT))
    if any(row.confirmed for row in fair.rows):
        handles.append(hollow("and after Holm's correction", markersize=8.5, markerfacecolor="none"))
    legend_below(figure, handles, columnspacing=1.4, handlelength=2.0)
