"""The six gates: all pass within torch, and each fails when its quantity is broken."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from kansciml import SolveError
from kansciml.backends.torch import TorchOdeSolver
from kansciml.crosscheck import (
    Gate,
    ReferenceSolver,
    cases_of,
    compare,
    compare_with_reference,
    crosscheck,
    crosscheck_case,
    crosscheck_field,
    loss_allowed,
)
from kansciml.crosscheck.collocation import solve_stiff
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system


class Broken:
    """A solver with one deliberate fault, each just above what its gate allows."""

    def __init__(self, problem, fault):
        self.solver, self.fault, self.calls = TorchOdeSolver(problem), fault, 0
        self.problem, self.backend, self.method = problem, "torch", f"broken {fault}"

    def rhs(self, u, t, params, inputs=None):
        return self.solver.rhs(u, t, params, inputs) * (1 + 1e-11 * (self.fault == "rhs"))

    def trajectory(self, params, *args, **kwargs):
        return self.solver.trajectory(params, *args, **kwargs) + 2e-7 * (self.fault == "trajectory")

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


def failed(gates):
    return [gate for gate in gates if not gate.passed]


def first_part(name, share):
    """A built-in system with the first share of its training data, whose solvers' work is as much less."""
    system = get_system(name)
    times = system.train_saveat[: int(share * len(system.train_saveat))]
    return replace(system, train_saveat=times, train_end=float(times[-1]), test_end=None, test_saveat=None)


@pytest.mark.parametrize("model", ["mlp", pytest.param("kan", marks=pytest.mark.slow)])
def test_every_gate_passes_within_torch(model):
    gates = crosscheck(first_part("lotka", 0.4), model, further=False)
    assert {gate.number for gate in gates} == {1, 2, 3, 4, 5, 6}
    assert not failed(gates)


@pytest.mark.parametrize("name", ["several", "inputs", "stiff"])
@pytest.mark.parametrize("model", ["kan", pytest.param("mlp", marks=pytest.mark.slow)])
def test_gates_of_several_trajectories_of_inputs_and_of_stiff_fields_pass_within_torch(model, name):
    system = get_system("lotka")
    problem = make_problem(system, make_field(system, model, match="params"), 1e-10, 1e-10)
    found = {case.name: case for case in cases_of(problem)}
    assert set(found) == {"several", "inputs", "stiff"}
    gates = list(crosscheck_case(found[name], name))
    assert {gate.number for gate in gates} == {1, 2, 3, 4}
    assert not failed(gates)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["fitzhugh", "rigid", "spiral", "pleiades"])
def test_every_gate_passes_on_the_other_systems(system):
    system = first_part(system, 0.3)
    gates = list(crosscheck_field(system, make_field(system, "mlp", hidden=(5,))))
    assert len(gates) > 20 and not failed(gates)


FAULTS = [("rhs", 1), ("trajectory", 2), ("loss", 3), ("gradient", 4), ("training", 5), ("trained loss", 6)]


@pytest.fixture(scope="module")
def small_problem():
    system = get_system("lotka")
    return system, make_problem(system, make_field(system, "mlp", hidden=(5,)), 1e-10, 1e-10)


@pytest.mark.parametrize("fault, number", FAULTS)
def test_a_broken_backend_fails_its_gate_against_a_good_one(small_problem, fault, number):
    system, problem = small_problem
    params = problem.field.initial_parameters(0)
    gates = compare(Broken(problem, fault), TorchOdeSolver(problem), system.name, params)
    assert number in {gate.number for gate in gates if not gate.passed}


@pytest.mark.parametrize("fault, number", FAULTS[:4])
def test_a_broken_backend_fails_its_gate_against_the_reference(small_problem, fault, number):
    system, problem = small_problem
    params = problem.field.initial_parameters(0)
    gates = compare_with_reference(Broken(problem, fault), ReferenceSolver(problem), system.name, params)
    assert number in {gate.number for gate in gates if not gate.passed}


def first_with(problem, **changes):
    return replace(problem, series=(replace(problem.series[0], **changes), *problem.series[1:]))


def with_inputs(problem, **changes):
    """The last series with other inputs."""
    *others, last = problem.series
    return replace(problem, series=(*others, replace(last, inputs=replace(last.inputs, **changes))))


