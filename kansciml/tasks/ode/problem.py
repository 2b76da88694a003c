"""From a system and a choice of model to the problem a backend solves, and the measures of a trained field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kansciml._errors import SolveError, UsageError, unknown_name
from kansciml.backends.base import INPUT_SCALINGS, MODELS, FieldSpec, OdeProblem, OdeSolver
from kansciml.tasks.ode.data import full_data, training_data
from kansciml.tasks.ode.loss import mse, relative_mse
from kansciml.tasks.ode.system import System

EVALUATION_TOLERANCE = 1e-10
"""Losses are reported at this tolerance, so that none of them fits the solver's error."""
MATCHES = ("width", "params")


def make_field(
    system: System,
    model: str,
    *,
    hidden: Sequence[int] = (),
    match: str = "width",
    activation: str = "tanh",
    grid: int = 5,
    spline_order: int = 3,
    grid_range: tuple[float, float] = (-1.0, 1.0),
    input_scaling: str = "affine",
    input_power: int = 1,
) -> FieldSpec:
    """A field for a system.

    Args:
        system: gives the state size, the normalisation, and the default hidden width.
        model: ``"mlp"`` or ``"kan"``.
        hidden: hidden widths; empty means one layer of the system's `hidden` units.
        match: ``"width"``: the KAN has the given widths too, the paper's "comparable width". ``"params"``: its hidden
            widths are shrunk by one factor until it has at most as many parameters as the MLP of the given widths.
        activation: of the MLP.
        grid, spline_order, grid_range: of the KAN.
        input_scaling: ``"affine"`` maps the training span into [-1, 1]; ``"none"`` feeds the state as it is;
            ``"tanh"`` feeds its hyperbolic tangent.
        input_power: odd power of the scaled state that is fed in (3: the cubes of some spiral tutorials).

    Raises:
        UsageError: unknown name or a value out of range.
    """
    if model not in MODELS:
        raise unknown_name("model", model, MODELS)
    if input_scaling not in INPUT_SCALINGS:
        raise unknown_name("input_scaling", input_scaling, INPUT_SCALINGS)
    if match not in MATCHES:
        raise unknown_name("match", match, MATCHES)
    n = system.state_size
    hidden = tuple(hidden) or (system.hidden,)
    if min(hidden) < 1:
        raise UsageError(f"got hidden widths {hidden}: expected positive numbers of units")
    affine = input_scaling == "affine"

    def spec(kind: str, inner: Sequence[int]) -> FieldSpec:
        return FieldSpec(
            kind,
            (n, *inner, n),
            activation=activation,
            grid=grid,
            spline_order=spline_order,
            grid_range=grid_range,
            center=tuple(system.center) if affine else (),
            scale=tuple(system.scale) if affine else (),
            rate=tuple(system.rate),
            squash=input_scaling == "tanh",
            input_power=input_power,
        )

    if model == "mlp" or match == "width":
        return spec(model, hidden)
    budget = spec("mlp", hidden).n_parameters
    for width in range(hidden[0], 0, -1):
        candidate = spec("kan", [max(1, round(h * width / hidden[0])) for h in hidden])
        if candidate.n_parameters <= budget:
            break
    return candidate  # even one unit may cost more than a small MLP: the smallest there is


def make_problem(system: System, field: FieldSpec, rtol: float = 1e-7, atol: float = 1e-7) -> OdeProblem:
    """The problem of fitting `field` to the training data of `system`."""
    data = training_data(system)
    return OdeProblem(
        field,
        u0=system.u0,
        saveat=data.t,
        data=data.states,
        t0=system.t0,
        loss_scale=np.asarray(system.loss_scale),
        rtol=rtol,
        atol=atol,
    )


def evaluate(solver: OdeSolver, system: System, params: np.ndarray) -> tuple[dict[str, float | None], np.ndarray]:
    """Measures of a trained field at tolerance 1e-10, and its states at the system's `test_saveat`.

    Returns:
        ``train_mse``, ``train_relative_mse`` on the training data; ``test_mse``, ``test_relative_mse`` beyond the
        training span (None where there is nothing beyond it, or where the solution does not reach its end); and the
        states (T, n), NaN where they could not be computed.
    """
    tolerance = EVALUATION_TOLERANCE
    metrics: dict[str, float | None] = dict.fromkeys(
        ("train_mse", "train_relative_mse", "test_mse", "test_relative_mse")
    )
    data = training_data(system)
    times = system.test_saveat
    states = np.full((len(times), system.state_size), np.nan)
    try:
        u = solver.trajectory(params, data.t, tolerance, tolerance)
    except SolveError:
        return metrics, states
    metrics["train_mse"], metrics["train_relative_mse"] = mse(u, data.states), relative_mse(u, data.states)
    try:
        states = solver.trajectory(params, times, tolerance, tolerance)
    except SolveError:  # the learned field blows up beyond its training data
        inside = times <= system.train_end
        states[inside] = solver.trajectory(params, times[inside], tolerance, tolerance)
        return metrics, states
    beyond = times > system.train_end
    if beyond.any():
        truth = full_data(system).states[beyond]
        metrics["test_mse"] = mse(states[beyond], truth)
        if np.ptp(truth, axis=0).any():  # a single held-out row has no variation to compare with
            metrics["test_relative_mse"] = relative_mse(states[beyond], truth)
    return metrics, states
