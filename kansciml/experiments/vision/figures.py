"""Pictures of trained image classifiers. Each function draws one figure within `publication_style` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.reporting.legends import key, legend_below, log_ticks
from kansciml.reporting.seed_curves import band_over_seeds, median_over_seeds
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(vision: VisionRecord, task: str) -> Figure:
    """Training loss and test accuracy, against epochs and against seconds of training."""
    groups, styles = vision.of(task), vision.styles
    figure = new_figure(4.3)
    panels = figure.subplots(2, 2, sharex="col")
    for (over_epochs, over_time), (name, scale) in zip(panels, (("loss", 1.0), ("test_top1", 100.0))):
        for group in groups.values():
            style = styles[group.name]
            epochs, seconds = median_over_seeds(group.curves("epoch")), median_over_seeds(group.curves("train_s"))
            values = scale * group.curves(name)
            band_over_seeds(over_epochs, epochs, values, style)
            band_over_seeds(over_time, seconds, values, style)
        over_time.sharey(over_epochs)
        over_time.tick_params(labelleft=False)
    for axes in panels[0]:
        _log_loss(axes, groups)
    for axes in panels.flat:
        axes.margins(x=0.02)
    panels[0, 0].set_ylabel("training loss")
    panels[1, 0].set_ylabel("test accuracy (%)")
    panels[1, 0].set_xlabel("epoch")
    panels[1, 0].xaxis.get_major_locator().set_params(nbins=6, integer=True)
    panels[1, 1].set_xlabel("training time (s)")
    if _spans_decades(groups):
        panels[1, 1].set_xscale("log")
    figure.suptitle(vision.title(task), fontsize=8.5)
    several = any(len(group.rows) > 1 for group in groups.values())
    handles = [key(styles[group.name], group.label) for group in groups.values()]
    legend_below(figure, handles, "line: median over seeds, band: lowest to highest" if several else "")
    return figure


def accuracy_against_cost(vision: VisionRecord, task: str) -> Figure | None:
    """Test accuracy of every seed against parameters, and against seconds of training in all; None if all diverged."""
    groups, styles = vision.of(task), vision.styles
    if all(group.n_diverged == len(group.rows) for group in groups.values()):
        return None
    figure = new_figure(2.6)
    panels = figure.subplots(1, 2, sharey=True)
    for group in groups.values():
        style = styles[group.name]
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
    figure.suptitle(vision.title(task), fontsize=8.5)
    legend_below(
        figure, [key(styles[name], group.label, line=False) for name, group in groups.items()], "mark: one seed"
    )
    return figure


def _log_loss(axes: Axes, groups: dict[str, VisionGroup]) -> None:
    """A logarithmic axis where the losses span more than a decade."""
    losses = np.concatenate([group.curves("loss").ravel() for group in groups.values()])
    losses = losses[np.isfinite(losses) & (losses > 0)]
    if len(losses) and losses.max() > 10 * losses.min():
        axes.set_yscale("log")


def _spans_decades(groups: dict[str, VisionGroup]) -> bool:
    """Whether the slowest training takes more than eight times as long as the fastest."""
    ends = [np.nanmax(group.curves("train_s")) for group in groups.values() if group.curves("train_s").size]
    return bool(ends) and max(ends) > 8 * min(ends)


def _short(value: float) -> str:
    """``200k`` or ``5M`` for a number."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
