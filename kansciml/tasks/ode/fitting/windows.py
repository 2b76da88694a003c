"""Learned initial states, and multiple shooting: trajectories cut into windows with learned starts.

Source of multiple shooting: Bock & Plitt (1984); for neural ODEs Turan & Jaeschke (2021), whose "group size" is the
number of rows in a window here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError
from kansciml.backends.base import OdeProblem, OdeSolver, Series
from kansciml.models.edge_penalty import edge_penalty
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.trajectory import between


def prepared(problem: OdeProblem, fit: FitConfig) -> OdeProblem:
    """The problem with component weights and learned initial states, as `fit` says.

    Raises:
        UsageError: what it says does not suit the data or the field.
    """
    if fit.l1 or fit.entropy:
        network = problem.field.network if isinstance(problem.field, HybridSpec) else problem.field
        if not isinstance(network, FieldSpec):
            raise UsageError("l1 and entropy are for built-in fields: add penalties of your own to a loss of your own")
        edge_penalty(network, np.zeros(network.n_parameters), fit.l1, fit.entropy)
    problem = weighted(problem, fit.component_weights)
    if fit.learn_u0:
        problem = with_learned_starts(problem)
    if fit.batch_trajectories:
        for k, one in enumerate(problem.series):
            if not one.measured(len(one.data)) > 0:
                raise UsageError(f"got trajectory {one.name or k} without a single measurement: leave it out")
    return problem


def with_learned_starts(problem: OdeProblem) -> OdeProblem:
    """The problem with all initial states learned.

    The first guess of a component is its first measured value; where it has none, what the problem started from. What
    is known of the initial state beside the measurements does not count.

    Raises:
        UsageError: nothing at all is measured of a trajectory.
    """
    for k, one in enumerate(problem.series):
        if not one.measured(len(one.data)) > 0:
            raise UsageError(
                f"got trajectory {one.name or k} without a single measurement: there is nothing to learn its initial"
                " state from, so leave it out"
            )
    series = tuple(replace(one, u0=_guess(one, one.t0), learned=True) for one in problem.series)
    return replace(problem, series=series)


def weighted(problem: OdeProblem, weights: Sequence[float]) -> OdeProblem:
    """The problem with measurements weighted in the loss by component, times weights that they have; none: as it is.

    Raises:
        UsageError: not one weight for each component.
    """
    if not len(weights):
        return problem
    n = problem.field.state_size
    if len(weights) != n:
        raise UsageError(f"got {len(weights)} component_weights: expected {n}, one for each component of the state")
    series = tuple(
        replace(one, weights=np.array(weights) * (np.ones_like(one.data) if one.weights is None else one.weights))
        for one in problem.series
    )
    return replace(problem, series=series)


def in_windows(problem: OdeProblem, rows: int) -> OdeProblem:
    """The problem with each series cut into windows of `rows` save points, neighbours sharing one.

    A shared row is compared with the end of the earlier window; the start of the later one is learned, from a first
    guess between the measurements around it, and linked to that end. With closed links the loss is that of the uncut
    series.
    """
    series: list[Series] = []
    for one in problem.series:
        for first in range(0, max(len(one.saveat) - 1, 1), rows - 1):
            span = slice(first + 1 if first else 0, first + rows)
            weights = None if one.weights is None else one.weights[span]
            window = replace(one, saveat=one.saveat[span], data=one.data[span], weights=weights)
            if first:
                t0 = float(one.saveat[first])
                window = replace(window, u0=_guess(one, t0), t0=t0, learned=True, follows=len(series) - 1)
            series.append(window)
    return replace(problem, series=tuple(series))


def uncut(problem: OdeProblem, windows: OdeProblem, params: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, " F"]:
    """Parameters of `problem` from those of its `windows`: each trajectory starts where its first window does."""
    field, starts = windows.split(params)
    firsts = [i for i, one in enumerate(windows.series) if one.follows is None]
    return np.concatenate([field, starts[firsts][problem.learned].ravel()])


def gaps(solver: OdeSolver, params: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, "links n"]:
    """Ends of windows minus the starts that are linked to them, in multiples of the problem's `loss_scale`.

    Raises:
        SolveError: a window cannot be solved.
    """
    problem = solver.problem
    starts = problem.solved_in.states_out(problem.split(params)[1])
    found = [
        solver.trajectory(params, one.t0, series=one.follows)[0] - starts[i]
        for i, one in enumerate(problem.series)
        if one.follows is not None
    ]
    return np.reshape(found, (-1, starts.shape[1])) / problem.loss_scale


def _guess(one: Series, t: float) -> np.ndarray:
    """State (n,) at a time, by its measurements (see `between`), else its `u0`."""
    return between(one.saveat, one.data, np.array([t]), one.u0)[0]
