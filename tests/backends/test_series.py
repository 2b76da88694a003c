"""Problems of several series, on every backend: gaps, weights, learned starts, links, parts of the data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kansciml import SolveError, UsageError
from kansciml.backends.base import OdeProblem, OdeSolver, Series, Subset
from kansciml.backends.torch import TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.units import Units

SPECS = [FieldSpec("mlp", (2, 5, 2)), FieldSpec("kan", (2, 3, 2), scale=(2.0, 2.0))]
UNITS = Units(np.array([0.3, -2.0]), np.array([0.5, 10.0]), t0=-1.0, time=3.0)
T = (np.array([0.0, 0.4, 1.0, 1.5]), np.array([0.7, 1.9, 2.5]), np.array([1.5, 2.0]))


def series(k: int, **settings) -> Series:
    """Three of different times and lengths; the second starts before its first row."""
    rng = np.random.default_rng(k)
    t = T[k]
    return Series(rng.normal(size=2), t, rng.normal(size=(len(t), 2)), t[0] - 0.2 * (k == 1), **settings)


def problem(spec, *parts: Series, units=None, **settings) -> OdeProblem:
    return OdeProblem(spec, parts, np.array([0.5, 2.0]), 1e-10, 1e-10, units=units, **settings)


@pytest.fixture(params=["replay", "backprop", pytest.param("julia", marks=pytest.mark.julia)])
def solve(request):
    """Makes a solver of a problem."""
    if request.param == "julia":
        return request.getfixturevalue("julia").solver
    return lambda problem: TorchOdeSolver(problem, request.param)


def assert_gradient(solver: OdeSolver, params: np.ndarray, subset: Subset | None = None) -> float:
    """The loss, whose gradient was held against central differences."""
    loss, gradient = solver.value_and_grad(params, subset)
    rng = np.random.default_rng(0)
    near = 1e-5 * np.linalg.norm(gradient)
    for direction in rng.standard_normal((2, len(params))):
        up, down = (solver.value_and_grad(params + h * direction, subset)[0] for h in (1e-4, -1e-4))
        assert (up - down) / 2e-4 == pytest.approx(gradient @ direction, abs=near)
    return loss


@pytest.mark.parametrize("spec", SPECS, ids=FieldSpec.label)
@pytest.mark.parametrize("units", [None, UNITS], ids=["plain", "own"])
def test_the_loss_is_the_mean_over_all_measurements(solve, spec, units):
    gaps = series(0)
    data = gaps.data.copy()
    data[1, 0] = data[3] = np.nan
    weights = np.array([[1.0, 2.0], [3.0, 0.5], [0.0, 1.0]])
    parts = replace(gaps, data=data), series(1, weights=weights), series(2)
    solver = solve(problem(spec, *parts, units=units))
    params = spec.initial_parameters(1)
    total = size = 0.0
    for k, (one, w) in enumerate(zip(parts, (~np.isnan(data), weights, np.ones((2, 2))))):
        error = (solver.trajectory(params, series=k) - one.data) / [0.5, 2.0]
        total, size = total + np.sum(w * np.nan_to_num(error) ** 2), size + w.sum()
    assert assert_gradient(solver, params) == pytest.approx(total / size, rel=1e-9)


def test_learned_starts_are_parameters_in_the_solvers_variables(solve):
    parts = series(0, learned=True), series(1), series(2, learned=True)
    solver = solve(problem(SPECS[1], *parts, units=UNITS))
    own = solver.problem
    params = own.initial_parameters(1)
    assert len(params) == own.n_parameters == SPECS[1].n_parameters + 4
    np.testing.assert_allclose(UNITS.states_out(params[-2:]), parts[2].u0, rtol=1e-9)
    fixed = solve(problem(SPECS[1], *(replace(one, learned=False) for one in parts), units=UNITS))
    assert assert_gradient(solver, params) == fixed.value_and_grad(params[:-4])[0]
    moved = params.copy()
    moved[-1] += 0.1
    np.testing.assert_allclose(
        solver.trajectory(moved, T[2][0], series=2)[0], parts[2].u0 + np.array([0.0, 1.0]), rtol=1e-9
    )


def test_the_adjoint_has_the_gradients_of_the_replay():
    parts = series(0, learned=True), series(2, learned=True, follows=0)
    one = problem(SPECS[0], *parts, units=UNITS)
    params = one.initial_parameters(1)
    found, expected = (TorchOdeSolver(one, gradient).value_and_grad(params) for gradient in ("adjoint", "replay"))
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-6 * np.abs(expected[1]).max())


@pytest.mark.parametrize("continuity", [1.0, 30.0])
def test_links_pull_ends_to_the_starts_that_follow(solve, continuity):
    first = series(0)
    parts = first, series(2, learned=True, follows=0)
    linked, free = (
        solve(problem(SPECS[0], first, replace(parts[1], follows=after), continuity=continuity)) for after in (0, None)
    )
    params = linked.problem.initial_parameters(3)
    gap = (linked.trajectory(params, series=0)[-1] - parts[1].u0) / [0.5, 2.0]
    expected = free.value_and_grad(params)[0] + continuity * np.mean(gap**2)
    assert assert_gradient(linked, params) == pytest.approx(expected, rel=1e-9)
    loss = assert_gradient(linked, params, Subset((0,)))  # the start that follows is a parameter all the same
    assert loss == pytest.approx(free.value_and_grad(params, Subset((0,)))[0] + continuity * np.mean(gap**2), rel=1e-9)
    for part in (Subset((1,)), Subset(share=0.5)):  # the end of the first is not in them
        assert linked.value_and_grad(params, part)[0] == pytest.approx(free.value_and_grad(params, part)[0], rel=1e-12)


def test_a_subset_is_the_problem_of_its_series_and_first_rows(solve):
    parts = [series(k) for k in range(3)]
    params = SPECS[0].initial_parameters(2)
    solver = solve(problem(SPECS[0], *parts, units=UNITS))
    fewer = parts[2], replace(parts[0], saveat=T[0][:2], data=parts[0].data[:2])
    expected = solve(problem(SPECS[0], *fewer, units=UNITS)).value_and_grad(params)
    loss = assert_gradient(solver, params, Subset((2, 0), 0.5))
    assert loss == pytest.approx(expected[0], rel=1e-9)
    with pytest.raises(UsageError, match="expected indices below 3"):
        solver.value_and_grad(params, Subset((3,)))


def test_a_growing_horizon_counts_from_the_first_measurement_of_each_series():
    late = np.full((10, 2), np.nan)
    late[5:] = 1.0
    series = Series(np.ones(2), np.arange(10.0), late, learned=True)
    assert [series.rows(share) for share in (0.01, 0.4, 0.8, 1.0)] == [7, 7, 9, 10]
    ignored = replace(series, data=np.ones((10, 2)), weights=np.isfinite(late).astype(float))
    assert [ignored.rows(0.4), replace(ignored, weights=None).rows(0.4)] == [7, 4]
    solver = TorchOdeSolver(OdeProblem(SPECS[0], (replace(series, data=np.ones((10, 2))), series)))
    loss, _ = solver.value_and_grad(solver.problem.initial_parameters(0), Subset((1,), 0.1))  # a minibatch of this one
    assert loss > 0


def test_a_loss_of_ones_own_is_differentiated(solve):
    parts = series(0), series(1, learned=True)
    own = solve(problem(SPECS[0], *parts, units=UNITS))
    params = own.problem.initial_parameters(1)
    flat = np.concatenate([one.data.ravel() for one in parts])

    def loss(states):
        residual = (np.concatenate([u.ravel() for u in states]) - flat) / np.tile([0.5, 2.0], 7)
        cut = np.cumsum([u.size for u in states])[:-1]
        by_states = np.split(2 * residual / len(flat) / np.tile([0.5, 2.0], 7), cut)
        return np.mean(residual**2), [g.reshape(u.shape) for g, u in zip(by_states, states)]

    value, gradient = own.value_and_grad_of(loss, params)
    expected, expected_gradient = own.value_and_grad(params)
    assert value == pytest.approx(expected, rel=1e-8)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-8)


def test_trajectories_from_other_initial_states_and_times(solve):
    solver = solve(problem(SPECS[1], series(0), series(1), units=UNITS))
    params = SPECS[1].initial_parameters(1)
    whole = solver.trajectory(params, T[0], series=0)
    later = solver.trajectory(params, T[0][2:], u0=whole[1], t0=T[0][1])
    np.testing.assert_allclose(later, whole[2:], rtol=1e-8, atol=1e-9)
    with pytest.raises(UsageError, match="expected 2 finite numbers"):
        solver.trajectory(params, u0=np.ones(3))


@pytest.mark.parametrize("solver", ["3", "5", "8", "stiff", "BDF"])
def test_the_series_that_cannot_be_solved_is_named(solver):
    spec = FieldSpec("mlp", (1, 1, 1), activation="relu")  # 0 stays, 1 grows beyond all bounds
    parts = [Series(np.full(1, u), np.array([1.0]), np.zeros((1, 1)), name=name) for name, u in (("", 0), ("run 7", 1))]
    solver = TorchOdeSolver(OdeProblem(spec, tuple(parts), max_steps=50, solver=solver))
    params = np.array([1e8, 0.0, 1e8, 0.0])
    for subset in (None, Subset((1,))):
        with pytest.raises(SolveError, match="^run 7: the solution "):
            solver.value_and_grad(params, subset)
    assert solver.value_and_grad(params, Subset((0,)))[0] == 0.0


BAD = {
    "no series": (lambda: ((), {}), "at least one trajectory"),
    "nothing": (lambda: ((replace(series(0), data=np.full((4, 2), np.nan)),), {}), "nothing is measured"),
    "weight": (lambda: ((series(2, weights=-np.ones((2, 2))),), {}), "negative weight"),
    "later": (lambda: ((series(0), series(1, learned=True, follows=0)), {}), "last save time"),
    "not learned": (lambda: ((series(0), series(2, follows=0)), {}), "a learned initial state"),
    "itself": (lambda: ((series(0, learned=True, follows=0),), {}), "after series 0"),
    "continuity": (lambda: ((series(0),), {"continuity": 0.0}), "continuity"),
}


@pytest.mark.parametrize("make, message", BAD.values(), ids=BAD)
def test_bad_series_are_one_line(make, message):
    with pytest.raises(UsageError, match=message):
        parts, settings = make()
        problem(SPECS[0], *parts, **settings)
