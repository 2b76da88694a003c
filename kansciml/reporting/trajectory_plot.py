"""One picture of predicted states over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import FAINT, SERIES
from kansciml.reporting.style import WIDTH, as_is, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def draw_trajectories(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    labels: Sequence[str],
    time_label: str = "t",
    trained_until: float | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """States (T, n) at times (T,) of one trajectory or several, a panel for each component; to be called within
    `publication_style`.

    Args:
        trained_until: end of the training data, marked where it lies within the times.
        names: of the trajectories, for a legend if they are a few; more are drawn in one colour.
    """
    columns = min(len(labels), COLUMNS)
    rows = -(-len(labels) // columns)
    few = len(found) <= len(SERIES)
    figure = new_figure(1.9 * rows + 0.2, width=min(WIDTH, 3.2 * columns))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for index, (axes, label) in enumerate(zip(panels, labels)):
        for k, (t, states) in enumerate(found):
            axes.plot(
                t, states[:, index], color=SERIES[k if few else 0], marker="o" if len(t) == 1 else None,
                label=as_is(names[k]) if names else None, linewidth=1.1 if few else 0.6,
            )  # fmt: skip
            if trained_until is not None and t.min() < trained_until < t.max():
                axes.axvline(trained_until, color=FAINT, linewidth=0.7, linestyle=":")
        axes.set_ylabel(as_is(label))
        axes.margins(x=0.02)
        if index >= len(labels) - columns:
            axes.set_xlabel(as_is(time_label))
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    if names and few:
        place_legend(figure, panels[0].get_lines())
    return figure
