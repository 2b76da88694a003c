"""Pictures of trained neural operators. Each function draws one figure within `publication_style` and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.experiments.fno.record import RESIDUALS, FnoRecord, OperatorGroup
from kansciml.reporting.legends import key, legend_below, log_ticks
from kansciml.reporting.seed_curves import band_over_seeds, median_over_seeds
from kansciml.reporting.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"loss": "training error", "test_error": "test error"}


def curves(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs and against seconds of training."""
    return _curves(fno, task, [("", fno.of(task), "epoch"), ("", fno.of(task), "train_s")])


def curves_by_residual(fno: FnoRecord, task: str) -> Figure:
    """Training and test error against epochs: a column without, and one with residual connections."""
    columns = [(RESIDUALS[one], fno.of(task, one), "epoch") for one in fno.residuals(task)]
    return _curves(fno, task, columns)


def _curves(fno: FnoRecord, task: str, columns: Sequence[tuple[str, list[OperatorGroup], str]]) -> Figure:
    figure = new_figure(4.3)
    panels = figure.subplots(2, len(columns), sharex="col", sharey="row", squeeze=False)
    styles = fno.styles
    for place, (title, groups, over) in enumerate(columns):
        for axes, name in zip(panels[:, place], LABELS):
            for group in groups:
                band_over_seeds(
                    axes, median_over_seeds(group.curves(over)), group.curves(name), styles[group.first.variant]
                )
            axes.margins(x=0.02)
        panels[0, place].set_title(title)
        panels[1, place].set_xlabel("epoch" if over == "epoch" else "training time (s)")
        if over == "epoch":
            panels[1, place].xaxis.get_major_locator().set_params(nbins=6, integer=True)
    for axes, name in zip(panels[:, 0], LABELS):
        axes.set_ylabel(f"{LABELS[name]}\n(relative L2)")
        values = np.concatenate([group.curves(name).ravel() for group in fno.of(task)])
        values = values[np.isfinite(values) & (values > 0)]
        if len(values) and values.max() > 4 * values.min():
            axes.set_yscale("log")
            log_ticks(axes.yaxis, (values.min(), values.max()))
    figure.suptitle(fno.title(task), fontsize=8.5)
    several = any(len(group.rows) > 1 for group in fno.of(task))
    drawn = {group.first.variant: key(styles[group.first.variant], _plain(group.label)) for group in fno.of(task)[::-1]}
    handles = [drawn[variant] for variant in styles if variant in drawn]
    legend_below(figure, handles, "line: median over seeds, band: lowest to highest" if several else "")
    return figure


def prediction_maps(fno: FnoRecord, task: str, sample: int) -> Figure | None:
    """Coefficients, solution, each kind of network's prediction (its first seed), and its error, of one test sample.

    Solutions share one colour scale, errors another. None where nothing was predicted.
    """
    groups = [group for group in fno.of(task) if _predicted(group) is not None]
    data = fno.record.arrays
    name = fno.of(task)[0].first.data
    if not groups or sample >= len(data[f"{name}.u"]):
        return None
    a, u = data[f"{name}.a"][sample], data[f"{name}.u"][sample]
    found = [_predicted(group)[sample] for group in groups]
    errors = [np.abs(one - u) for one in found]
    largest = max(float(error.max()) for error in errors)
    columns = 1 + len(groups)
    side = 6.0 / columns
    figure = new_figure(min(0.75 + 2 * min(side, 1.9), 6.0))
    panels = figure.subplots(2, columns, squeeze=False)
    top = _map(panels[0, 0], u, "solution", u.min(), u.max())
    own = _map(panels[1, 0], a, "coefficient", a.min(), a.max(), "Greys")
    for place, (group, one, error) in enumerate(zip(groups, found, errors), start=1):
        _map(panels[0, place], one, group.label.replace(", residual", ",\nresidual"), u.min(), u.max())
        relative = np.linalg.norm(one - u) / np.linalg.norm(u)
        bottom = _map(panels[1, place], error, f"|error|, relative {relative:.2g}", 0.0, largest, "magma")
    for mappable, axes in ((top, panels[0]), (bottom, panels[1])):
        bar = figure.colorbar(mappable, ax=axes, fraction=0.05, pad=0.01, aspect=15)
        bar.outline.set_linewidth(0.4)
        bar.formatter.set_powerlimits((-2, 3))
        bar.ax.tick_params(labelsize=6)
        bar.ax.yaxis.get_offset_text().set_fontsize(6)
    own.axes.set_xlabel(f"{a.min():g} white, {a.max():g} black", fontsize=6.5, color="#555555")
    figure.suptitle(f"{fno.title(task)}, test sample {sample + 1}", fontsize=8.5)
    return figure


def _predicted(group: OperatorGroup) -> np.ndarray | None:
    """Predictions (k, s, s) of the first seed that did not diverge."""
    for row in group.rows:
        if not row.diverged:
            return group.arrays[f"{row.id}.prediction"]
    return None


def _map(axes: Axes, field: np.ndarray, title: str, low: float, high: float, colours: str = "viridis") -> Any:
    """A field, x to the right and y upwards."""
    shown = axes.imshow(field.T, origin="lower", vmin=low, vmax=high, cmap=colours, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=7)
    return shown


def _plain(label: str) -> str:
    return label.removesuffix(", residual")
