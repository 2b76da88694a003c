"""Pictures of the losses of a neural-ODE experiment. Each function draws one figure and returns it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.run_rows import OdeGroup, Run
from kansciml.reporting.legends import hollow, key, place_legend
from kansciml.reporting.palette import FAINT, SHADE, TRUTH, VariantStyle, variant_styles
from kansciml.reporting.style import WIDTH, as_is, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Styles = Mapping[str, VariantStyle]
CURVE_POINTS = 400
"""Points drawn per loss curve: more than a printed figure can show."""
TRUTH_WIDTH = 2.2
"""Wider than the models' lines, so that it shows on both sides of a model that matches it."""


def loss_curves(ode: OdeRecord) -> Figure:
    """Training loss against iteration, one panel per system: median over seeds, and a band from lowest to highest."""
    styles = styles_of(ode.groups)
    figure, panels = panels_of(2.0, len(ode.systems))
    for axes, system in zip(panels, ode.systems):
        for group in system.groups:
            style = styles[group.name]
            runs = [run for run in group.rows if len(run.array("loss"))]
            if not runs:
                continue
            grid, losses = on_one_grid(runs)
            axes.plot(grid, np.median(losses, axis=0), color=style.colour, linestyle=style.line)
            if len(runs) > 1:
                high = np.max(losses, axis=0, where=np.isfinite(losses), initial=0.0)
                axes.fill_between(grid, losses.min(axis=0), high, color=style.colour, alpha=0.18, linewidth=0)
            for run in runs:
                if run.diverged:
                    axes.plot(run.array("iteration")[-1], run.array("loss")[-1], "x", color=style.colour, markersize=4)
        switches = [at for group in system.groups for run in group.rows if (at := _lbfgs_from(run)) is not None]
        if switches:
            axes.axvline(float(np.median(switches)), color=FAINT, linewidth=0.7, linestyle=":")
            axes.annotate(
                "L-BFGS", (float(np.median(switches)), 1), xycoords=("data", "axes fraction"), xytext=(2, -1),
                textcoords="offset points", va="top", fontsize=6, color=FAINT,
            )  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(as_is(system.title))
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.set_xlabel("iteration")
    figure.supylabel("training loss", fontsize=8)
    notes = ["line: median over seeds, band: lowest to highest"] * any(len(group.rows) > 1 for group in ode.groups)
    notes += ["cross: a seed diverged"] * any(group.n_diverged for group in ode.groups)
    legend(figure, styles, [], "; ".join(notes))
    return figure


SPANS = {"train": "the training span", "unseen": "unseen initial states"}
"""What an error is of: the start of its name, and in words."""


def final_losses(ode: OdeRecord, span: str = "train") -> Figure | None:
    """Relative error after training, one mark per seed: systems side by side, bar at the median, diverged on top.

    The mean squared error where no system has a relative one, as its data are constant in time. None of one
    seed of one or two models, which a table tells better.
    `span`: a key of `SPANS`.
    """
    if sum(len(group.rows) for group in ode.groups) == len(ode.groups) < 3:
        return None
    defined = any(not math.isnan(group.middle(f"{span}_relative_mse")) for group in ode.groups)
    metric = f"{span}_relative_mse" if defined else f"{span}_mse"
    styles = styles_of(ode.groups)
    figure = new_figure(2.3, width=max(3.2, min(7.0, 1.6 + 1.3 * len(ode.systems))))
    axes = figure.subplots()
    for position, system in enumerate(ode.systems):
        step = 0.8 / len(system.groups)
        for rank, group in enumerate(system.groups):
            x = position + (rank - (len(system.groups) - 1) / 2) * step
            _strip(axes, group, styles[group.name], x, step, metric)
        if position:
            axes.axvline(position - 0.5, color=SHADE, linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.12)  # room for the row of diverged seeds
    axes.set_xlim(-0.5, len(ode.systems) - 0.5)
    axes.set_xticks(range(len(ode.systems)), [as_is(system.title) for system in ode.systems])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"{'relative ' * defined}MSE on {SPANS[span]}")
    notes = ["mark: one seed, bar: median"] + ["on top: seeds that diverged"] * any(g.n_diverged for g in ode.groups)
    legend(figure, styles, [], "; ".join(notes), marks=True)
    return figure


