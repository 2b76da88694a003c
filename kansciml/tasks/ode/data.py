"""Training and test data of a system, and a system made from a user's own data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError, check_seed
from kansciml.tasks.ode.scaling import hardly_varying, solved, training_trajectories, with_normalisation
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.table import read_csv, read_table
from kansciml.tasks.ode.trajectory import Trajectory

__all__ = [
    "Trajectory",
    "first_state",
    "full_data",
    "hardly_varying",
    "held_out",
    "read_csv",
    "read_table",
    "system_from_trajectories",
    "system_from_trajectory",
    "training_data",
    "training_trajectories",
    "with_normalisation",
]

SMALLEST_SIZE = 1e-150
"""Of data that are not zero, and its inverse the largest: errors are squared."""


def training_data(system: System) -> Trajectory:
    """The data of the first trajectory that is trained on: see `training_trajectories`."""
    return training_trajectories(system)[0]


def full_data(system: System) -> Trajectory:
    """True states at `test_saveat`, which covers training and test span (for plots), or all rows of the first
    trajectory that is trained on."""
    if system.rhs is not None:
        return solved(system, system.test_saveat, system.training[0] if system.trajectories else 0)
    return system.trajectories[system.training[0]]


def first_state(system: System, k: int) -> tuple[Float64[np.ndarray, " n"], tuple[str, ...]]:
    """The initial state of trajectory k, its first row, and the labels of the components that are not known there.

    What was not measured there is taken from the system's `starts`, true initial states. Where there are none, a first
    guess stands for it: the first value that was measured later, or the component's center.
    """
    one = system.trajectories[k]
    known, otherwise = one.measured[0], system.center or system.u0
    if system.starts is not None:
        return np.where(known, one.states[0], system.starts[k]), ()
    guess = one.at(one.t[:1], np.array(otherwise))[0]
    return guess, tuple(label for label, is_known in zip(system.labels, known) if not is_known)


def system_from_trajectories(
    trajectories: Trajectory | Sequence[Trajectory],
    name: str,
    train_fraction: float = 1.0,
    *,
    validation: float = 0,
    unseen: float = 0,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> System:
    """A system known only through its data. The first row of each trajectory is its initial state.

    Args:
        trajectories: the data: one, or several of the same components and inputs, of at least two rows each.
        name: name of the system.
        train_fraction: the first round(train_fraction * T) rows of each, at least two, are trained on; the others test
            the extrapolation in time.
        validation, unseen: how many trajectories are held out, drawn at random: a share below 1, rounded and at least
            one, or a number.
        seed: of that draw.
        log: takes a line that says which were drawn.

    Raises:
        UsageError: a fraction outside (0, 1], fewer than two rows, a component that is never measured in the rows that
            are trained on, nothing left to train on, or numbers too large or small to be squared.
    """
    given = [trajectories] if isinstance(trajectories, Trajectory) else list(trajectories)
    if not given or not all(isinstance(one, Trajectory) for one in given):
        raise UsageError(f"got {len(given)} trajectories for {name}: expected at least one Trajectory")
    if not 0 < train_fraction <= 1:
        raise UsageError(f"got train_fraction {train_fraction}: expected a number above 0 and up to 1, such as 0.7")
    for one in given:
        if len(one) < 2:
            raise one.error(f"got {len(one)} row of data: expected at least two, the first being the initial state")
        _require_squares(one, name)
    n_validation, n_unseen = (
        held_out(key, part, len(given)) for key, part in (("validation", validation), ("unseen", unseen))
    )
    if n_validation + n_unseen >= len(given):
        raise UsageError(
            f"{name}: {n_validation} trajectories to validate and {n_unseen} to test on leave none of {len(given)} to"
            " train on: hold out fewer"
        )
    order = np.random.default_rng(check_seed(seed)).permutation(len(given)).tolist()
    tested, validating = sorted(order[:n_unseen]), sorted(order[n_unseen : n_unseen + n_validation])
    for what, drawn in (("tested on as unseen", tested), ("for validation", validating)):
        if drawn and log:
            log(f"trajectories {what} (drawn with seed {seed}): {', '.join(given[k].name or str(k) for k in drawn)}")
    ends = tuple(float(one.t[max(2, round(train_fraction * len(one))) - 1]) for one in given)
    first = next(k for k in range(len(given)) if k not in (*tested, *validating))
    one, end = given[first], ends[first]
    trained = []
    for k in range(len(given)):
        if k not in tested + validating:
            rows = given[k].t <= ends[k]
            if not given[k].measured[rows].any():
                count = f"the {rows.sum()} rows that are trained on"
                raise given[k].error(f"no measurement at all in {count}: leave it out, or train on more rows")
            trained.append(given[k].until(ends[k]).used())
    states = np.concatenate([own.states for own in trained])
    for label, column in zip(one.labels, states.T):
        if np.isnan(column).all():
            raise UsageError(f"{name}: {label} is never measured in the rows that are trained on: leave it out")
    if not any(own.measured[1:].any() for own in trained):
        raise UsageError(f"{name}: nothing is measured after the first rows that are trained on: train on more rows")
    return with_normalisation(
        System(
            name=name,
            citation=one.source,
            u0=one.at(one.t[:1], np.nanmean(states, axis=0))[0],
            t0=float(one.t[0]),
            train_end=end,
            test_end=float(one.t[-1]) if end < one.t[-1] else None,
            train_saveat=one.until(end).t,
            test_saveat=one.t,
            labels=one.labels,
            time_label=f"seconds since {one.clock.since}" if one.clock.since else one.clock.column or "t",
            trajectories=tuple(given),
            train_ends=ends if len(given) > 1 else (),
            validation=tuple(validating),
            unseen=tuple(tested),
        )
    )


system_from_trajectory = system_from_trajectories
"""The same, as it is called where there is one."""


def held_out(key: str, part: float, count: int) -> int:
    """How many of `count` trajectories a share below 1 (at least one) or a number stands for.

    Raises:
        UsageError: neither a share nor a whole number.
    """
    if 0 < part < 1:
        return max(1, round(part * count))
    if not (0 <= part < np.inf and part == int(part)):
        raise UsageError(f"got {part} trajectories for {key}: expected a share below 1, such as 0.2, or a number")
    return int(part)


def _require_squares(one: Trajectory, name: str) -> None:
    for label, column in zip(one.labels, np.abs(one.states).T):
        size = np.nanmax(column, initial=0.0)
        if size > 1 / SMALLEST_SIZE or 0 < size < SMALLEST_SIZE:
            raise UsageError(
                f"{name}: values of {label} reach {size:.3g}, whose square float64 does not hold: change their unit"
            )
