"""Pictures of trained image classifiers. Each function draws one figure within `publication_style` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.minibatch import figures as minibatch
from kansciml.experiments.minibatch.figures import TITLE, Column, Curve, legend
from kansciml.experiments.vision.record import ImagesRecord, V
from kansciml.reporting.legends import log_ticks
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = (Curve("loss", "training loss", span=10), Curve("test_top1", "test accuracy (%)", scale=100))


def curves(vision: ImagesRecord[V], task: str) -> Figure:
    """Training loss and test accuracy, against epochs and against seconds of training."""
    groups = vision.of(task)
    figure = minibatch.curves(vision, task, ROWS, [Column("", groups), Column("", groups, over_time=True)])
    ends = [np.nanmax(seconds) for seconds in (group.curves("train_s") for group in groups) if seconds.size]
    if ends and max(ends) > 8 * min(ends):
        figure.axes[-1].set_xscale("log")
    return figure


def accuracy_against_cost(vision: ImagesRecord[V], task: str) -> Figure | None:
    """Test accuracy of every seed against parameters, and against seconds of training in all; None if all diverged."""
    groups = vision.of(task)
    if all(group.n_diverged == len(group.rows) for group in groups):
        return None
    figure = new_figure(2.6)
    panels = figure.subplots(1, 2, sharey=True)
    for group in groups:
        style = vision.styles[group.first.look]
        top1, parameters = group.values(lambda row: row.percent), group.values(lambda row: row.parameters)
        seconds = [group.arrays[f"{row.id}.train_s"][-1] for row in group.rows if not row.diverged]
        for axes, costs in zip(panels, (parameters, seconds)):
            axes.plot(costs, top1, style.marker, color=style.colour, markersize=4, alpha=0.8, markeredgewidth=0)
    for axes, name in zip(panels, ("parameters", "training time (s)")):
        axes.set_xscale("log")
        log_ticks(axes.xaxis, axes.get_xlim(), _short)
        axes.margins(x=0.15, y=0.12)
        axes.set_xlabel(name)
    panels[0].set_ylabel("test accuracy (%)")
    figure.suptitle(vision.title(task), fontsize=TITLE)
    legend(figure, vision, task, "mark: one seed", line=False)
    return figure


def _short(value: float) -> str:
    """``200k`` or ``5M`` for a number."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
