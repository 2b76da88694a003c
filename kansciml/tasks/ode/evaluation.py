"""Measures a trained field: errors in time and on trajectories that were held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from jaxtyping import Float, Float64

from kansciml._errors import SolveError, UsageError
from kansciml.backends.base import OdeSolver, Times
from kansciml.tasks.ode.data import first_state
from kansciml.tasks.ode.scaling import solved, training_trajectories
from kansciml.tasks.ode.system import System

EVALUATION_TOLERANCE = 1e-10
"""Losses are reported at this tolerance, so that none of them fits the solver's error."""
NONE_HELD_OUT = "all data are trained on, none are held out"
METRICS = ("train_mse", "train_relative_mse", "test_mse", "test_relative_mse")


def model_states(
    solver: OdeSolver, system: System, params: Float64[np.ndarray, " P"], k: int, t: Times
) -> Float64[np.ndarray, "T n"]:
    """States of the trained model at times in any order, from the initial state of the system's trajectory k on, driven
    by its inputs, at tolerance 1e-10.

    The initial state is the one that was trained with; of a trajectory that was not, its true one or its first row.

    Raises:
        UsageError: that row was not measured completely, or a time before it or without inputs.
        SolveError: the solution does not reach the last time.
    """
    tolerances = EVALUATION_TOLERANCE, EVALUATION_TOLERANCE
    if not system.trajectories:
        return solver.trajectory(params, t, *tolerances)
    one = system.trajectories[k]
    if k in system.training:
        heads = [i for i, own in enumerate(solver.problem.series) if own.follows is None]
        series = heads[system.training.index(k)]
        return solver.trajectory(params, t, *tolerances, series=series, inputs=one.forcing)
    start, missing = first_state(system, k) if system.starts is None else (system.starts[k], ())
    if missing:
        raise one.error(f"{', '.join(missing)} not measured in its first row, the initial state")
    return solver.trajectory(params, t, *tolerances, u0=start, t0=float(one.t[0]), inputs=one.forcing)


def mse(u: Float[np.ndarray, "T n"], data: Float[np.ndarray, "T n"]) -> float:
    """Mean squared error of predicted states over all measurements, in squared state units. NaN: not measured."""
    return float(np.nanmean((u - data) ** 2))


def relative_mse(u: Float[np.ndarray, "T n"], data: Float[np.ndarray, "T n"]) -> float:
    """Squared error relative to the variation of the data, pooled over components (dimensionless, in any unit).

    sum_{t,i} (u_ti - d_ti)^2 / sum_{t,i} (d_ti - mean_t d_ti)^2: predicting each component's mean over time gives 1.
    Components are pooled so that one that hardly varies does not dominate. NaN: not measured.

    Raises:
        UsageError: the data are constant in time (to rounding).
    """
    data = data[:, np.isfinite(data).any(axis=0)] if np.isnan(data).any() else data
    spread = np.nanmax(data, axis=0) - np.nanmin(data, axis=0)
    if not np.any(spread > 4 * np.finfo(np.float64).eps * np.nanmax(np.abs(data), axis=0)):  # nor is a mean exact
        what = "there is one row of data" if len(data) == 1 else f"the {len(data)} rows of data are constant in time"
        raise UsageError(f"{what}: the relative error is undefined, use the mean squared error")
    unit = spread.max()  # squares of very small or large numbers leave float64
    error = np.nansum(((u - data) / unit) ** 2)
    return float(error / np.nansum(((data - np.nanmean(data, axis=0)) / unit) ** 2))


