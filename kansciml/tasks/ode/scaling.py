"""Scaling of states, slopes, inputs and time, from the training data of a system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kansciml.tasks.ode.reference import method_of, reference_solution
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trajectory import Trajectory

# Largest |z| on the training span after normalisation: a margin against the edge of the KAN grid, [-1, 1].
FILL = 0.9
# A component that varies by less than this fraction of its size counts as constant: what is left is rounding. All
# others are stretched to the full grid, so that a temperature in kelvin is learned as one in degrees Celsius is.
SMALLEST_VARIATION = 1e-9
OF_CONSTANT = 0.01
"""Scale of a constant component, over its size, and its rate over the scale, per training span."""


def with_normalisation(system: System) -> System:
    """The system with what it lacks of center, scale, rate and loss_scale set from its training data, by component.

    center: mid-range. scale: half-range / 0.9, for a constant component 1 % of its size. rate: root mean square slope
    between successive measurements, weighted by their distance in time. loss_scale: standard deviation, of a constant
    component as above: components in different units would otherwise count in the loss by the size of their unit.
    All training trajectories count together, gaps do not. Equations from one initial state are sampled densely over the
    training span, data as they are.
    """
    if system.scale and system.loss_scale is not None:
        return system
    data = _sampled(system)
    states, size = _sized(_all(data))
    span = max(one.t[-1] - one.t[0] for one in data)
    with np.errstate(all="ignore"):  # System refuses what is not finite
        center, scale, rate = _scaling([((one.t - one.t[0]) / span, one.states / size) for one in data], states)
    return replace(
        system,
        center=system.center or tuple((center * size).tolist()),
        scale=system.scale or tuple((scale * size).tolist()),
        rate=system.rate or tuple((rate * (size / span)).tolist()),
        loss_scale=spread(data) if system.loss_scale is None else system.loss_scale,
    )


def spread(data: Sequence[Trajectory]) -> np.ndarray:
    """Standard deviation (n,) of each component over trajectories; of a constant one 1 % of its size."""
    states, size = _sized(_all(data))
    deviation = states.std(axis=0) if np.isfinite(states).all() else np.nanstd(states, axis=0)
    return size * np.where(_constant(states), _scale_of_constant(states), deviation)


def input_normalisation(system: System) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """center and scale over the training spans of what a field sees beside the state: the inputs, then the time if the
    system depends on it (see `column_scaling`)."""
    ends = [(system.trajectories[k].t[0], system.end_of(k)) for k in system.training] or [(system.t0, system.train_end)]
    columns = []
    if system.input_size:
        columns += [*np.concatenate([system.trajectories[k].until(system.end_of(k)).inputs for k in system.training]).T]
    if system.time_dependent:
        columns.append(np.array(ends).ravel())
    return column_scaling(columns)


def column_scaling(columns: Sequence[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """center and scale that put each column into [-0.9, 0.9]; the scale of a constant one is 1 % of its size, or 1."""
    center = [(column.min() + column.max()) / 2 for column in columns]
    sizes = [(np.ptp(column), np.abs(column).max()) for column in columns]
    scale = [
        width / 2 / FILL if width > SMALLEST_VARIATION * size else OF_CONSTANT * size or 1.0 for width, size in sizes
    ]
    return tuple(map(float, center)), tuple(map(float, scale))


def hardly_varying(system: System) -> tuple[str, ...]:
    """Labels of components that vary over the training span, but by so little that they count as constant."""
    states, _ = _sized(_all(training_trajectories(system)))
    small = (np.nanmax(states, axis=0) > np.nanmin(states, axis=0)) & _constant(states) & (not system.dimensionless)
    return tuple(label for label, is_small in zip(system.labels, small) if is_small)


def training_trajectories(system: System) -> tuple[Trajectory, ...]:
    """The data trained on, of each training trajectory the rows of its training span without measurements of weight 0;
    true states at `train_saveat` where the system has equations and no data."""
    if not system.trajectories:
        return (solved(system, system.train_saveat),)
    return tuple(system.trajectories[k].until(system.end_of(k)).used() for k in system.training)


def solved(system: System, t: np.ndarray, k: int = 0) -> Trajectory:
    """True states at times t (T,) from the true initial state of trajectory k.

    Raises:
        UsageError: no known equations. SolveError: they cannot be integrated.
    """
    start, t0 = system.u0, system.t0
    if system.trajectories:
        start = system.trajectories[k].states[0] if system.starts is None else system.starts[k]
        t0 = float(system.trajectories[k].t[0])
    states = reference_solution(system, t, start, t0)
    return Trajectory(t, states, system.labels, source=f"{method_of(system)}, rtol = atol = 1e-12")


def dense_times(system: System) -> np.ndarray:
    """Times of the training span by which the range of a known solution is told."""
    return np.unique(np.linspace(system.t0, system.train_end, 1001))


def _sampled(system: System) -> Sequence[Trajectory]:
    """What tells the range of the states over the training span."""
    if system.rhs is None:
        return training_trajectories(system)
    if not system.trajectories:
        return [solved(system, dense_times(system))]
    return [solved(system, system.trajectories[k].until(system.end_of(k)).t, k) for k in system.training]


def _all(data: Sequence[Trajectory]) -> np.ndarray:
    return np.concatenate([one.states for one in data])


def _scaling(
    data: Sequence[tuple[np.ndarray, np.ndarray]], states: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """center, scale and rate, each (n,), of states of order one at times from 0 to at most 1; `states`: all of them."""
    low, high = np.nanmin(states, axis=0), np.nanmax(states, axis=0)
    scale = np.where(_constant(states), _scale_of_constant(states), (high - low) / 2 / FILL)
    square, covered = np.sum([_squared_slope(t, own) for t, own in data], axis=0)
    mean = np.divide(square, covered, out=np.zeros_like(square), where=covered > 0)
    # A constant component still gets a rate, slow over the span, so that its output weight has a gradient.
    return (low + high) / 2, scale, np.maximum(np.sqrt(mean), OF_CONSTANT * scale)


def _squared_slope(t: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Integral of the squared slope between successive measurements of each component, and its time: (2, n)."""
    if np.isfinite(states).all():
        dt = np.diff(t)
        return np.array([dt @ (np.diff(states, axis=0) / dt[:, None]) ** 2, np.full(states.shape[1], t[-1] - t[0])])
    known = [np.isfinite(column) for column in states.T]
    own = [_squared_slope(t[rows], column[rows, None])[:, 0] for column, rows in zip(states.T, known) if rows.any()]
    return np.array([own.pop(0) if rows.any() else np.zeros(2) for rows in known]).T


def _sized(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States over the largest magnitude of their component, and that magnitude (n,): squares are safe in any unit.

    A component that is zero has no magnitude of its own: it gets that of the largest, or 1.
    """
    size = np.nanmax(np.abs(states), axis=0)
    size = np.where(size > 0, size, size.max() or 1.0)
    return states / size, size


def _constant(states: np.ndarray) -> np.ndarray:
    """Which components of `_sized` states vary by no more than rounding, (n,)."""
    return np.nanmax(states, axis=0) - np.nanmin(states, axis=0) <= 2 * SMALLEST_VARIATION


def _scale_of_constant(states: np.ndarray) -> np.ndarray:
    """Scale of each component of `_sized` states if it is constant, (n,): 1 % of its size, or 1 if it is zero."""
    return np.where(np.nan_to_num(states).any(axis=0), OF_CONSTANT, 1.0)
