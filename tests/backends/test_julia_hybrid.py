"""Known terms and a network in Julia: the numbers of torch; marked `julia`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kansciml import SolveError, ode
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.torch import TorchOdeSolver
from kansciml.crosscheck import compare, training_allowed
from kansciml.models.hybrid_spec import HybridSpec, NetworkSpec, Physics
from kansciml.models.inputs import Inputs
from kansciml.models.units import Units

pytestmark = pytest.mark.julia
UNITS = Units(np.array([0.1, 0.2]), np.array([2.0, 0.5]), 0.0, 3.0)
T = np.linspace(0.0, 1.0, 6)


def forced(t, u, w, network, p):
    """Inputs, time, bounded parameters, and the network twice, once on its own output."""
    x, y = u[..., 0], u[..., 1]
    first = network(np.stack([x, y], axis=-1))
    second = network(np.stack([first[..., 0], x * t], axis=-1))
    one = p["a"] * x - first[..., 0] * np.sin(t) + second[..., 1] * w[..., 0] - p["c"] * x**2
    return np.stack([one, np.exp(-y * y) - np.abs(y) ** p["b"] + first[..., 1] * np.tanh(x)], axis=-1)


def free(t, u, network, p):
    x, y = u[..., 0], u[..., 1]
    eaten = network(x)[..., 0] * y
    return np.stack([p["a"] * x * (1 - x / p["b"]) - eaten, eaten - p["c"] * y], axis=-1)


PARAMETERS = {"a": 1.3, "b": 2.0, "c": 0.5}
BOUNDS = {"a": (0.0, np.inf), "b": (-np.inf, 7.0), "c": (0.0, 1.0)}


def problem_of(rhs, model, bounds, solver="5", units=None):
    inputs = int(rhs is forced)
    physics = Physics(rhs, 1 + inputs, PARAMETERS, BOUNDS if bounds else {})
    equations = physics.equations(2, inputs)
    scale, rate = (2.0,) * len(equations.calls[0]), (0.7,) * physics.outputs
    network = NetworkSpec(model, (len(scale), 4, len(rate)), scale=scale, rate=rate)
    rng = np.random.default_rng(0)
    series = [
        Series(
            [0.6, 0.4], T[1:], rng.normal(size=(5, 2)), learned=kind == "held",
            inputs=Inputs([0.0, 0.3, 0.7, 1.0], rng.normal(size=(4, 1)), kind) if inputs else None,
        )
        for kind in ("linear", "held")
    ]  # fmt: skip
    field = HybridSpec(network, equations, physics.sought(), inputs)
    problem = OdeProblem(field, series, None, 1e-10, 1e-10, units=units, solver=solver)
    return problem, problem.initial_parameters(1) + 0.1 * rng.normal(size=problem.n_parameters)


CASES = [
    (free, "kan", False, "5", None),
    (free, "mlp", True, "5", UNITS),
    (forced, "kan", True, "5", UNITS),
    (forced, "mlp", False, "8", None),
    (forced, "mlp", True, "stiff", None),
]


@pytest.mark.parametrize("case", CASES)
def test_all_gates_between_torch_and_julia_pass(julia, case):
    problem, params = problem_of(*case)
    solvers = TorchOdeSolver(problem), julia.solver(problem)
    training = ode.FlatTraining(adam_steps=20)
    gates = list(compare(*solvers, "known terms", params, training, training_allowed(problem, params, training)))
    assert {gate.number for gate in gates} == set(range(1, 7)) and [gate for gate in gates if not gate.passed] == []


def test_the_solvers_that_are_not_replayed_differentiate_known_terms(julia):
    problem, params = problem_of(forced, "mlp", True)
    loss, gradient = TorchOdeSolver(problem).value_and_grad(params)
    for solver, sensealg in (("5", "ForwardDiff"), ("FBDF", None)):
        other_loss, other = julia.solver(replace(problem, solver=solver), sensealg).value_and_grad(params)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        np.testing.assert_allclose(other, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())


def test_a_term_that_is_not_defined_is_a_solve_error(julia):
    physics = Physics(lambda t, u, network, p: np.sqrt(u - 2.0) * network(u))
    field = HybridSpec(NetworkSpec("mlp", (2, 3, 1)), physics.equations(2, 0))
    problem = OdeProblem(field, (Series([1.0, 1.0], T[1:], np.ones((5, 2))),))
    with pytest.raises(SolveError):
        julia.solver(problem).value_and_grad(np.zeros(field.n_parameters))


def test_a_training_estimates_what_torch_estimates(julia, tmp_path):
    physics = Physics(free, 1, {"a": 1.0, "b": 20.0, "c": 2.0}, dict.fromkeys("abc", (0.0, np.inf)))
    system = replace(ode.get_system("lotka"), name="half_known", physics=physics)
    settings = {
        "training": ode.FlatTraining(adam_steps=20, lbfgs_steps=5),
        "hidden": (2,),
        "rtol": 1e-10,
        "atol": 1e-10,
    }
    here, there = (ode.train(system, "kan", backend=backend, **settings) for backend in ("torch", julia))
    assert here.estimates == pytest.approx(there.estimates, rel=1e-4)
    loaded = ode.load(there.save(tmp_path / "model"), backend=julia)
    assert loaded.estimates == there.estimates
    np.testing.assert_array_equal(loaded.trajectory([0.0, 2.0]), there.trajectory([0.0, 2.0]))