class Metrics(dict[str, "float | None"]):
    """Errors of a trained field by name (`METRICS`), None where one could not be computed.

    Attributes:
        missing: why, in one line, for the name of each that is None.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(METRICS))
        self.missing: dict[str, str] = {}

    def measure(
        self,
        span: str,
        u: Float[np.ndarray, "T n"],
        data: Float[np.ndarray, "T n"],
        unit: Float[np.ndarray, " n"],
    ) -> None:
        """Fill in the errors of states u on a span such as "train" or "test"; `unit`: of relative ones."""
        if np.isnan(data).all():
            return self.lack(span, "nothing was measured there")
        with np.errstate(over="ignore"):
            error = mse(u, data)
            if not np.isfinite(error):
                return self.lack(span, "the squared error is larger than float64 holds")
            self[f"{span}_mse"] = error
            self[f"{span}_relative_mse"] = None
            try:
                self[f"{span}_relative_mse"] = relative_mse(u / unit, data / unit)
            except UsageError as undefined:
                self.missing[f"{span}_relative_mse"] = str(undefined)

    def lack(self, span: str, why: str) -> None:
        """Say why there are no errors on a span."""
        lacking = dict.fromkeys((f"{span}_mse", f"{span}_relative_mse"), why)
        self.update(dict.fromkeys(lacking))
        self.missing |= lacking


def evaluate(
    solver: OdeSolver, system: System, params: Float64[np.ndarray, " P"]
) -> tuple[Metrics, Float64[np.ndarray, "T n"]]:
    """Measures of a trained field at tolerance 1e-10, and its states at the system's `test_saveat`.

    The solver may take the problem's `max_steps` here too. Errors are those against the true states where the system
    has equations, else against what was measured, over all trajectories of a kind together.

    Returns:
        ``train_mse``, ``train_relative_mse`` on the training data; ``test_mse``, ``test_relative_mse`` beyond the
        training span; where the system has such trajectories, ``validation_...`` and ``unseen_...``, from the first row
        of each on. None, with the reason in `Metrics.missing`, where there is nothing beyond the training span, where
        the solution does not reach its end, and for relative errors where the data do not vary. And the states of the
        first trajectory, NaN where they could not be computed. Relative errors are in multiples of the system's
        `loss_scale`, unless the system is `dimensionless`: components may have different units.
    """
    unit = np.ones(system.state_size) if system.dimensionless else system.loss_scale
    found = Metrics()
    ends = [(k, system.end_of(k)) for k in system.training] or [(0, system.train_end)]
    times = [_times(system, k) for k, _ in ends]
    beyond = [np.asarray(t > end) for t, (_, end) in zip(times, ends)]
    states = [np.full((len(t), system.state_size), np.nan) for t in times]
    later = any(own.any() for own in beyond)

    def solve(k: int, t: np.ndarray) -> np.ndarray:
        return model_states(solver, system, params, k, t)

    for kind in ("validation", "unseen"):
        if own := getattr(system, kind):
            at = [system.trajectories[k].t for k in own]
            _measure(found, kind, solve, system, own, at, unit)
    if not later:
        found.lack("test", NONE_HELD_OUT)
    ks = [k for k, _ in ends]
    trained = [one.t[one.measured.any(axis=1)] for one in training_trajectories(system)]
    if not _measure(found, "train", solve, system, ks, trained, unit):
        if later:
            found.lack("test", found.missing["train_mse"])
        return found, states[0]
    for i, k in enumerate(ks):
        try:
            states[i] = solve(k, times[i])
        except SolveError as error:  # the learned field blows up beyond its training data
            with suppress(SolveError):
                states[i][~beyond[i]] = solve(k, times[i][~beyond[i]])
            if later:
                found.lack("test", f"solved again, {error}")
            return found, states[0]
    if later:
        try:
            true = [_true(system, k, t)[own] for k, t, own in zip(ks, times, beyond)]
            found.measure(
                "test", np.concatenate([u[own] for u, own in zip(states, beyond)]), np.concatenate(true), unit
            )
        except SolveError as error:  # the true solution blows up there
            found.lack("test", str(error))
    return found, states[0]


def _measure(
    found: Metrics,
    span: str,
    solve: Callable[[int, np.ndarray], np.ndarray],
    system: System,
    ks: Sequence[int],
    times: Sequence[np.ndarray],
    unit: np.ndarray,
) -> bool:
    """Measure the model at times of each of the trajectories ks together; whether it could be solved there."""
    try:
        states = np.concatenate([solve(k, t) for k, t in zip(ks, times)])
    except (SolveError, UsageError) as error:
        found.lack(span, f"solved again, {error}" if isinstance(error, SolveError) else str(error))
        return False
    found.measure(span, states, np.concatenate([_true(system, k, t) for k, t in zip(ks, times)]), unit)
    return True


def _times(system: System, k: int) -> np.ndarray:
    """All times of a trajectory: of its rows, or `test_saveat` where the truth is known."""
    if system.rhs is None:
        return system.trajectories[k].t
    start = system.trajectories[k].t[0] if system.trajectories else system.t0
    return system.test_saveat[system.test_saveat >= start]


def _true(system: System, k: int, t: np.ndarray) -> np.ndarray:
    """True states at times of trajectory k, or what was measured then."""
    if system.rhs is not None:
        return solved(system, t, k).states
    one = system.trajectories[k].used()
    return one.states[np.searchsorted(one.t, t)]
