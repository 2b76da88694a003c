"""Synthetic measurements of a system with known equations: several initial states, and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from kansciml._errors import UsageError, check_seed
from kansciml.tasks.ode.data import held_out
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.scaling import FILL, dense_times, spread, with_normalisation
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trajectory import Trajectory


def sampled(
    system: System,
    trajectories: int = 1,
    *,
    noise: float = 0.0,
    validation: float = 0,
    unseen: float = 0,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> System:
    """The system with data from several initial states and with noise; its equations remain the truth.

    The first trajectory is that of the system's own `u0`; the others start at states drawn evenly from its `box`. All
    are saved at `train_saveat`; where this begins after `t0`, the initial state is a row of its own before, known and
    not measured.

    Args:
        system: with known equations.
        trajectories: how many are trained on (default 1).
        noise: standard deviation of the normal noise on the data trained on, the first row too, relative to the
            standard deviation of each component over all of them (default none).
        validation, unseen: how many more are drawn to validate, and to test on initial states that were not trained on:
            a share of `trajectories` below 1, or a number. They have no noise.
        seed: of initial states and noise.
        log: takes a line that says what was drawn.

    Raises:
        UsageError: no known equations, no box to draw from, a number out of range.
        SolveError: the equations cannot be integrated from a state that was drawn.
    """
    if not (trajectories != 1 or noise or validation or unseen):
        return with_normalisation(system)
    if system.rhs is None or system.trajectories:
        raise UsageError(
            f"system {system.name} is known through its data: initial states and noise need equations alone"
        )
    if trajectories < 1:
        raise UsageError(f"got trajectories {trajectories}: expected at least 1")
    if not 0 <= noise < np.inf:
        raise UsageError(f"got noise {noise}: expected a number of at least 0, such as 0.05")
    n_validation, n_unseen = (
        held_out(key, part, trajectories) for key, part in (("validation", validation), ("unseen", unseen))
    )
    drawn = trajectories - 1 + n_validation + n_unseen
    if drawn and system.box is None:
        raise UsageError(
            f"system {system.name} has no box to draw initial states from: add box=(lowest, highest), two vectors of"
            f" {system.state_size} numbers, to its SYSTEM"
        )
    # initial states and noise from streams of their own: the same states with and without noise
    states_rng, noise_rng = (np.random.default_rng(one) for one in np.random.SeedSequence(check_seed(seed)).spawn(2))
    low, high = system.box or (system.u0, system.u0)
    starts = np.concatenate([system.u0[None], states_rng.uniform(low, high, (drawn, system.state_size))])
    times = np.unique(np.append(system.train_saveat, system.t0))
    states = [reference_solution(system, times, start) for start in starts]
    deviation = noise * np.concatenate(states[:trajectories]).std(axis=0)
    found = []
    for k, own in enumerate(states):
        if noise and k < trajectories:
            own = own + deviation * noise_rng.standard_normal(own.shape)
        if system.train_saveat[0] > system.t0:
            own = np.concatenate([np.full((1, system.state_size), np.nan), own[1:]])
        found.append(Trajectory(times, own, system.labels, system.name, name=str(k + 1)))
    last = trajectories + n_validation
    told = f"{trajectories} trained on, {n_validation} for validation, {n_unseen} unseen" if drawn else "1 trained on"
    if log:
        noisy = f", noise {noise:g} of each standard deviation" if noise else ""
        log(f"{system.name}: trajectories {told}; the first from its own initial state (seed {seed}){noisy}")
    return replace(
        _spread(_widened(system, times, np.array(states[:trajectories])), starts[:trajectories]),
        trajectories=tuple(found),
        starts=starts,
        validation=tuple(range(trajectories, last)),
        unseen=tuple(range(last, len(found))),
    )


def _widened(system: System, t: np.ndarray, states: np.ndarray) -> System:
    """The system with a scaling that reaches over `states` (K, T, n) at times t (T,), all that are trained on.

    The first are those of the system's own initial state. Components of one treatment keep one: the same center, a
    scale that reaches over them together, a rate that grows as their root mean square slope does.
    """
    system = with_normalisation(system)
    assert system.rhs is not None
    center, scale, rate = (np.array(values) for values in (system.center, system.scale, system.rate))
    slopes = np.stack([system.rhs(float(at), states[:, row]) for row, at in enumerate(t)])
    square, own = np.mean(slopes**2, axis=(0, 1)), np.mean(slopes[:, 0] ** 2, axis=0)
    reach = np.abs(states - center).max(axis=(0, 1)) / FILL
    for one in {*zip(center, scale, rate)}:
        alike = (center == one[0]) & (scale == one[1]) & (rate == one[2])
        scale[alike] = max(one[1], reach[alike].max())
        if not own[alike].any():  # at rest, with a rate that stands for none
            rate[alike] = max(one[2], np.sqrt(square[alike].mean()))
        else:
            rate[alike] = one[2] * np.sqrt(square[alike].mean() / own[alike].mean())
    return replace(system, scale=tuple(scale.tolist()), rate=tuple(rate.tolist()))


def _spread(system: System, starts: np.ndarray) -> System:
    """The system with the standard deviations over solutions from all `starts` (K, n) as its `loss_scale`, where this
    was that of its own initial state, the first, and not given otherwise."""
    own = with_normalisation(replace(system, loss_scale=cast(np.ndarray, None))).loss_scale
    if system.dimensionless or len(starts) == 1 or not np.array_equal(own, system.loss_scale):
        return system
    times = dense_times(system)
    data = [Trajectory(times, reference_solution(system, times, start)) for start in starts]
    return replace(system, loss_scale=spread(data))
