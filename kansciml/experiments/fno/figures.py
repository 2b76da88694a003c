"""Pictures of trained neural operators. Each function draws one figure within `publication_style` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.fno.record import RESIDUALS, FnoRecord
from kansciml.experiments.minibatch import figures as minibatch
from kansciml.experiments.minibatch.figures import TITLE, Column, Curve
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

ROWS = (
    Curve("loss", "training error\n(relative L2)", span=4, ticks=True),
    Curve("test_error", "test error\n(relative L2)", span=4, ticks=True),
)


def curves(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs and against seconds of training."""
    groups = fno.of(task)
    return minibatch.curves(fno, task, ROWS, [Column("", groups), Column("", groups, over_time=True)])


def curves_by_residual(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs: a column without, and one with residual connections."""
    found = {title: fno.of_residual(task, residual) for residual, title in RESIDUALS.items()}
    columns = [Column(title, groups) for title, groups in found.items() if groups]
    return minibatch.curves(fno, task, ROWS, columns)


def prediction_maps(fno: FnoRecord, task: str, sample: int) -> Figure | None:
    """Coefficients, solution, each kind of network's prediction (its first seed), and its error, of one test sample.

    Solutions share one colour scale, errors another. None where nothing was predicted.
    """
    firsts = [next((row for row in group.rows if not row.diverged), None) for group in fno.of(task)]
    rows = [row for row in firsts if row is not None]
    data, name = fno.record.arrays, fno.of(task)[0].first.data
    if not rows or sample >= len(data[f"{name}.u"]):
        return None
    a, u = data[f"{name}.a"][sample], data[f"{name}.u"][sample]
    found = [data[f"{row.id}.prediction"][sample] for row in rows]
    errors = [np.abs(one - u) for one in found]
    largest = max(float(error.max()) for error in errors)
    columns = 1 + len(rows)
    side = 6.0 / columns
    figure = new_figure(min(0.75 + 2 * min(side, 1.9), 6.0))
    panels = figure.subplots(2, columns, squeeze=False)
    top = _map(panels[0, 0], u, "solution", u.min(), u.max())
    own = _map(panels[1, 0], a, "coefficient", a.min(), a.max(), "Greys")
    for place, (row, one, error) in enumerate(zip(rows, found, errors), start=1):
        _map(panels[0, place], one, row.label.replace(", residual", ",\nresidual"), u.min(), u.max())
        relative = np.linalg.norm(one - u) / np.linalg.norm(u)
        bottom = _map(panels[1, place], error, f"|error|, relative {relative:.2g}", 0.0, largest, "magma")
    for mappable, axes in ((top, panels[0]), (bottom, panels[1])):
        bar = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.01, aspect=15)
        bar.outline.set_linewidth(0.4)
        bar.ax.ticklabel_format(scilimits=(-2, 3))
        bar.ax.tick_params(labelsize=6)
        bar.ax.yaxis.get_offset_text().set_fontsize(6)
    own.axes.set_xlabel(f"{a.min():g} white, {a.max():g} black", fontsize=6.5, color="#555555")
    figure.suptitle(f"{fno.title(task)}, test sample {sample + 1}", fontsize=TITLE)
    return figure


def _map(axes: Axes, values: np.ndarray, title: str, low: float, high: float, colours: str = "viridis") -> AxesImage:
    """Values (s, s) at the nodes, x to the right and y upwards."""
    shown = axes.imshow(values.T, origin="lower", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=7)
    return shown
