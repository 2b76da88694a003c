"""Training and test data of a system, and a system made from a user's own data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.ode.csv_file import read_csv
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trajectory import Trajectory

__all__ = [
    "Trajectory",
    "full_data",
    "hardly_varying",
    "read_csv",
    "system_from_trajectory",
    "training_data",
    "with_normalisation",
]

# Largest |z| on the training span after normalisation: a margin against the edge of the KAN grid, [-1, 1].
FILL = 0.9
# A component that varies by less than this fraction of its size counts as constant: what is left is rounding. All
# others are stretched to the full grid, so that a temperature in kelvin is learned as one in degrees Celsius is.
SMALLEST_VARIATION = 1e-9
OF_CONSTANT = 0.01
"""Scale of a constant component, over its size, and its rate over the scale, per training span."""
SMALLEST_SIZE = 1e-150
"""Of data that are not zero, and its inverse the largest: errors are squared."""


def training_data(system: System) -> Trajectory:
    """True states at `train_saveat`, or the observed rows of the training span."""
    if system.observed is not None:
        return system.observed.until(system.train_end)
    return _reference(system, system.train_saveat)


def full_data(system: System) -> Trajectory:
    """True states at `test_saveat`, which covers training and test span (for plots), or all observed rows."""
    return system.observed if system.observed is not None else _reference(system, system.test_saveat)


def _reference(system: System, t: np.ndarray) -> Trajectory:
    return Trajectory(t, reference_solution(system, t), system.labels, source="DOP853, rtol = atol = 1e-12")


def system_from_trajectory(trajectory: Trajectory, name: str, train_fraction: float = 1.0) -> System:
    """A system known only through its data. The first row is the initial state.

    Args:
        trajectory: the data, at least two rows.
        name: name of the system.
        train_fraction: the first round(train_fraction * T) rows, at least two, are trained on; the others are held out.

    Raises:
        UsageError: a fraction outside (0, 1], fewer than two rows, or numbers too large or small to be squared.
    """
    if not 0 < train_fraction <= 1:
        raise UsageError(f"got train_fraction {train_fraction}: expected a number above 0 and up to 1, such as 0.7")
    if len(trajectory) < 2:
        raise UsageError(f"got {len(trajectory)} row of data: expected at least two, the first being the initial state")
    sizes = np.abs(trajectory.states).max(axis=0)
    for label, size in zip(trajectory.labels, sizes):
        if size > 1 / SMALLEST_SIZE or 0 < size < SMALLEST_SIZE:
            raise UsageError(
                f"{name}: values of {label} reach {size:.3g}, whose square float64 does not hold: change their unit"
            )
    rows = max(2, round(train_fraction * len(trajectory)))
    t = trajectory.t
    return with_normalisation(
        System(
            name=name,
            citation=trajectory.source,
            u0=trajectory.states[0],
            t0=float(t[0]),
            train_end=float(t[rows - 1]),
            test_end=float(t[-1]) if rows < len(t) else None,
            train_saveat=t[:rows],
            test_saveat=t,
            labels=trajectory.labels,
            observed=trajectory,
        )
    )


def with_normalisation(system: System) -> System:
    """The system with what it lacks of center, scale, rate and loss_scale set from its training data, by component.

    center: mid-range. scale: half-range / 0.9, for a constant component 1 % of its size. rate: root mean square slope
    between successive rows, weighted by their distance in time. loss_scale: standard deviation, of a constant
    component as above: components in different units would otherwise count in the loss by the size of their unit.
    Equations are sampled densely over the training span, data as they are.
    """
    if system.scale and system.loss_scale is not None:
        return system
    if system.observed is None:
        data = _reference(system, np.unique(np.linspace(system.t0, system.train_end, 1001)))
    else:
        data = training_data(system)
    states, size = _sized(data.states)
    span = data.t[-1] - data.t[0]
    center, scale, rate = _scaling((data.t - data.t[0]) / span, states)
    spread = size * np.where(_constant(states), _scale_of_constant(states), states.std(axis=0))
    return replace(
        system,
        center=system.center or tuple((center * size).tolist()),
        scale=system.scale or tuple((scale * size).tolist()),
        rate=system.rate or tuple((rate * (size / span)).tolist()),
        loss_scale=spread if system.loss_scale is None else system.loss_scale,
    )


def _scaling(t: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """center, scale and rate, each (n,), of states of order one at times from 0 to 1."""
    low, high = states.min(axis=0), states.max(axis=0)
    scale = np.where(_constant(states), _scale_of_constant(states), (high - low) / 2 / FILL)
    dt = np.diff(t)
    slope = np.diff(states, axis=0) / dt[:, None]
    # A constant component still gets a rate, slow over the span, so that its output weight has a gradient.
    rate = np.maximum(np.sqrt(dt @ slope**2), OF_CONSTANT * scale)
    return (low + high) / 2, scale, rate


def hardly_varying(system: System) -> tuple[str, ...]:
    """Labels of components that vary over the training span, but by so little that they count as constant."""
    states, _ = _sized(training_data(system).states)
    small = (np.ptp(states, axis=0) > 0) & _constant(states) & (not system.dimensionless)
    return tuple(label for label, is_small in zip(system.labels, small) if is_small)


def _sized(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States over the largest magnitude of their component, and that magnitude (n,): squares are safe in any unit.

    A component that is zero has no magnitude of its own: it gets that of the largest, or 1.
    """
    size = np.abs(states).max(axis=0)
    size = np.where(size > 0, size, size.max() or 1.0)
    return states / size, size


def _constant(states: np.ndarray) -> np.ndarray:
    """Which components of `_sized` states vary by no more than rounding, (n,)."""
    return np.ptp(states, axis=0) <= 2 * SMALLEST_VARIATION


def _scale_of_constant(states: np.ndarray) -> np.ndarray:
    """Scale of each component of `_sized` states if it is constant, (n,): 1 % of its size, or 1 if it is zero."""
    return np.where(states.any(axis=0), OF_CONSTANT, 1.0)
