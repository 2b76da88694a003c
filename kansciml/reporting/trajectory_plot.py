"""One picture of predicted states over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kansciml.reporting.style import FAINT, WIDTH, as_is, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3


def draw_trajectory(
    t: np.ndarray, states: np.ndarray, labels: Sequence[str], time_label: str = "t", trained_until: float | None = None
) -> Figure:
    """States (T, n) at times (T,), a panel for each component; to be called within `publication_style`.

    Args:
        trained_until: end of the training data, marked where it lies within the times.
    """
    columns = min(len(labels), COLUMNS)
    rows = -(-len(labels) // columns)
    figure = new_figure(1.9 * rows + 0.2, width=min(WIDTH, 3.2 * columns))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, label, column in zip(panels, labels, states.T):
        axes.plot(t, column, color="#0072B2", marker="o" if len(t) == 1 else None)
        if trained_until is not None and t.min() < trained_until < t.max():
            axes.axvline(trained_until, color=FAINT, linewidth=0.7, linestyle=":")
        axes.set_ylabel(as_is(label))
        axes.margins(x=0.02)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    figure.supxlabel(as_is(time_label), fontsize=8)
    return figure
