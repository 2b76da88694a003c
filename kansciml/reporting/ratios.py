"""Pictures of ratios with intervals, a row for each task: the side of 1 on which they lie says which network leads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import UNDECIDED, Comparison
from kansciml.reporting import palette
from kansciml.reporting.legends import hollow
from kansciml.reporting.palette import NETWORKS, PAPER, TRUTH
from kansciml.runs.tables import format_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

FARTHEST = 1000.0
"""A ratio so many times from 1 is written at the edge: the others have to be read beside it."""
BEYOND = 5.0
"""An interval's end so many times beyond the ratios is drawn as an arrow."""
CROWDED = 4
"""Steps that the ratios of a row take, one each; more stand closer."""
Rows = Sequence[tuple[str, Sequence["Ratio | None"]]]
"""Names and what stands on their lines, one below the other; None: an empty place."""


@dataclass(frozen=True)
class Ratio:
    """The outcome of a claim that the first of two networks is lower: in the colour of the winner, filled where it
    stands after correction, hollow where it is decided by itself alone, and grey where it is not.

    Args:
        marker: of the way in which they are made equal. first, second: keys of `palette.NETWORKS`.
        note: written beside it.
    """

    outcome: Comparison
    marker: str
    first: str = "kan"
    second: str = "mlp"
    note: str = ""

    @property
    def colour(self) -> str:
        if self.outcome.verdict == UNDECIDED:
            return palette.UNDECIDED
        return NETWORKS[self.first if self.outcome.effect < 1 else self.second]


def limits(ratios: Sequence[Comparison]) -> tuple[float, float]:
    """Ends of an axis: around 1 and the ratios that are not too far from it, and the intervals' ends not far beyond."""
    known = [min(max(one.effect, 1 / FARTHEST), FARTHEST) for one in ratios if 0 < one.effect < math.inf]
    low, high = min([1.0, *known]), max([1.0, *known])
    ends = [end for one in ratios for end in (one.low, one.high) if low / BEYOND < end < high * BEYOND]
    return min([low, *ends]) / 1.4, max([high, *ends]) * 1.4


def ratio_panel(
    axes: Axes, rows: Rows, ends: tuple[float, float], step: float = 0.1, sides: tuple[str, str] = ("kan", "mlp")
) -> None:
    """Draw named rows of ratios, one below the other, on a log axis between `ends`.

    A ratio beyond them is an arrow with its number, without where the dots of its row stand too close for one.

    Args:
        step: inches of height per ratio. sides: networks of whose colours the two sides have a breath, or empty.
    """
    axes.set(xscale="log", xlim=ends)
    for side, span in zip(sides, ((ends[0], 1), (1, ends[1]))):
        axes.axvspan(*span, color=NETWORKS.get(side, palette.SHADE), alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(1, color=TRUTH, linewidth=0.8, zorder=1)
    y, ticks = 0.0, []
    for place, (_, ratios) in enumerate(rows):
        if place:
            axes.axhline(y - 0.9 * step, color=PAPER, linewidth=1.4, zorder=1)
        extent = _extent(ratios) * step
        ticks.append(y + extent / 2)
        for line, one in enumerate(ratios):
            if one is not None:
                at, roomy = y + extent * line / max(len(ratios) - 1, 1), len(ratios) <= CROWDED + 1
                _mark(axes, one, at, ends, 26 * step + 1, roomy)
        y += extent + 1.8 * step
    axes.set_ylim(y - 0.9 * step, -0.9 * step)
    axes.set_yticks(ticks, [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)


def height_of(rows: Rows, step: float = 0.1) -> float:
    """Inches that the rows take."""
    return step * sum(_extent(ratios) + 1.8 for _, ratios in rows)


def _extent(ratios: Sequence[Ratio | None]) -> float:
    """From the first to the last ratio of a row, in steps: `CROWDED` steps, and half steps for more."""
    last = max(len(ratios), 1) - 1
    return min(last, CROWDED) + max(last - CROWDED, 0) / 2


def _mark(axes: Axes, one: Ratio, y: float, ends: tuple[float, float], size: float, roomy: bool) -> None:
    found, colour = one.outcome, one.colour
    if math.isnan(found.effect):
        return
    low, high, ratio = (float(np.clip(value, *ends)) for value in (found.low, found.high, found.effect))
    axes.plot((low, high), (y, y), color=colour, linewidth=0.3 * size, solid_capstyle="butt", zorder=2)
    for whole, end in ((found.low, low), (found.high, high), (found.effect, ratio)):
        if whole != end and not math.isnan(whole):  # 4 and 5 are matplotlib's caretleft and caretright
            axes.plot(end, y, marker=4 if end == ends[0] else 5, color=colour, markersize=size, clip_on=False, zorder=2)
    inside, side = ratio == found.effect, "left" if found.effect < 1 else "right"
    if inside:
        axes.plot(
            ratio, y, one.marker, color=colour, markersize=size, markeredgewidth=1.0, zorder=4,
            markerfacecolor=colour if found.corrected != UNDECIDED else PAPER,
        )  # fmt: skip
    if one.note or (roomy and not inside):
        text = one.note or format_number(found.effect, 2)
        axes.annotate(
            text, (ratio, y), xytext=(5 if side == "left" else -5, 0), textcoords="offset points", va="center", ha=side,
            fontsize=6, color=colour, zorder=5, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def name_sides(axes: Axes, left: str, right: str, sides: tuple[str, str] = ("kan", "mlp"), size: float = 7.0) -> None:
    """Say above a panel who is better on which side."""
    for text, x, where, network in ((left, 0.0, "left", sides[0]), (right, 1.0, "right", sides[1])):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha=where, fontsize=size,
            fontweight="bold", color=NETWORKS.get(network, TRUTH),
        )  # fmt: skip


def ratio_keys(markers: Mapping[str, str]) -> list[Artist]:
    """Entries of a legend for the series, by their titles."""
    return [
        hollow(title, marker=marker, markersize=4, color=TRUTH, markerfacecolor=TRUTH)
        for title, marker in markers.items()
    ]


def ratio_note(alpha: float, n_seeds: int | None = None) -> str:
    """What is written above the legend."""
    over = "paired seeds" if n_seeds is None else f"{n_seeds} seed{'s' * (n_seeds != 1)}"
    return (
        "filled: decided after Holm's correction, hollow: by itself, grey: undecided;"
        f" line: {100 * (1 - alpha):g} % interval over {over}, arrow: beyond the axis"
    )
