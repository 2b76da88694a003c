"""Pictures of what neural ODEs learned: trajectories, phase portraits, orbits, errors over time, vector fields.

Each function draws one figure within `publication_style` and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kansciml.experiments.ode.figures import TRUTH_WIDTH, Styles, legend, panels_of, styles_of
from kansciml.experiments.ode.record import ROLES, OdeRecord, OdeSeries, OdeSystem
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.reporting.palette import FAINT, SHADE, TRUTH
from kansciml.reporting.style import as_is, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COMPONENTS = 6
SIDE_BY_SIDE = 4
"""Trajectories that are given a column of panels each; more are drawn over one another, a column per model."""
MEDIAN_SEED = "models: the seed with the median training error"
FAR_OFF = 1e3
"""An error of a field below this part of the typical slope is drawn no lighter."""


def trajectories(ode: OdeRecord, system: OdeSystem) -> Figure:
    """Components against time: truth, data, and the seed with the median error of each variant.

    A column of panels per trajectory; of many trajectories, a column per variant.
    """
    styles = styles_of(ode.groups)
    shown = shown_components(system)
    fan = len(system.series) > SIDE_BY_SIDE and bool(_representatives(system))
    columns = [(as_is(styles[group.name].name), [group]) for group, _ in _representatives(system)] if fan else []
    columns = columns or [(_caption(one), list(system.groups)) for one in system.series]
    figure = new_figure(0.3 + 1.15 * len(shown))
    panels = figure.subplots(len(shown), len(columns), sharex="col", sharey="row", squeeze=False)
    for place, (caption, groups) in enumerate(columns):
        parts = list(enumerate(system.series))[slice(None) if fan else slice(place, place + 1)]
        begin, end = min(one.reference[0][0] for _, one in parts), max(one.end for _, one in parts)
        for axes, index in zip(panels[:, place], shown):
            for k, one in parts:
                if not fan and one.role == "train" and one.end > one.train_end:
                    axes.axvspan(begin, one.train_end, color=SHADE, linewidth=0, zorder=0)
                _draw(axes, one, k, groups, styles, None, index, thin=fan)
        panels[0, place].set_title(caption if len(columns) > 1 else as_is(system.title))
        if system.log_time:
            panels[0, place].set_xscale("log")
            begin = min(times[times > 0][0] for times in (one.reference[0] for _, one in parts))
        panels[0, place].set_xlim(begin, end)
        panels[-1, place].set_xlabel(_time(system) + ("" if system.first.truth is None else " (dimensionless)"))
    for axes, index in zip(panels[:, 0], shown):
        axes.set_ylim(*_limits(np.concatenate([one.reference[1][:, index] for one in system.series])))
        axes.set_ylabel(as_is(system.labels[index]))
    notes = [f"{len(shown)} of {len(system.labels)} components"] * (len(shown) < len(system.labels))
    notes += [f"all {len(system.series)} trajectories"] * fan + [MEDIAN_SEED]
    extras = ["truth"] * (system.first.truth is not None) + ["data"] * (not fan or system.first.truth is None)
    extras += ["of weight 0"] * any(one.unused is not None for one in system.series)
    extras += ["training span"] * (not fan and any(one.end > one.train_end for one in system.series))
    legend(figure, {group.name: styles[group.name] for group in system.groups}, extras, "; ".join(notes))
    return figure


def phase_portraits(ode: OdeRecord) -> Figure | None:
    """Two components against each other, one panel per system that has two; None if none has."""
    systems = [system for system in ode.systems if system.phase_plane]
    if not systems:
        return None
    styles = styles_of(ode.groups)
    figure, panels = panels_of(2.1, len(systems))
    for axes, system in zip(panels, systems):
        first, second = system.phase_plane or (0, 1)
        many = len(system.series) > 1
        for k, one in enumerate(system.series):
            _draw(axes, one, k, system.groups, styles, first, second, thin=many)
        states = np.concatenate([one.reference[1] for one in system.series])
        for limits, name, at in ((axes.set_xlim, axes.set_xlabel, first), (axes.set_ylim, axes.set_ylabel, second)):
            limits(*_limits(states[:, at]))
            name(as_is(system.labels[at]))
        axes.set_title(as_is(system.title))
    known = any(system.first.truth is not None for system in systems)
    shown = any(len(system.series) == 1 or system.first.truth is None for system in systems)
    legend(figure, styles, ["truth"] * known + ["data"] * shown, MEDIAN_SEED)
    return figure


def errors(ode: OdeRecord, system: OdeSystem) -> Figure | None:
    """Error over time of each variant and trajectory, root mean square over components; None where none is solved."""
    styles = styles_of(ode.groups)
    found = _representatives(system)
    if not found:
        return None
    scale = np.array(system.loss_scale) if len(system.loss_scale) == len(system.labels) else 1.0
    figure = new_figure(2.1)
    axes = figure.subplots()
    for k, one in enumerate(system.series):
        times, states = one.reference
        for group, _ in found:
            path = _path(group, k)
            at = np.searchsorted(one.t[: len(path)], times)
            inside = np.flatnonzero(at < len(path))
            squares = ((path[at[inside]] - states[inside]) / scale) ** 2
            known = np.isfinite(squares).any(axis=1)
            inside, error = inside[known], np.sqrt(np.nanmean(squares[known], axis=1))
            style, faint = styles[group.name], 0.9 if len(system.series) == 1 else 0.45
            line = (0, (1, 1)) if one.role != "train" else style.line
            marker = "" if len(times) > 50 else style.marker
            error[error < 1e-15] = np.nan  # the initial state, which is given
            axes.plot(
                times[inside], error, color=style.colour, linestyle=line, marker=marker, alpha=faint, linewidth=0.9
            )
    ends = {one.train_end for one in system.series if one.end > one.train_end}
    for end in ends if len(ends) == 1 else ():
        axes.axvline(end, color=FAINT, linewidth=0.7, linestyle=":")
    axes.set_yscale("log")
    if system.log_time:
        axes.set_xscale("log")
    axes.margins(x=0.02)
    axes.set_xlabel(_time(system))
    axes.set_ylabel("error (loss scale)")
    axes.set_title(as_is(system.title))
    notes = ["of the data" if system.first.truth is None else "of the truth"]
    notes += ["dotted: not trained on"] * any(one.role != "train" for one in system.series)
    notes += ["vertical line: end of training"] * (len(ends) == 1) + [MEDIAN_SEED]
    legend(figure, {group.name: styles[group.name] for group, _ in found}, [], "; ".join(notes))
    return figure


def fields(ode: OdeRecord, system: OdeSystem) -> Figure | None:
    """The true field and that of each variant over the plane of two components; None where they are not in the record.

    Streamlines, over the error of the slopes where the truth is known; both within the range of the data.
    """
    learned = [(group, run.array("slopes")) for group in system.groups if (run := group.representative) is not None]
    learned = [(group, slopes) for group, slopes in learned if len(slopes)]
    if system.plane is None or not learned:
        return None
    styles, plane, truth = styles_of(ode.groups), system.plane, system.slopes
    shown: list[tuple[str, str, np.ndarray]] = [("truth", TRUTH, truth)] if truth is not None else []
    shown += [(as_is(styles[group.name].name), styles[group.name].colour, slopes) for group, slopes in learned]
    figure, panels = panels_of(2.1, len(shown))
    typical = np.sqrt(np.mean(truth**2, axis=(0, 1))) if truth is not None else np.ones(2)
    image = None
    for axes, (title, colour, slopes) in zip(panels, shown):
        x, y = plane[0, :, 0], plane[:, 0, 1]
        if truth is not None and slopes is not truth:
            error = np.sqrt(np.mean(((slopes - truth) / typical) ** 2, axis=-1))
            level = np.log10(np.clip(error, 1 / FAR_OFF, 10.0))
            image = axes.pcolormesh(
                x, y, level, cmap="Greys", vmin=-np.log10(FAR_OFF), vmax=1.0, shading="gouraud", rasterized=True
            )
        axes.streamplot(x, y, slopes[..., 0], slopes[..., 1], color=colour, density=0.7, linewidth=0.7, arrowsize=0.6)
        for one in system.series:
            if one.role == "train":
                trained = one.reference[0] <= one.train_end
                axes.plot(*one.reference[1][trained].T, color="white", linewidth=2.2)
                axes.plot(*one.reference[1][trained].T, color=TRUTH, linewidth=1.1)
        axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=as_is(system.labels[0]), title=title)
    panels[0].set_ylabel(as_is(system.labels[1]))
    if image is not None:
        bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
        ticks = range(-round(np.log10(FAR_OFF)), 2)
        bar.set_ticks(ticks, labels=[f"$10^{{{tick}}}$" for tick in ticks])
        bar.set_label("error / typical slope")
    legend(figure, {}, ["trained on"], f"{as_is(system.title)}; {MEDIAN_SEED}")
    return figure


def orbits(ode: OdeRecord, system: OdeSystem) -> Figure:
    """Paths of all bodies in the plane, one panel per variant: up to the end of training, and pale beyond it."""
    styles = styles_of(ode.groups)
    times, states = system.first.reference
    trained = times <= system.train_end
    shown = [(styles[group.name].name, styles[group.name].colour, path) for group, path in _representatives(system)]
    shown = shown or [(as_is(system.title), TRUTH, states[:0])]
    columns = [x for _, x, _ in system.bodies], [y for *_, y in system.bodies]
    low, high = zip(*(_limits(states[:, both]) for both in columns))
    width = max(3.2, min(7.0, 2.35 * len(shown)))
    aspect = (high[1] - low[1]) / (high[0] - low[0])
    figure = new_figure(0.6 + min((width - 0.6) / len(shown) * aspect, 5.0), width)
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharex=True, sharey=True))
    for axes, (title, colour, path) in zip(panels, shown):
        inside = system.first.t[: len(path)] <= system.train_end
        for number, x, y in system.bodies:
            axes.plot(states[trained, x], states[trained, y], color=TRUTH, linewidth=1.8)
            axes.plot(states[~trained, x], states[~trained, y], color=TRUTH, linewidth=0.5, alpha=0.3)
            axes.plot(states[0, x], states[0, y], "o", color=TRUTH, markersize=2.5)
            axes.annotate(number, states[0, [x, y]], xytext=(2.5, 2.5), textcoords="offset points", fontsize=6)
            axes.plot(path[inside, x], path[inside, y], color=colour, linewidth=0.9)
            axes.plot(path[~inside, x], path[~inside, y], color=colour, linewidth=0.7, alpha=0.35)
        axes.set_title(title)
        axes.set_aspect("equal")
        axes.set_xlabel("x")
    panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), ylabel="y")
    legend(figure, {}, ["truth"], f"{as_is(system.title)}; coloured: model, dot: start, pale: beyond the training span")
    return figure


def shown_components(system: OdeSystem) -> list[int]:
    """Components for the trajectory figure: all of a small system; x and y of the first and last of many bodies."""
    if len(system.labels) <= MAX_COMPONENTS:
        return list(range(len(system.labels)))
    if system.bodies:
        (_, *first), *_, (_, *last) = system.bodies
        return [*first, *last]
    return list(range(MAX_COMPONENTS))


def _time(system: OdeSystem) -> str:
    """Label of the axis of times."""
    return "time t" if system.time_label == "t" else as_is(system.time_label)


def _caption(one: OdeSeries) -> str:
    """Name and role of a trajectory."""
    return as_is(one.name) + (f" ({ROLES[one.role]})" if ROLES[one.role] else "")


def _path(group: OdeGroup, series: int = 0) -> np.ndarray:
    """States (Td, n) of the group's representative seed on one trajectory; empty where there is none."""
    run = group.representative
    return np.empty((0, 0)) if run is None else run.path(series)


