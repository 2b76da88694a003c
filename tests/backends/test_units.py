"""Problems in units of their own: the same loss, gradient, slopes and trajectories, whatever the user's units are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kansciml import SolveError, UsageError
from kansciml.backends.base import OdeProblem, Series
from kansciml.backends.julia import JuliaOdeSolver
from kansciml.backends.torch import GRADIENTS, ModuleField, TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField
from kansciml.models.units import BITS, Units, to_digits, to_places

UNITS = Units(np.array([3.0, -2e6]), np.array([0.5, 1e7]), t0=2.0, time=1e-3)
SPECS = [
    FieldSpec("mlp", (2, 8, 2), center=(3.1, 0.0), scale=(0.4, 2e7), rate=(500.0, 1e10)),
    FieldSpec("mlp", (2, 4, 2), scale=(4.0, 1e7), rate=(300.0, 2e9), squash=True, input_power=3),
    FieldSpec("kan", (2, 3, 2), center=(2.9, -1e6), scale=(0.6, 3e7), rate=(100.0, 1e9)),
]
T = UNITS.t0 + np.array([0.0, 1e-4, 5e-4, 1e-3])


class Decay(nn.Module):
    """du/dt = -rate u + drive sin(2000 (t - 2)): it depends on time, and its slopes are in the user's units."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([300.0, 200.0]))
        self.register_buffer("drive", torch.tensor([1e3, 1e10]))

    def forward(self, t, u):
        return -self.rate * u + self.drive * torch.sin(2000 * (t - 2.0))


def problem(field, units=UNITS, tolerance=1e-10):
    data = np.stack([3.0 + 0.1 * np.arange(4), 1e6 * np.arange(4)], axis=1)
    u0, loss_scale = np.array([3.2, 1e6]), np.array([0.2, 5e6])
    return OdeProblem.single(field, u0, T, data, UNITS.t0, loss_scale, tolerance, tolerance, units=units)


@pytest.mark.parametrize("spec", SPECS, ids=FieldSpec.label)
def test_a_field_in_units_has_the_slopes_of_the_original(spec):
    params = spec.initial_parameters(0)
    v = np.random.default_rng(0).normal(size=(20, 2))
    original, own = (VectorField(s).load_flat(params) for s in (spec, spec.in_units(UNITS)))
    expected = original(None, torch.from_numpy(UNITS.states_out(v))).detach().numpy() * UNITS.time / UNITS.state
    np.testing.assert_allclose(own(None, torch.from_numpy(v)).detach(), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("field", [*SPECS, "module"], ids=["mlp", "tanh", "kan", "module"])
def test_loss_gradient_and_trajectory_do_not_depend_on_the_units(field, gradient):
    fields = [ModuleField(Decay(), 2) if field == "module" else field for _ in range(2)]
    own, plain = (TorchOdeSolver(problem(f, u), gradient) for f, u in zip(fields, (UNITS, None)))
    params = fields[0].initial_parameters(1)
    (loss, grad), (expected, expected_grad) = own.value_and_grad(params), plain.value_and_grad(params)
    assert loss == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-5, atol=1e-5 * np.abs(expected_grad).max())
    np.testing.assert_allclose(own.trajectory(params), plain.trajectory(params), rtol=1e-7)
    u = plain.trajectory(params)
    for t in (UNITS.t0 + 2e-4, T):
        np.testing.assert_allclose(own.rhs(u, t, params), plain.rhs(u, t, params), rtol=1e-9)


def test_slopes_are_those_of_the_time_asked_for():
    solver = TorchOdeSolver(problem(ModuleField(Decay(), 2)))
    u = np.array([[3.0, 1e6], [2.0, 2e6]])
    for t in (np.full(2, UNITS.t0 + 2e-4), np.array([UNITS.t0, UNITS.t0 + 7e-4])):
        expected = -np.array([300.0, 200.0]) * u + np.array([1e3, 1e10]) * np.sin(2000 * (t - 2.0))[:, None]
        np.testing.assert_allclose(solver.rhs(u, t, np.array([300.0, 200.0])), expected, rtol=1e-12)
    with pytest.raises(UsageError, match="one for each of 2 states"):
        solver.rhs(u, np.zeros(3), np.array([300.0, 200.0]))


def test_another_unit_gives_the_same_problem_bit_by_bit():
    rng = np.random.default_rng(0)
    t, data = np.cumsum(rng.random(40)), rng.normal(size=(40, 2))

    def inner(state, time, spec=SPECS[0]):
        units = Units(0.1 * np.asarray(state), 1.5 * np.asarray(state), t[0] * time, (t[-1] - t[0]) * time)
        return OdeProblem.single(
            replace(spec, center=tuple(units.origin), scale=tuple(units.state), rate=tuple(state / time)),
            data[0] * state, t * time, data * state, units.t0, 0.7 * state, units=units,
        ).in_own_units()  # fmt: skip

    first, second = inner(np.ones(2), 1.0), inner(np.array([1e-12, 3e9]), 1e-7)
    assert first.field == second.field
    for name in ("u0", "saveat", "data", "loss_scale"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.t0, second.t0) == (0.0, 0.0)


