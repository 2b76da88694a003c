"""The C++ engine: the steps, states and gradients of the NumPy engine, by itself against closed forms, its failures."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from kansciml import SolveError
from kansciml.backends._engines import native
from kansciml.backends._engines.native import NativeEngine
from kansciml.backends._engines.replay import ExplicitEngine
from kansciml.backends._engines.tableaus import TABLEAUS
from kansciml.backends._kernels import bind
from kansciml.backends.base import OdeProblem, Piece, Series, Subset
from kansciml.backends.torch import TorchOdeSolver
from kansciml.layers._native import build
from kansciml.models.field_spec import ACTIVATIONS, FieldSpec
from kansciml.models.inputs import Inputs

AFFINE = {"center": (0.3, -0.2), "scale": (1.7, 0.9), "rate": (2.0, 0.5)}
DRIVEN = {"center": (0.1, 0.2, 0.0, -0.1, 1.0), "scale": (1.5, 2.0, 1.0, 0.7, 3.0), "inputs": 2, "time": True}
SPECS = [
    *(FieldSpec("mlp", (2, 5, 2), activation=name, **AFFINE) for name in ACTIVATIONS),
    FieldSpec("mlp", (2, 2)),
    FieldSpec("mlp", (2, 40, 19, 2), squash=True, input_power=3, **AFFINE),
    FieldSpec("mlp", (12, 9, 12)),
    FieldSpec("mlp", (5, 9, 2), **DRIVEN),
    FieldSpec("kan", (2, 4, 2), **AFFINE),
    FieldSpec("kan", (2, 2), grid=1, spline_order=1),
    FieldSpec("kan", (2, 3, 19, 2), grid=7, spline_order=2, grid_range=(-2.0, 1.0), squash=True, **AFFINE),
    FieldSpec("kan", (2, 3, 2), spline_order=4, input_power=3, squash=True, scale=(3.0, 3.0)),
    FieldSpec("kan", (12, 9, 12), spline_order=5),
    FieldSpec("kan", (5, 4, 2), **DRIVEN),
]
SETTINGS = (1e-7, 1e-7, 20_000)


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    """A library of the portable code alone, built now; the installed one has the processor's instruction set."""
    if build.find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", ("-O0", *build.FLAGS[1:]))
        return native.load(build.build(build.ODE, tmp_path_factory.mktemp("native"), instruction_sets=()))


@pytest.fixture(params=["built here, portable", "installed"])
def library(request, monkeypatch):
    if request.param == "installed":
        path = build.library_path(build.ODE)
        if not path.exists() or path.stat().st_mtime < max(p.stat().st_mtime for p in build.ODE.parent.glob("*.[ch]*")):
            pytest.skip("no C++ kernels are installed, or older ones than their source")
        found = native.load(path)
    else:
        found = request.getfixturevalue("portable")
    monkeypatch.setattr(native, "_loaded", lambda: (found, "built for a test"))


def numpy_engine(spec: FieldSpec) -> ExplicitEngine:
    return ExplicitEngine(lambda params: bind(spec, params), TABLEAUS["dopri5"])


def parameters(spec: FieldSpec, seed: int = 1) -> np.ndarray:
    return spec.initial_parameters(seed) + 0.1 * np.random.default_rng(seed).standard_normal(spec.n_parameters)


def pieces(spec: FieldSpec, count: int = 11) -> list[Piece]:
    """More than are solved side by side, of different starts, times and inputs."""
    rng, found = np.random.default_rng(2), []
    for k in range(count):
        t0 = 0.1 * k
        saveat = t0 + np.sort(rng.uniform(0, 1 + 0.2 * (k % 3), 2 + k))
        knots = np.append(np.linspace(t0 - 0.1, saveat[-1], 4 + k % 3), saveat[-1] + 1)
        kind, values = ("linear", "held")[k % 2], rng.normal(size=(len(knots), spec.inputs))
        saveat[0] = t0 if k % 3 else saveat[0]
        inputs = Inputs(knots, values, kind) if spec.inputs else None
        found.append(Piece(rng.normal(size=spec.state_size), t0, saveat, inputs))
    return found


def identify(spec):
    return f"{spec.label()} {spec.activation} squash={spec.squash} power={spec.input_power}"


@pytest.mark.parametrize("spec", SPECS, ids=identify)
def test_steps_states_and_gradients_are_those_of_the_numpy_engine(library, spec):
    params, own = parameters(spec), pieces(spec)
    ours, theirs = (engine.solve(params, own, *SETTINGS, True) for engine in (NativeEngine(spec), numpy_engine(spec)))
    assert (ours.accepted, ours.rejected) == (len(theirs.steps.h), theirs.steps.rejected)
    # Across a kink the error estimate, and so the next step, hangs on the last bits of the field.
    near = 1e-7 if spec.activation == "relu" else 1e-12
    for got, expected in zip(ours.states, theirs.states, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=near)
    cotangents = [np.random.default_rng(3).standard_normal(states.shape) for states in theirs.states]
    for got, expected in zip(ours.pull(cotangents), theirs.pull(cotangents), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=100 * near * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["linear", "held"])
