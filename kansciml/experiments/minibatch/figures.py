"""Pictures that records of trainings on minibatches have in common; drawn within `publication_style`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.experiments.minibatch.record import TrainedRecord
from kansciml.reporting.groups import Group
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import VariantStyle
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 8.5
"""Size of the text above a figure."""
TIMES = {"cpu_s": "processor time (s)", "train_s": "time (s)"}
"""Names of the curves of seconds, and of their axes."""
MARKS = 8
"""About how many marks a curve has."""


@dataclass(frozen=True)
class Curve:
    """A row of panels.

    Args:
        name: of the curve in the record. label: of the axis. scale: what values are multiplied by.
        log: whether the axis is logarithmic.
    """

    name: str
    label: str
    scale: float = 1.0
    log: bool = False


@dataclass(frozen=True)
class Column:
    """A column of panels: its title, its groups, and whether they are drawn against seconds of training or epochs."""

    title: str
    groups: Sequence[Group[Any]]
    over_time: bool = False


def curves(record: TrainedRecord[Any, Any], task: str, rows: Sequence[Curve], columns: Sequence[Column]) -> Figure:
    """A panel for every row and column: medians over seeds, and bands from the lowest to the highest."""
    figure = new_figure(3.9)
    clock = time_of(record.of(task))
    panels = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
    for place, column in enumerate(columns):
        bottom = panels[-1, place]
        for axes, row in zip(panels[:, place], rows):
            for group in column.groups:
                at = group.curves(clock if column.over_time else "epoch")
                _band(axes, at, row.scale * group.curves(row.name), record.styles[group.first.look])
            axes.margins(x=0.02)
        panels[0, place].set_title(column.title)
        bottom.set_xlabel(TIMES[clock] if column.over_time else "epoch")
        if not column.over_time:
            bottom.xaxis.get_major_locator().set_params(nbins=6, integer=True)
    for axes, row in zip(panels[:, 0], rows):
        axes.set_ylabel(row.label)
        if row.log:
            axes.set_yscale("log")
    figure.suptitle(record.title(task), fontsize=TITLE)
    several = any(len(group.rows) > 1 for group in record.of(task))
    legend(figure, record, task, "line: median over seeds, band: lowest to highest" if several else "")
    return figure


def time_of(groups: Sequence[Group[Any]]) -> str:
    """Which curve tells time: that of the processor, which other programs do not lengthen, where all groups have it."""
    known = all(f"{row.id}.cpu_s" in group.arrays for group in groups for row in group.rows)
    return "cpu_s" if known else "train_s"


def _band(axes: Axes, at: np.ndarray, values: np.ndarray, style: VariantStyle) -> None:
    """The median over the seeds of `values`, at that of `at`, both (seeds, points), and a band from lowest to highest.

    Points at which no seed is finite are left out.
    """
    kept = np.isfinite(values).any(axis=0)
    if not kept.any():
        return
    at, values = np.nanmedian(at[:, kept], axis=0), values[:, kept]
    axes.plot(
        at, np.nanmedian(values, axis=0), color=style.colour, linestyle=style.line, marker=style.marker,
        markevery=-(-len(at) // MARKS),
    )  # fmt: skip
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(at, low, high, color=style.colour, alpha=0.18, linewidth=0)


def legend(figure: Figure, record: TrainedRecord[Any, Any], task: str, note: str, line: bool = True) -> None:
    """A legend of the kinds of network of a task."""
    labels = {group.first.look: group.first.plain_label for group in record.of(task)}
    place_legend(figure, [key(record.styles[look], label, line) for look, label in labels.items()], note)