def test_rounding_is_far_below_the_tolerances():
    x = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-5, 5).repeat(100)
    assert np.abs(to_places(x) - x).max() <= 2.0 ** -(BITS + 1)
    assert np.abs(to_digits(x) / x - 1).max() <= 2.0**-BITS
    plain = problem(SPECS[0], None)
    shifted = plain.in_own_units()
    np.testing.assert_array_equal(shifted.saveat[1:] > shifted.saveat[:-1], True)
    earlier = replace(plain, series=(replace(plain.series[0], t0=0.0),))
    assert earlier.in_own_units() is earlier and earlier.solved_in.are_plain


def test_times_of_a_trajectory_far_from_the_others_are_as_exact_as_theirs():
    t, u = np.linspace(0.0, 10.0, 21), np.zeros((21, 2))
    far = 3e8  # ten years in seconds
    series = Series(u[0], t, u), Series(u[0], far + t, u, far)
    own = OdeProblem(SPECS[0], series, units=Units(np.zeros(2), np.ones(2), 0.0, 10.0)).in_own_units().series
    np.testing.assert_allclose(own[1].saveat - own[1].t0, own[0].saveat, rtol=0, atol=1e-8)


def test_times_stay_strictly_increasing_where_float64_cannot_resolve_their_distance_from_t0():
    t = np.array([-1e9, 0.0, 1e-9, 2e-9, 1.0])
    tau = Units(np.zeros(1), np.ones(1), -1e9, 1e9 + 1).times_in(t)
    assert np.all(np.diff(tau) > 0)
    np.testing.assert_allclose(tau, (t + 1e9) / (1e9 + 1), rtol=1e-15)


def test_senseless_units_are_one_line():
    for changes in ({"state": [0.0, 1.0]}, {"time": -1.0}, {"origin": [np.nan, 0.0]}):
        with pytest.raises(UsageError, match="positive"):
            Units(**{"origin": [0.0, 0.0], "state": [1.0, 1.0], **changes})
    with pytest.raises(UsageError, match="expected 2 state components"):
        problem(SPECS[0], Units(np.zeros(3), np.ones(3)))


# ---- times asked for ------------------------------------------------------------------------------------------------


class Worker:
    """Answers as the Julia worker does, from a torch solver of the inner problem."""

    def __init__(self, inner):
        self.solver = TorchOdeSolver(inner)

    def request(self, header, arrays, waiting_for=""):
        saveat = arrays["saveat"]
        assert np.all(np.diff(saveat) > 0) and saveat[0] >= 0.0
        return {}, {"states": self.solver.trajectory(arrays["params"], saveat, header["rtol"], header["atol"])}


def solver_of(kind, units):
    stated = problem(SPECS[0], units, 1e-10)
    if kind == "julia":
        return JuliaOdeSolver(Worker(stated.in_own_units()), stated, "Replay", 1)
    return TorchOdeSolver(stated, kind)


@pytest.mark.parametrize("units", [None, UNITS], ids=["plain", "own"])
@pytest.mark.parametrize("kind", [*GRADIENTS, "julia"])
def test_trajectory_takes_times_in_any_order(kind, units):
    solver = solver_of(kind, units)
    params = SPECS[0].initial_parameters(0)
    right = solver.trajectory(params, T)
    np.testing.assert_array_equal(right[0], [3.2, 1e6])  # the initial state itself
    order = [3, 0, 2, 2, 1]
    np.testing.assert_allclose(solver.trajectory(params, T[order]), right[order], rtol=1e-9)
    np.testing.assert_allclose(solver.trajectory(params, float(T[2])), right[2:3], rtol=1e-9)
    np.testing.assert_array_equal(solver.trajectory(params, [T[0], T[0]]), right[[0, 0]])
    assert solver.trajectory(params, []).shape == (0, 2)
    for bad, message in ((T - 1e-3, "expected finite times from 2.0 on"), ([np.nan], "finite"), ([[T[1]]], "vector")):
        with pytest.raises(UsageError, match=message):
            solver.trajectory(params, bad)
    with pytest.raises(UsageError, match="positive tolerances"):
        solver.trajectory(params, T, 0.0)


def test_a_failed_solve_says_what_its_numbers_count():
    solver = TorchOdeSolver(replace(problem(SPECS[0]), max_steps=3))
    for solve in (solver.value_and_grad, solver.trajectory):
        with pytest.raises(
            SolveError, match=r"more than 3 steps .*\(t counted from 2 in units of 0\.001, states scaled"
        ):
            solve(SPECS[0].initial_parameters(0))