@pytest.mark.parametrize("model, widths", [("mlp", (3, 6, 1)), ("kan", (3, 2, 1))])
def test_gradient_equals_central_differences(library, kind, model, widths):
    spec = FieldSpec(model, widths, inputs=1, time=True)
    inputs = Inputs(np.array([0.0, 0.7, 0.9, 2.0]), np.array([[1.0], [-2.0], [0.5], [0.0]]), kind)
    saveat, engine = np.array([0.0, 0.3, 0.7, 1.2, 2.0]), NativeEngine(spec)
    cotangents = [np.random.default_rng(k).standard_normal((5, 1)) for k in (0, 1)]

    def solve(numbers, gradient=False):
        own = [Piece(start, 0.0, saveat, inputs) for start in numbers[-2:, None]]
        return engine.solve(numbers[:-2].copy(), own, 1e-11, 1e-11, 20_000, gradient)

    def value(numbers):
        return sum(np.sum(c * states) for c, states in zip(cotangents, solve(numbers).states))

    numbers = np.append(parameters(spec), [0.2, -0.4])
    gradient = np.concatenate([part.ravel() for part in solve(numbers, True).pull(cotangents)])
    for direction in np.random.default_rng(5).standard_normal((3, len(numbers))):
        slope = (value(numbers + 1e-4 * direction) - value(numbers - 1e-4 * direction)) / 2e-4
        assert slope == pytest.approx(gradient @ direction, rel=5e-6)  # splines bend within the difference


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_slopes_are_good_to_the_last_digits(library, activation):
    # With du/dt = act(b) of constant biases b, u(1) is act(b), and its gradient act'(b).
    b = np.concatenate([-np.geomspace(1e-12, 800, 60), np.linspace(-6, 6, 81), np.geomspace(1e-12, 800, 60)])
    n = len(b)
    spec = FieldSpec("mlp", (n, n, n), activation=activation)
    params = np.concatenate([np.zeros(n * n), b, np.eye(n).ravel(), np.zeros(n)])
    solved = NativeEngine(spec).solve(params, [Piece(np.zeros(n), 0.0, np.ones(1))], 1e-3, 1e3, 100, True)
    x = torch.tensor(b, requires_grad=True)
    y = x * torch.special.ndtr(x) if activation == "gelu" else getattr(torch.nn.functional, activation)(x)
    y.sum().backward()
    np.testing.assert_allclose(solved.states[0][0], y.detach(), rtol=4e-15, atol=2e-16)  # sums round, too
    grad = solved.pull([np.ones((1, n))])[0]
    np.testing.assert_allclose(grad[n * n : n * n + n], x.grad, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[-1]], ids=identify)
def test_a_piece_does_not_depend_on_the_others(library, spec):
    engine, params, own = NativeEngine(spec), parameters(spec), pieces(spec, 20)
    together = engine.solve(params, own, *SETTINGS, True)
    cotangents = [np.ones_like(states) for states in together.states]
    grad, starts = together.pull(cotangents)
    total = 0.0
    for one, states, cotangent, start in zip(own, together.states, cotangents, starts):
        alone = engine.solve(params, [one], *SETTINGS, True)
        np.testing.assert_array_equal(alone.states[0], states)
        part, own_start = alone.pull([cotangent])
        np.testing.assert_array_equal(own_start[0], start)
        total = total + part
    np.testing.assert_allclose(total, grad, rtol=1e-12, atol=1e-12 * np.abs(grad).max())


