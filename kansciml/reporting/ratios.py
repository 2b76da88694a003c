"""Pictures of ratios with intervals, a row for each task: the side of 1 on which they lie says which model leads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import UNDECIDED, Comparison
from kansciml.reporting.legends import hollow, key, log_ticks
from kansciml.reporting.style import FAINT, TRUTH, VariantStyle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

LEFT_SIDE, RIGHT_SIDE = "#fbe9df", "#e2eef7"
"""Where the first model is better, and where the second is."""
STEP, GAP = 0.095, 0.07
"""Inches of height per ratio, and between rows."""
FARTHEST = 30.0
"""An interval's end so many times beyond the ratios is drawn as an arrow, not waited for."""


@dataclass(frozen=True)
class Ratio:
    """The outcome of a claim on a ratio, and how it looks: filled where it is decided after correction."""

    outcome: Comparison
    style: VariantStyle


def limits(ratios: Sequence[Comparison]) -> tuple[float, float]:
    """Ends of an axis: around all ratios and 1, and the intervals' ends that are not too far from them."""
    known = [one.effect for one in ratios if 0 < one.effect < math.inf]
    low, high = min([1.0, *known]), max([1.0, *known])
    ends = [end for one in ratios for end in (one.low, one.high) if low / FARTHEST < end < high * FARTHEST]
    return min([low, *ends]) / 1.5, max([high, *ends]) * 1.5


def ratio_panel(axes: Axes, rows: Sequence[tuple[str, Sequence[Ratio]]], ends: tuple[float, float]) -> None:
    """Draw named rows of ratios, one below the other, on a log axis between `ends`."""
    axes.set(xscale="log", xlim=ends)
    axes.axvspan(ends[0], 1, color=LEFT_SIDE, linewidth=0, zorder=0)
    axes.axvspan(1, ends[1], color=RIGHT_SIDE, linewidth=0, zorder=0)
    axes.axvline(1, color=TRUTH, linewidth=0.8, zorder=1)
    y, ticks = 0.0, []
    for place, (_, ratios) in enumerate(rows):
        if place:
            axes.axhline(y - GAP / 2 - STEP / 2, color="white", linewidth=1.2, zorder=1)
        ticks.append(y + STEP * (max(len(ratios), 1) - 1) / 2)
        for line, one in enumerate(ratios):
            _mark(axes, one, y + STEP * line, ends)
        y += STEP * max(len(ratios), 1) + GAP
    axes.set_ylim(y - GAP / 2 - STEP / 2, -(STEP + GAP) / 2)
    axes.set_yticks(ticks, [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    log_ticks(axes.xaxis, ends, few=30.0)


def height_of(rows: Sequence[tuple[str, Sequence[Ratio]]]) -> float:
    """Inches that the rows take."""
    return sum(STEP * max(len(ratios), 1) + GAP for _, ratios in rows)


def _mark(axes: Axes, one: Ratio, y: float, ends: tuple[float, float]) -> None:
    found, colour = one.outcome, one.style.colour
    if math.isnan(found.effect):
        return
    low, high = (float(np.clip(end, *ends)) for end in (found.low, found.high))
    axes.plot((low, high), (y, y), color=colour, linewidth=1.1, solid_capstyle="butt", zorder=2)
    for whole, end in ((found.low, low), (found.high, high)):
        if whole != end and not math.isnan(whole):  # 4 and 5 are matplotlib's caretleft and caretright
            axes.plot(end, y, marker=4 if end == ends[0] else 5, color=colour, markersize=4, clip_on=False, zorder=2)
    ratio = float(np.clip(found.effect, *ends))
    axes.plot(
        ratio, y, one.style.marker, color=colour, markersize=3.6, markeredgewidth=0.9, zorder=4,
        markerfacecolor=colour if found.corrected != UNDECIDED else "white",
    )  # fmt: skip


def sides(axes: Axes, left: str, right: str) -> None:
    """Say above a panel who is better on which side."""
    for text, x, side in ((left, 0.0, "left"), (right, 1.0, "right")):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha=side, fontsize=7,
            fontweight="bold", color="#A04000" if side == "left" else "#005A8D",
        )  # fmt: skip


def ratio_keys(styles: Sequence[VariantStyle]) -> list[Artist]:
    """Entries of a legend for the series, and for filled and hollow marks."""
    filled = hollow("decided, after Holm's correction", marker="o", markerfacecolor=FAINT, markersize=4)
    return [*(key(style, markersize=4) for style in styles), filled, hollow("undecided", markersize=4)]
