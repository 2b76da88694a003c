"""What is minimised and what a training ends in are the same in Julia as in torch; marked `julia`."""

from __future__ import annotations

import numpy as np
import pytest

from kansciml import ode
from kansciml.backends.base import Subset
from kansciml.backends.julia import JuliaBackend
from kansciml.backends.torch import TorchOdeSolver
from kansciml.crosscheck import cases_of, crosscheck_case, gates_in_julia
from kansciml.tasks.ode.fitting.config import FitConfig, Part
from kansciml.tasks.ode.fitting.objective import Objective
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system

pytestmark = pytest.mark.julia
LOTKA = get_system("lotka")
CASES = {case.name: case for case in cases_of(make_problem(LOTKA, make_field(LOTKA, "mlp"), 1e-10, 1e-10))}


def squares(states, measured):
    return sum((one.weights * (u - one.states.nan_to_num())).pow(2).sum() for u, one in zip(states, measured))


@pytest.mark.parametrize("own", [None, squares])
def test_minibatches_of_windows_have_the_loss_and_the_gradient_of_torch(julia, own):
    problem, params = CASES["several"].problem, CASES["several"].params
    here, there = (
        Objective([solver], FitConfig(l1=1e-3), own) for solver in (TorchOdeSolver(problem), julia.solver(problem))
    )
    for subset in (Subset(), Subset((1,)), Subset((0, 2), 0.7)):
        (loss, gradient), (other, slope) = (objective(params, Part(subset, 0)) for objective in (here, there))
        assert other == pytest.approx(loss, rel=1e-8)
        np.testing.assert_allclose(slope, gradient, rtol=0, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("name", CASES)
def test_all_gates_of_a_case_pass(julia, name):
    gates = list(crosscheck_case(CASES[name], name, julia))
    assert [gate for gate in gates if not gate.passed] == []
    assert {gate.number for gate in gates if "julia" in gate.pair} == {1, 2, 3, 4, 5, 6}


def test_the_lux_model_and_other_threads_give_the_loss_and_gradient_of_the_kernels(julia):
    with JuliaBackend(may_download=False, threads=3 - min(julia.versions["threads"], 2)) as other:
        assert other.versions["threads"] != julia.versions["threads"]
        gates = [
            gate
            for model in ("mlp", "kan")
            for gate in gates_in_julia(LOTKA, make_field(LOTKA, model, match="params"), julia, other)
        ]
    assert [gate for gate in gates if not gate.passed] == []
    assert [gate.number for gate in gates] == 2 * [7, 7, 8, 8]


def test_a_training_by_windows_with_learned_starts_takes_the_steps_of_torch(julia):
    settings = {
        "training": ode.FlatTraining(adam_steps=30, lbfgs_steps=0), "model": "mlp", "hidden": (6,), "rtol": 1e-10,
        "atol": 1e-10, "learn_u0": True, "shooting": 8, "batch_trajectories": 2,
    }  # fmt: skip
    here, there = (ode.train("lotka", backend=backend, **settings) for backend in ("torch", julia))
    np.testing.assert_allclose(there.fit.history["loss"], here.fit.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(there.initial_states, here.initial_states, rtol=1e-4)