@pytest.fixture
def threads():
    """Sets how many threads torch has."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def fitted(spec: FieldSpec, count: int) -> OdeProblem:
    """Series with gaps and weights, more than a group of them."""
    rng, found = np.random.default_rng(4), []
    for k, one in enumerate(pieces(spec, count)):
        data = rng.normal(size=(len(one.saveat), spec.state_size))
        data[k % len(data), 0] = np.nan
        weights = rng.uniform(size=data.shape) if k % 2 else None
        found.append(Series(one.start, one.saveat, data, one.t0, weights, one.inputs, learned=k == 3))
    return OdeProblem(spec, tuple(found), loss_scale=np.linspace(0.5, 2.0, spec.state_size))


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[-1]], ids=identify)
def test_results_do_not_depend_on_the_number_of_threads(library, threads, spec):
    solver, own = TorchOdeSolver(fitted(spec, 20)), pieces(spec, 20)
    params, cotangents = solver.problem.initial_parameters(1), [np.ones((len(one.saveat), 2)) for one in own]
    found = []
    for count in (1, 2, 3, 8):
        threads(count)
        solved = NativeEngine(spec).solve(params[:-2].copy(), own, *SETTINGS, True)
        found.append([*solver.value_and_grad(params), *solved.states, *solved.pull(cotangents)])
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[9], SPECS[-1]], ids=identify)
def test_loss_and_gradient_in_one_call_are_those_of_a_solve_and_a_pull(library, spec):
    problem = fitted(spec, 11)
    solver, subset = TorchOdeSolver(problem), Subset(series=(9, 3, 1, 0, 4, 5, 6, 7, 8), share=0.7)
    params = problem.initial_parameters(1)

    def loss(states):
        total, size, by_states = 0.0, 0.0, []
        for k, u in zip(subset.series, states, strict=True):
            one = problem.series[k]
            weights = np.ones_like(one.data) if one.weights is None else one.weights
            weights = np.where(np.isnan(one.data), 0.0, weights)[: len(u)]
            residual = (u - np.nan_to_num(one.data[: len(u)])) / problem.loss_scale
            total, size = total + np.sum(weights * residual**2), size + weights.sum()
            by_states.append(2 * weights * residual / problem.loss_scale)
        return total / size, [g / size for g in by_states]

    for got, expected in zip(solver.value_and_grad(params, subset), solver.value_and_grad_of(loss, params, subset)):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


def test_solutions_that_live_at_once_keep_their_own_steps_and_give_them_back(library, threads):
    threads(1)
    spec = SPECS[0]
    engine, own = NativeEngine(spec), pieces(spec)
    first, second = (engine.solve(parameters(spec, seed), own, *SETTINGS, True) for seed in (1, 2))
    cotangents = [np.ones_like(states) for states in first.states]
    late = first.pull(cotangents)[0]
    del first, second
    assert len(engine.idle) == 2
    again = engine.solve(parameters(spec, 1), own, *SETTINGS, True)
    np.testing.assert_array_equal(again.pull(cotangents)[0], late)
    assert len(engine.idle) == 1


def test_threads_may_share_an_engine(library):
    spec = SPECS[9]
    engine, own = NativeEngine(spec), pieces(spec)
    cotangents = [np.ones((len(one.saveat), 2)) for one in own]

    def gradient(seed):
        return engine.solve(parameters(spec, seed), own, *SETTINGS, True).pull(cotangents)[0]

    expected = [gradient(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(gradient, range(8)), expected):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    "start, t_end, max_steps", [(1.0, 2.0, 20_000), (1.0, 0.9, 20), (np.nan, 1.0, 20_000)], ids=["pole", "steps", "nan"]
)
def test_failures_are_those_of_the_numpy_engine(library, start, t_end, max_steps):
    spec = FieldSpec("mlp", (1, 1, 1), activation="relu", input_power=3)  # du/dt = u^3 of u > 0
    own = [Piece(np.array([0.5]), 0.0, np.ones(1)), Piece(np.array([start]), 0.0, np.array([t_end]))]
    params, told = np.array([1.0, 0.0, 1.0, 0.0]), []
    for engine in (NativeEngine(spec), numpy_engine(spec)):
        with pytest.raises(SolveError) as error:
            engine.solve(params, own, 1e-8, 1e-8, max_steps, True)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_a_wide_field_with_many_steps_keeps_them_all(library):
    spec = FieldSpec("mlp", (1, 3000, 1))
    params = spec.initial_parameters(0)
    own = [Piece(np.array([0.3]), 0.0, np.linspace(0, 20, 4))]
    ours, theirs = (engine.solve(params, own, *SETTINGS, True) for engine in (NativeEngine(spec), numpy_engine(spec)))
    cotangents = [np.ones((4, 1))]
    np.testing.assert_allclose(ours.pull(cotangents)[0], theirs.pull(cotangents)[0], rtol=1e-9, atol=1e-12)


def test_the_torch_backend_takes_it_where_it_runs(library, monkeypatch):
    one = Series(np.ones(2), np.array([0.5, 1.0]), np.zeros((2, 2)), 0.0)
    problem = OdeProblem(SPECS[9], (one,))
    params, solver = parameters(SPECS[9]), TorchOdeSolver(problem)
    assert isinstance(solver._engine, NativeEngine)
    monkeypatch.setattr(native, "_loaded", lambda: (None, "not built"))
    other = TorchOdeSolver(problem)
    assert isinstance(other._engine, ExplicitEngine)
    for got, expected in zip(solver.value_and_grad(params), other.value_and_grad(params)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    assert not native.runs(SPECS[9])


def test_what_is_not_compiled_runs_in_numpy(library):
    assert not native.runs(FieldSpec("kan", (2, 3, 2), spline_order=6))
    one = Series(np.ones(2), np.array([0.5, 1.0]), np.zeros((2, 2)), 0.0)
    assert isinstance(TorchOdeSolver(OdeProblem(SPECS[0], (one,), solver="8"))._engine, ExplicitEngine)


def test_a_library_built_from_another_source_is_refused(library, monkeypatch, portable):
    monkeypatch.setattr(native, "_INTERFACE", native._INTERFACE + 1)
    with pytest.raises(OSError, match="another version of its source"):
        native.load(Path(portable._name))
