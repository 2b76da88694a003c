"""The numbers of the Julia backend against NumPy and SciPy, written independently; marked `julia`."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import erf, expit

from kansciml import BackendUnavailable, KansciError, SolveError, UsageError
from kansciml.backends.base import OdeProblem, OdeSolver, Subset
from kansciml.backends.julia import SENSEALGS, JuliaBackend
from kansciml.models.field_spec import FieldSpec
from kansciml.models.units import Units

ROOT = Path(__file__).resolve().parents[2]

# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def backend(julia):
    return julia


def _silu(x: np.ndarray) -> np.ndarray:
    return x * expit(x)


ACTIVATIONS = {
    "tanh": np.tanh,
    "silu": _silu,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": expit,
}


def _de_boor(x: np.ndarray, spec: FieldSpec) -> np.ndarray:
    """B-splines (..., G + S) by the recursion of Cox and de Boor."""
    low, high = spec.grid_range
    order = spec.spline_order
    knots = low + (high - low) / spec.grid * np.arange(-order, spec.grid + order + 1)
    x = x[..., None]
    basis = ((x >= knots[:-1]) & (x < knots[1:])).astype(float)
    for k in range(1, order + 1):
        left = (x - knots[: -k - 1]) / (knots[k:-1] - knots[: -k - 1])
        right = (knots[k + 1 :] - x) / (knots[k + 1 :] - knots[1:-k])
        basis = left * basis[..., :-1] + right * basis[..., 1:]
    return basis


def numpy_field(spec: FieldSpec, u: np.ndarray, params: np.ndarray) -> np.ndarray:
    """The field at states (..., n), from its definition."""
    center, scale, rate = spec.normalisation()
    z = (u - center) / scale
    z = (np.tanh(z) if spec.squash else z) ** spec.input_power
    layers = spec.unpack(params)
    for i, layer in enumerate(layers):
        if spec.model == "mlp":
            z = z @ layer["weight"] + layer["bias"]
            z = ACTIVATIONS[spec.activation](z) if i < len(layers) - 1 else z
        else:
            splines = np.einsum("...im,imo,io->...o", _de_boor(z, spec), layer["spline_weight"], layer["spline_scale"])
            z = _silu(z) @ layer["base_weight"] + splines
    return rate * z


FIELDS = [
    *(FieldSpec("mlp", (2, 7, 2), activation=name) for name in ACTIVATIONS),
    FieldSpec("mlp", (3, 5, 4, 3), center=(0.1, 0.2, -0.1), scale=(1.0, 2.0, 0.7), rate=(1.0, 2.0, 0.5)),
    FieldSpec("mlp", (2, 2), squash=True, input_power=3),
    FieldSpec("kan", (2, 6, 2), scale=(1.5, 2.0), rate=(2.0, 1.0)),
    FieldSpec("kan", (2, 3, 2), grid=3, spline_order=2, grid_range=(-0.5, 1.0)),
    FieldSpec("kan", (2, 4, 3, 2), grid=8, spline_order=5, squash=True),
    FieldSpec("kan", (2, 2), grid=4, spline_order=1, input_power=3),
]


def _labelled(spec: FieldSpec) -> str:
    return f"{spec.label()} {spec.activation} {spec.squash} {spec.input_power}"


def _problem(spec: FieldSpec, rtol: float = 1e-10) -> tuple[OdeProblem, np.ndarray]:
    """A problem with moderate dynamics and the parameters that it is looked at with."""
    rng = np.random.default_rng(1)
    saveat = np.array([0.0, 0.13, 0.2, 0.8, 1.4, 1.5])
    params = spec.initial_parameters(3) + 0.1 * rng.normal(size=spec.n_parameters)
    n = spec.state_size
    data = rng.normal(size=(len(saveat), n))
    return OdeProblem.single(spec, 0.4 * rng.normal(size=n), saveat, data, 0.0, 0.5 + rng.random(n), rtol, rtol), params


def _reference(problem: OdeProblem, params: np.ndarray) -> np.ndarray:
    span = (problem.t0, problem.saveat[-1])
    solution = solve_ivp(
        lambda t, u: numpy_field(problem.field, u, params),
        span,
        problem.u0,
        "DOP853",
        problem.saveat,
        rtol=1e-12,
        atol=1e-12,
    )
    return solution.y.T


def _reference_loss(problem: OdeProblem, params: np.ndarray, horizon: int) -> float:
    residual = (_reference(problem, params) - problem.data) / problem.loss_scale
    return float(np.mean(residual[:horizon] ** 2))


@pytest.mark.julia
@pytest.mark.parametrize("spec", FIELDS, ids=_labelled)
def test_rhs_is_the_definition(backend, spec):
    _, params = _problem(spec)
    u = 1.3 * np.random.default_rng(2).normal(size=(50, spec.state_size))
    expected = numpy_field(spec, u, params)
    solver = backend.solver(_problem(spec)[0])
    assert isinstance(solver, OdeSolver)
    assert np.max(np.abs(solver.rhs(u, 0.0, params) - expected)) <= 1e-12 * np.max(np.abs(expected))


@pytest.mark.julia
@pytest.mark.parametrize("spec", FIELDS, ids=_labelled)
def test_trajectory_agrees_with_dop853(backend, spec):
    problem, params = _problem(spec)
    # A linear spline has kinks, which cost the solver accuracy.
    allowed = 1e-8 if spec.model == "mlp" or spec.spline_order > 1 else 1e-6
    difference = backend.solver(problem).trajectory(params) - _reference(problem, params)
    assert np.max(np.abs(difference)) <= allowed


@pytest.mark.julia
@pytest.mark.parametrize("spec", FIELDS, ids=_labelled)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_gradient_is_that_of_the_true_loss(backend, spec, share):
    """Against central differences of the DOP853 loss, along 4 directions."""
    problem, params = _problem(spec)
    loss, gradient = backend.solver(problem).value_and_grad(params, Subset(share=share))
    points = round(share * len(problem.saveat))
    assert loss == pytest.approx(_reference_loss(problem, params, points), rel=1e-6)
    rng = np.random.default_rng(4)
    kinks = spec.activation == "relu" or (spec.model == "kan" and spec.spline_order == 1)
    for _ in range(4):
        direction = rng.normal(size=len(params))
        step = 1e-5
        plus, minus = (_reference_loss(problem, params + s * step * direction, points) for s in (1, -1))
        allowed = (1e-2 if kinks else 1e-5) * np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(gradient @ direction - (plus - minus) / (2 * step)) <= allowed


@pytest.mark.julia
@pytest.mark.slow
@pytest.mark.parametrize("sensealg", SENSEALGS)
@pytest.mark.parametrize("spec", [FieldSpec("mlp", (2, 5, 2)), FieldSpec("kan", (2, 3, 2))], ids=_labelled)
def test_every_sensealg_gives_the_same_gradient(backend, spec, sensealg):
    problem, params = _problem(spec)
    loss, gradient = backend.solver(problem, "Replay").value_and_grad(params, Subset(share=0.67))
    try:
        solver = backend.solver(problem, sensealg)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert solver.method == sensealg
    other_loss, other = solver.value_and_grad(params, Subset(share=0.67))
    assert other_loss == pytest.approx(loss, rel=1e-9)
    assert np.linalg.norm(other - gradient) <= 1e-6 * np.linalg.norm(gradient)


@pytest.mark.julia
def test_initial_state_alone_has_no_gradient(backend):
    whole, params = _problem(FIELDS[0])
    (one,) = whole.series
    problem = replace(whole, series=(replace(one, saveat=one.saveat[:1], data=one.data[:1]),))
    loss, gradient = backend.solver(problem).value_and_grad(params)
    assert loss == pytest.approx(np.mean(((problem.u0 - problem.data[0]) / problem.loss_scale) ** 2), rel=1e-14)
    assert not gradient.any()


@pytest.mark.julia
def test_evaluations_of_the_field_are_counted_with_losses_and_states(backend):
    """Tsit5: six in each step, and three to begin with."""
    spec = FieldSpec("mlp", (2, 5, 2))
    params, times = spec.initial_parameters(0), np.linspace(0.5, 2.0, 4)
    solver = backend.solver(OdeProblem.single(spec, [1.0, 0.5], times, np.ones((4, 2)), t0=0.0))
    counts = [0]
    for ask in (solver.value_and_grad, solver.value_and_grad, lambda p: solver.value_and_grad_of(_sum_of, p)):
        ask(params)
        counts.append(solver.evaluations)
    first, *others = np.diff(counts)
    assert others == [first, first] and first % 6 == 3


def _sum_of(states):
    return sum(float(one.sum()) for one in states), [np.ones_like(one) for one in states]


@pytest.mark.julia
def test_trajectory_takes_times_and_tolerances_of_its_own(backend):
    problem, params = _problem(FIELDS[0], rtol=1e-3)
    solver = backend.solver(problem)
    times = np.array([0.0, 0.7, 2.5])
    coarse, fine = solver.trajectory(params, times), solver.trajectory(params, times, 1e-11, 1e-11)
    truth = _reference(OdeProblem.single(problem.field, problem.u0, times, np.zeros((3, 2))), params)
    assert np.max(np.abs(fine - truth)) < 1e-8 < np.max(np.abs(coarse - truth))
    assert np.array_equal(solver.trajectory(params, np.zeros(1)), problem.u0[None])


@pytest.mark.julia
@pytest.mark.parametrize("spec", [FIELDS[1], FIELDS[7]], ids=_labelled)
def test_loss_gradient_and_trajectory_do_not_depend_on_the_units(backend, spec):
    """The problem in nanoseconds since long ago, its components a millionth and a million times their size."""
    problem, params = _problem(spec)
    unit, time, t0 = np.array([1e-6, 1e6]), 1e-9, 1.0
    center, scale, rate = spec.normalisation()
    field = replace(spec, center=tuple(center * unit), scale=tuple(scale * unit), rate=tuple(rate * unit / time))
    rescaled = OdeProblem.single(
        field,
        problem.u0 * unit,
        t0 + problem.saveat * time,
        problem.data * unit,
        t0,
        problem.loss_scale * unit,
        problem.rtol,
        problem.atol,
        units=Units(np.zeros(2), unit, t0, time),
    )
    solver, other = backend.solver(problem), backend.solver(rescaled)
    (loss, gradient), (other_loss, other_gradient) = (s.value_and_grad(params) for s in (solver, other))
    assert other_loss == pytest.approx(
        loss, rel=1e-6
    )  # a time of 1 + 1e-9 is rounded to seven digits of its nanosecond
    assert np.linalg.norm(other_gradient - gradient) <= 1e-6 * np.linalg.norm(gradient)
    order = [3, 0, 2, 2]
    states = other.trajectory(params, rescaled.saveat[order]) / unit
    assert np.allclose(states, solver.trajectory(params)[order], rtol=0, atol=1e-6)
    u = np.random.default_rng(0).normal(size=(5, 2))
    assert np.allclose(other.rhs(u * unit, t0, params) * time / unit, solver.rhs(u, 0.0, params), rtol=1e-9)
    with pytest.raises(UsageError, match="expected finite times from 1.0 on"):
        other.trajectory(params, [0.5])


@pytest.mark.julia
def test_blow_up_and_too_many_steps_are_solve_errors(backend):
    problem, params = _problem(FieldSpec("mlp", (2, 4, 2), activation="relu"))
    solver = backend.solver(problem)
    for call in (solver.trajectory, solver.value_and_grad):
        with pytest.raises(SolveError):
            call(1e4 * np.abs(params))
    with pytest.raises(SolveError, match="needs more than 3 steps"):
        backend.solver(replace(problem, max_steps=3)).value_and_grad(params)
    assert np.isfinite(solver.value_and_grad(params)[0])  # the worker lives on


@pytest.mark.julia
def test_killed_worker_is_one_clear_line(backend):
    with JuliaBackend(may_download=False) as other:
        problem, params = _problem(FIELDS[0])
        solver = other.solver(problem)
        solver.value_and_grad(params)
        os.kill(other._process.pid, signal.SIGKILL)
        with pytest.raises(
            KansciError, match=r"^the Julia worker died while computing the gradient by Replay \(SIGKILL\)$"
        ):
            solver.value_and_grad(params)