def styles_of(groups: Iterable[OdeGroup]) -> Styles:
    """By the name of the group."""
    ordered = sorted(groups, key=lambda group: group.place)
    plain = variant_styles(group.variant for group in ordered)
    return {group.name: group.styled(plain[group.variant]) for group in ordered}


def on_one_grid(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (M,) and losses (runs, M), where the lowest and the median are finite.

    After its end, a finished run keeps its last loss, and one that diverged counts as infinite.
    """
    union = np.unique(np.concatenate([run.array("iteration") for run in runs]))
    if len(union) > CURVE_POINTS:
        union = union[np.unique(np.linspace(0, len(union) - 1, CURVE_POINTS).round().astype(int))]
    rows = []
    for run in runs:
        at, loss = run.array("iteration"), np.asarray(run.array("loss"), dtype=np.float64)
        values = loss[np.clip(np.searchsorted(at, union, side="right") - 1, 0, None)]
        values = np.where(values > 0, values, np.inf)  # NaN; zero has no place on a logarithmic axis
        rows.append(np.where(union > at[-1], np.inf, values) if run.diverged else values)
    losses = np.array(rows)
    kept = np.isfinite(np.median(losses, axis=0))
    return union[kept], losses[:, kept]


def _lbfgs_from(run: Run) -> float | None:
    """The iteration at which L-BFGS takes over from Adam, if it does."""
    at, phase = run.array("iteration"), run.array("phase")
    return at[np.argmax(phase == 1)] if np.any(phase == 1) and phase[0] != 1 else None


def _strip(axes: Axes, group: OdeGroup, style: VariantStyle, x: float, step: float, metric: str) -> None:
    losses = np.array(group.losses(metric))
    finite = np.isfinite(losses) & (losses > 0)
    offsets = np.linspace(-0.25, 0.25, len(losses)) * step if len(losses) > 1 else np.zeros(1)
    axes.plot(
        x + offsets[finite], losses[finite], linestyle="", marker=style.marker, color=style.colour, alpha=0.75,
        markersize=3, markeredgewidth=0,
    )  # fmt: skip
    median = group.middle(metric)
    if np.isfinite(median) and median > 0 and len(losses) > 1:
        axes.plot([x - 0.36 * step, x + 0.36 * step], [median, median], color=style.colour, linewidth=1.6)
    if group.n_diverged:
        axes.annotate(
            f"{group.n_diverged} of {len(losses)}", (x, 1), xycoords=("data", "axes fraction"), ha="center", va="top",
            fontsize=6, color=style.colour,
        )  # fmt: skip


def panels_of(height: float, count: int) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of up to three, `height` inches each."""
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    figure = new_figure(0.1 + height * rows, width=WIDTH if columns > 1 else 3.6)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def legend(figure: Figure, styles: Styles, extras: list[str], note: str, marks: bool = False) -> None:
    """A legend of `extras` (keys of `made`) and variants."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    made = {
        "truth": Line2D([], [], color=TRUTH, linewidth=TRUTH_WIDTH, label="truth"),
        "data": hollow("data", color=TRUTH, markersize=3.8, markeredgewidth=0.5),
        "of weight 0": Line2D([], [], color=FAINT, marker="x", linestyle="", markersize=3, label="not used (weight 0)"),
        "trained on": Line2D([], [], color=TRUTH, linewidth=1.1, label="trajectories trained on"),
        "training span": Patch(color=SHADE, linewidth=0, label="training span"),
    }
    handles = [made[name] for name in extras] + [key(style, line=not marks, mark=marks) for style in styles.values()]
    place_legend(figure, handles, note)
