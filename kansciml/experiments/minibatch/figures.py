"""Pictures that records of trainings on minibatches have in common; drawn within `publication_style`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.experiments.minibatch.record import TrainedRecord
from kansciml.reporting.groups import Group
from kansciml.reporting.legends import key, legend_below, log_ticks
from kansciml.reporting.style import VariantStyle, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = 8.5
"""Size of the text above a figure."""
MOST_MARKED = 12
"""Points of a curve up to which each has its mark."""


@dataclass(frozen=True)
class Curve:
    """A row of panels.

    Args:
        name: of the curve in the record. label: of the axis. scale: what values are multiplied by.
        span: largest over smallest value from which on the axis is logarithmic; None: never.
        ticks: plain numbers on a logarithmic axis.
    """

    name: str
    label: str
    scale: float = 1.0
    span: float | None = None
    ticks: bool = False


@dataclass(frozen=True)
class Column:
    """A column of panels: its title, its groups, and whether they are drawn against seconds of training or epochs."""

    title: str
    groups: Sequence[Group[Any]]
    over_time: bool = False


def curves(record: TrainedRecord[Any, Any], task: str, rows: Sequence[Curve], columns: Sequence[Column]) -> Figure:
    """A panel for every row and column: medians over seeds, and bands from the lowest to the highest."""
    figure = new_figure(4.3)
    panels = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
    for place, column in enumerate(columns):
        bottom = panels[-1, place]
        for axes, row in zip(panels[:, place], rows):
            for group in column.groups:
                at = group.curves("train_s" if column.over_time else "epoch")
                _band(axes, at, row.scale * group.curves(row.name), record.styles[group.first.look])
            axes.margins(x=0.02)
        panels[0, place].set_title(column.title)
        bottom.set_xlabel("training time (s)" if column.over_time else "epoch")
        if not column.over_time:
            bottom.xaxis.get_major_locator().set_params(nbins=6, integer=True)
    for axes, row in zip(panels[:, 0], rows):
        axes.set_ylabel(row.label)
        values = np.concatenate([group.curves(row.name).ravel() for group in record.of(task)])
        values = values[np.isfinite(values) & (values > 0)]
        if row.span is not None and len(values) and values.max() > row.span * values.min():
            axes.set_yscale("log")
            if row.ticks:
                log_ticks(axes.yaxis, (values.min(), values.max()))
    figure.suptitle(record.title(task), fontsize=TITLE)
    several = any(len(group.rows) > 1 for group in record.of(task))
    legend(figure, record, task, "line: median over seeds, band: lowest to highest" if several else "")
    return figure


def _band(axes: Axes, at: np.ndarray, values: np.ndarray, style: VariantStyle) -> None:
    """The median over the seeds of `values`, at that of `at`, both (seeds, points), and a band from lowest to highest.

    Points at which no seed is finite are left out.
    """
    kept = np.isfinite(values).any(axis=0)
    if not kept.any():
        return
    at, values = np.nanmedian(at[:, kept], axis=0), values[:, kept]
    marker = style.marker if len(at) <= MOST_MARKED else ""
    axes.plot(at, np.nanmedian(values, axis=0), color=style.colour, linestyle=style.line, marker=marker)
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(at, low, high, color=style.colour, alpha=0.18, linewidth=0)


def legend(figure: Figure, record: TrainedRecord[Any, Any], task: str, note: str, line: bool = True) -> None:
    """A legend of the kinds of network of a task."""
    labels = {group.first.look: group.first.plain_label for group in record.of(task)}
    legend_below(figure, [key(record.styles[look], label, line) for look, label in labels.items()], note)