def _representatives(system: OdeSystem) -> list[tuple[OdeGroup, np.ndarray]]:
    """Each group with the first trajectory (Td, n) of its representative seed, where there is one."""
    return [(group, path) for group in system.groups if len(path := _path(group))]


def _draw(
    axes: Axes,
    one: OdeSeries,
    k: int,
    groups: Sequence[OdeGroup],
    styles: Styles,
    x: int | None,
    y: int,
    thin: bool = False,
) -> None:
    """Component `y` against component `x`, or against time: truth, data, and a seed of each variant."""

    def columns(times: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return times[: len(states)] if x is None else states[:, x], states[:, y]

    size = 0.4 if thin else 1.0
    if one.truth is not None:
        axes.plot(*columns(*one.reference), color=TRUTH, linewidth=size * TRUTH_WIDTH)
    for group in groups:
        path, style = _path(group, k), styles[group.name]
        if len(path):
            axes.plot(*columns(one.t, path), color=style.colour, linestyle=style.line, linewidth=max(0.6, size) * 1.1)
    if not thin or one.truth is None:
        axes.plot(*columns(one.data_t, one.data), "o", color=TRUTH, markersize=4 * size, markerfacecolor="white",
                  markeredgewidth=0.5 * size, zorder=1.5)  # fmt: skip
        if one.unused is not None:
            axes.plot(*columns(one.data_t, one.unused), "x", color=FAINT, markersize=3 * size, zorder=1.4)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Axis limits around the truth: an extrapolation that runs away must not flatten it."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.15 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin
