"""Pictures of trained image classifiers. Each function draws one figure within `publication_style` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.experiments.vision.record import VisionRecord
from kansciml.reporting.groups import Group
from kansciml.reporting.seed_curves import band_over_seeds, median_over_seeds
from kansciml.reporting.style import legend_below, new_figure

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
    _legend(figure, groups, styles, "line: median over seeds, band: lowest to highest" if several else "")
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
        rows = [row for row in group.rows if row["status"] != "diverged"]
        top1 = [100 * row["top1"] for row in rows]
        seconds = [group.arrays[f"{row['id']}.train_s"][-1] for row in rows]
        for axes, costs in zip(panels, ([row["parameters"] for row in rows], seconds)):
            axes.plot(costs, top1, style.marker, color=style.colour, markersize=4, alpha=0.8, markeredgewidth=0)
    for axes, name in zip(panels, ("parameters", "training time (s)")):
        axes.set_xscale("log")
        _few_ticks(axes)
        axes.margins(x=0.15, y=0.12)
        axes.set_xlabel(name)
    panels[0].set_ylabel("test accuracy (%)")
    figure.suptitle(vision.title(task), fontsize=8.5)
    _legend(figure, groups, styles, "mark: one seed", marks=True)
    return figure


def _log_loss(axes: Axes, groups: dict[str, Group]) -> None:
    """A logarithmic axis where the losses span more than a decade."""
    losses = np.concatenate([group.curves("loss").ravel() for group in groups.values()])
    losses = losses[np.isfinite(losses) & (losses > 0)]
    if len(losses) and losses.max() > 10 * losses.min():
        axes.set_yscale("log")


def _spans_decades(groups: dict[str, Group]) -> bool:
    """Whether the slowest training takes more than eight times as long as the fastest."""
    ends = [np.nanmax(group.curves("train_s")) for group in groups.values() if group.curves("train_s").size]
    return bool(ends) and max(ends) > 8 * min(ends)


def _few_ticks(axes: Axes) -> None:
    """Plain numbers on a logarithmic axis that spans about a decade, at places that do not run into one another."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """``200k`` or ``5M`` for a number."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _legend(figure: Figure, groups: dict[str, Group], styles: Any, note: str, marks: bool = False) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for group in groups.values():
        style = styles[group.name]
        look = {"linestyle": "", "marker": style.marker} if marks else {"linestyle": style.line, "marker": style.marker}
        handles.append(Line2D([], [], color=style.colour, label=group.label, **look))
    legend_below(figure, handles, note)