WRONG = {
    "weights are left out": ("several", lambda p: first_with(p, weights=None), {3}),
    "a gap is filled": ("several", lambda p: first_with(p, data=np.nan_to_num(p.series[0].data)), {3}),
    "links count otherwise": ("several", lambda p: replace(p, continuity=2.0), {3}),
    "a held input is taken as linear": ("inputs", lambda p: with_inputs(p, kind="linear"), {2}),
    "knots are off by a thousandth": ("inputs", lambda p: with_inputs(p, t=p.series[1].inputs.t * 1.001), {2}),
    "the time counts from elsewhere": (
        "inputs", lambda p: replace(p, field=replace(p.field, center=(*p.field.center[:-1], 9.0))), {1, 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_a_backend_gets_wrong_in_a_case_fails_its_gates(small_problem, fault):
    name, wrong, expected = WRONG[fault]
    case = next(case for case in cases_of(small_problem[1]) if case.name == name)
    solver = TorchOdeSolver(wrong(case.problem))
    gates = compare_with_reference(solver, ReferenceSolver(case.problem), "s", case.params, 0, explained=True)
    assert {gate.number for gate in gates if not gate.passed} == expected


def test_nan_does_not_pass():
    assert not Gate("s", "m", "p", 1, "q", float("nan"), 1.0).passed


def test_near_an_optimum_the_loss_gate_follows_the_trajectory():
    assert loss_allowed(1.0, 1e-12, np.ones(2)) == 1e-9
    assert loss_allowed(1e-8, 1e-9, np.ones(2)) == pytest.approx(2e-5, rel=1e-4)


def kinetics(t, u):
    """Robertson's equations and their Jacobians at states (B, 3)."""
    zero, fast, slow = np.zeros(len(u)), 6e7 * u[:, 1], np.full(len(u), 0.04)
    rows = [-slow, 1e4 * u[:, 2], 1e4 * u[:, 1]], [slow, -1e4 * u[:, 2] - fast, -1e4 * u[:, 1]], [zero, fast, zero]
    return get_system("robertson").rhs(0.0, u), np.moveaxis(np.array(rows), 2, 0)


def test_the_stiff_reference_agrees_with_another_integrator_on_robertsons_kinetics():
    times, start = np.geomspace(1e-5, 1e5, 11), np.array([1.0, 0.0, 0.0])
    states = solve_stiff(kinetics, 0.0, start, times, 1e-11)
    truth = solve_ivp(get_system("robertson").rhs, (0, 1e5), start, "LSODA", times, rtol=1e-12, atol=1e-17).y.T
    np.testing.assert_allclose(states, truth, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(states, solve_stiff(kinetics, 0.0, start, times, 1e-13), rtol=1e-12)
    np.testing.assert_allclose(states.sum(1), 1.0, rtol=1e-14)


def test_the_stiff_reference_has_closed_forms_and_says_where_it_ends():
    def layer(t, u):  # u' = -1e6 (u - cos t) - sin t
        return -1e6 * (u - np.cos(t)[:, None]) - np.sin(t)[:, None], np.full((len(u), 1, 1), -1e6)

    times = np.array([1e-6, 3.0, 20.0])
    found = solve_stiff(layer, 0.0, np.array([2.0]), times, 1e-12)
    np.testing.assert_allclose(found[:, 0], np.cos(times) + np.exp(-1e6 * times), atol=1e-13)
    with pytest.raises(SolveError, match="does not get beyond t = 1"):
        solve_stiff(lambda t, u: (u * u, 2 * u[:, None]), 0.0, np.ones(1), np.array([2.0]), 1e-9)


@pytest.fixture(scope="module")
def stiff_problem():
    system = get_system("robertson")
    return make_problem(system, make_field(system, "mlp", hidden=(4,)), 1e-10, 1e-10)


def test_gates_against_the_reference_pass_on_a_stiff_system_and_see_a_fault(stiff_problem):
    params, reference = stiff_problem.initial_parameters(0), ReferenceSolver(stiff_problem)
    gates = list(compare_with_reference(TorchOdeSolver(stiff_problem), reference, "s", params, 0, explained=True))
    assert {gate.number for gate in gates} == {1, 2, 3} and not failed(gates)
    coarse = TorchOdeSolver(replace(stiff_problem, rtol=1e-5, atol=1e-5))
    assert {gate.number for gate in failed(compare_with_reference(coarse, reference, "s", params, 0))} == {2, 3}


@pytest.mark.slow
def test_every_gate_passes_on_a_stiff_system():
    system = first_part("robertson", 0.6)
    gates = list(crosscheck_field(system, make_field(system, "mlp", hidden=(4,))))
    assert {gate.number for gate in gates} == {1, 2, 3, 4, 5, 6} and not failed(gates)
