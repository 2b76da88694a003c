"""The six gates: all pass within torch, and each fails when its quantity is broken."""

import numpy as np
import pytest

from kansciml.backends.torch import TorchOdeSolver
from kansciml.crosscheck import (
    Gate,
    ReferenceSolver,
    compare,
    compare_with_reference,
    crosscheck,
    crosscheck_field,
    loss_allowed,
)
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system


class Broken:
    """A solver with one deliberate fault, each just above what its gate allows."""

    def __init__(self, problem, fault):
        self.solver, self.fault, self.calls = TorchOdeSolver(problem), fault, 0
        self.problem, self.backend, self.method = problem, "torch", f"broken {fault}"

    def rhs(self, u, t, params):
        return self.solver.rhs(u, t, params) * (1 + 1e-11 * (self.fault == "rhs"))

    def trajectory(self, params, *args):
        return self.solver.trajectory(params, *args) + 2e-7 * (self.fault == "trajectory")

    def value_and_grad(self, params, subset=None):
        loss, gradient = self.solver.value_and_grad(params, subset)
        self.calls += 1
        worst = np.argmax(np.abs(gradient))
        if self.fault == "loss":
            loss *= 1 + 1e-8
        elif self.fault == "gradient":
            gradient[worst] *= 1 + 1e-5
        elif self.fault == "training" and self.calls > 3:
            gradient[worst] *= -1
        elif self.fault == "trained loss" and self.calls > 21:
            loss *= 1 + 1e-5
        return loss, gradient

    def close(self):
        self.solver.close()


@pytest.mark.parametrize("model", ["mlp", "kan"])
def test_every_gate_passes_within_torch(model):
    gates = crosscheck("lotka", model)
    assert {gate.number for gate in gates} == {1, 2, 3, 4, 5, 6}
    assert [gate for gate in gates if not gate.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("system", ["fitzhugh", "rigid", "spiral", "pleiades"])
def test_every_gate_passes_on_the_other_systems(system):
    system = get_system(system)
    gates = list(crosscheck_field(system, make_field(system, "mlp", hidden=(5,))))
    assert len(gates) > 6 and all(gate.passed for gate in gates), gates


FAULTS = [("rhs", 1), ("trajectory", 2), ("loss", 3), ("gradient", 4), ("training", 5), ("trained loss", 6)]


@pytest.fixture(scope="module")
def small_problem():
    system = get_system("lotka")
    return system, make_problem(system, make_field(system, "mlp", hidden=(5,)), 1e-10, 1e-10)


@pytest.mark.parametrize("fault, number", FAULTS)
def test_a_broken_backend_fails_its_gate_against_a_good_one(small_problem, fault, number):
    system, problem = small_problem
    params = problem.field.initial_parameters(0)
    gates = compare(Broken(problem, fault), TorchOdeSolver(problem), system, params)
    assert number in {gate.number for gate in gates if not gate.passed}


@pytest.mark.parametrize("fault, number", FAULTS[:4])
def test_a_broken_backend_fails_its_gate_against_the_reference(small_problem, fault, number):
    system, problem = small_problem
    params = problem.field.initial_parameters(0)
    gates = compare_with_reference(Broken(problem, fault), ReferenceSolver(problem), system, params)
    assert number in {gate.number for gate in gates if not gate.passed}


def test_nan_does_not_pass():
    assert not Gate("s", "m", "p", 1, "q", float("nan"), 1.0).passed


def test_near_an_optimum_the_loss_gate_follows_the_trajectory():
    assert loss_allowed(1.0, 1e-12, np.ones(2)) == 1e-9
    assert loss_allowed(1e-8, 1e-9, np.ones(2)) == pytest.approx(2e-5, rel=1e-4)
