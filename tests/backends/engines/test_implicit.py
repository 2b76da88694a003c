"""Radau IIA and BDF on stiff systems: their solutions, and the exact gradients of their discrete solutions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from support.kernels import Kernel, robertson, van_der_pol

from kansciml import SolveError
from kansciml.backends._engines import bdf, radau
from kansciml.backends._engines.radau import DENSE, A, C
from kansciml.backends._engines.stiff import damped_newton
from kansciml.backends._kernels import bind
from kansciml.backends.base import Piece
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs

RATES = np.array([0.04, 3e7, 1e4])
KINETICS = [
    Piece(np.array([1.0, 0.0, 0.0]), 0.0, np.geomspace(1e-5, 1e5, 12)),
    Piece(np.array([0.7, 0.0, 0.3]), 0.0, np.geomspace(1e-4, 1e3, 7)),
]


METHODS = {"Radau": (radau, radau.RadauSolved), "BDF": (bdf, bdf.BdfSolved)}
BOTH = pytest.mark.parametrize("method", METHODS)


def solve(kernel, pieces, tolerance, method="Radau", max_steps=20_000):
    return METHODS[method][1](kernel, pieces, tolerance, tolerance, max_steps)


def test_coefficients_are_those_of_the_collocation_method_of_order_five():
    for power in range(5):  # the quadrature of the last row, Radau's
        assert A[2] @ C**power == pytest.approx(1 / (power + 1), abs=1e-14)
    for power in range(3):
        np.testing.assert_allclose(A @ C**power, C ** (power + 1) / (power + 1), atol=1e-14)
    for power in (1, 2, 3):  # the collocation polynomial reproduces cubics from 0
        np.testing.assert_allclose(0.3 ** np.arange(1, 4) @ DENSE @ C**power, 0.3**power, atol=1e-14)


@BOTH
def test_robertson_and_van_der_pol_are_solved_to_the_tolerance(method):
    def field(t, u):
        return robertson(RATES, t, u, None)

    states = solve(Kernel(robertson, RATES), KINETICS, 1e-9 if method == "BDF" else 1e-8, method).states
    for one, found in zip(KINETICS, states):
        truth = solve_ivp(field, (0, one.saveat[-1]), one.start, "LSODA", one.saveat, rtol=1e-12, atol=1e-16).y.T
        np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-10)  # mass is conserved
    times = np.array([0.4, 0.8, 1.2])
    found = solve(Kernel(van_der_pol, [1000.0]), [Piece(np.array([2.0, 0.0]), 0.0, times)], 1e-8, method).states[0]
    truth = solve_ivp(
        lambda t, u: van_der_pol([1000.0], t, u, None), (0, 1.2), [2, 0], "LSODA", times, rtol=1e-11, atol=1e-11
    ).y.T
    np.testing.assert_allclose(found, truth, rtol=1e-5)


@BOTH
@pytest.mark.parametrize("kind", ["linear", "held"])
def test_a_stiff_linear_system_with_inputs_has_its_closed_form(kind, method):
    """u' = -1e4 (u - w(t)): a layer after each knot, then w - w' / 1e4."""
    rate, inputs = 1e4, Inputs(np.array([0.0, 0.5, 2.0]), np.array([[1.0], [-1.0], [3.0]]), kind)
    kernel = Kernel(lambda p, t, u, w: p[0] * (w - u), [rate])
    times = np.array([0.0, 1e-4, 0.25, 0.5, 0.50005, 1.0, 2.0])

    def settled(t, i):
        """After the layer, in the interval from knot i on."""
        slope = 0.0 if kind == "held" else np.diff(inputs.values[i : i + 2, 0])[0] / np.diff(inputs.t[i : i + 2])[0]
        return inputs.values[i, 0] + slope * (t - inputs.t[i] - 1 / rate)

    exact, u = np.empty(len(times)), 0.0
    for i, own in ((0, slice(0, 4)), (1, slice(4, 7))):
        left = inputs.t[i]
        exact[own] = settled(times[own], i) + (u - settled(left, i)) * np.exp(-rate * (times[own] - left))
        u = exact[3]  # at the knot
    pieces = [Piece(np.zeros(1), 0.0, times, inputs), Piece(np.zeros(1), 0.0, times[:4], inputs)]
    solved = solve(kernel, pieces, 1e-9, method)
    np.testing.assert_allclose(solved.states[0][:, 0], exact, atol=1e-7)
    np.testing.assert_allclose(solved.states[1][:, 0], exact[:4], atol=1e-7)
    assert np.isin(inputs.t[1:], solved.steps.end).all()


@BOTH
def test_a_stiff_field_of_time_follows_it(method):
    kernel = Kernel(lambda p, t, u, w: -1e3 * (u - np.cos(t)) - np.sin(t))
    times = np.linspace(0.0, 6.0, 9)
    states = solve(kernel, [Piece(np.ones(1), 0.0, times)], 1e-9, method).states[0]
    np.testing.assert_allclose(states[:, 0], np.cos(times), atol=1e-8)


def central(function, h):
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


FIELD = FieldSpec("mlp", (3, 8, 3))
KAN = FieldSpec("kan", (3, 2, 3), scale=(2.0, 2.0, 2.0))
CASES = {
    "robertson": (lambda p: Kernel(robertson, p), RATES, RATES),
    "mlp": (lambda p: bind(FIELD, p), 5 * FIELD.initial_parameters(0), 0.1),
    "kan": (lambda p: bind(KAN, p), 5 * KAN.initial_parameters(0), 0.01),
}


@BOTH
@pytest.mark.parametrize("case", CASES)
def test_gradient_is_exact_for_the_discrete_solution_however_coarse_it_is(case, method, monkeypatch):
    """Against central differences with the steps of the unchanged problem."""
    make, params, size = CASES[case]
    pieces = KINETICS if case == "robertson" else [replace(one, saveat=np.linspace(0.3, 4, 6)) for one in KINETICS]
    rng = np.random.default_rng(0)
    solved = solve(make(params), pieces, 1e-4, method)
    steps = solved.steps
    cotangents = [rng.normal(size=v.shape) * [1, 1e4 if case == "robertson" else 1, 1] for v in solved.states]
    by_params, by_starts = solved.pull(cotangents)
    change, moves = rng.normal(size=params.shape) * size, rng.normal(size=by_starts.shape) * 1e-3

    monkeypatch.setattr(METHODS[method][0], "_integrate", lambda *settings: steps)

    def value(h, of_starts=False):
        moved = [replace(one, start=one.start + h * of_starts * by) for one, by in zip(pieces, moves)]
        found = solve(make(params + h * change * (not of_starts)), moved, 1e-4, method).states
        return sum(float(np.sum(c * v)) for c, v in zip(cotangents, found))

    assert by_params @ change == pytest.approx(central(value, 1e-3), rel=1e-6)
    assert np.sum(by_starts * moves) == pytest.approx(central(lambda h: value(h, True), 1e-4), rel=1e-6)


def test_gradients_at_a_tight_tolerance_are_those_of_the_continuous_adjoint():
    """d/dp of sum_s c_s u(t_s), from lambda' = -J^T lambda solved backwards by SciPy from save point to save point."""
    kernel, piece = Kernel(robertson, RATES), replace(KINETICS[0], saveat=np.array([1e-3, 0.1, 10.0]))
    cotangent = np.random.default_rng(0).normal(size=(3, 3))

    def field(t, u):
        return robertson(RATES, t, u, None)

    state = solve_ivp(field, (0, 10), piece.start, "Radau", dense_output=True, rtol=1e-10, atol=1e-13).sol

    def backwards(y, end, begin):
        def slope(s, y):
            jacobian, pullback = kernel.linearise(np.full(1, end - s), state(end - s)[None])
            return np.concatenate([jacobian[0].T @ y[:3], pullback(y[None, :3])])

        return solve_ivp(slope, (0, end - begin), y, "Radau", rtol=1e-8, atol=1e-12).y[:, -1]

    y = np.zeros(6)  # adjoint, and gradient by the parameters
    for end, begin, c in zip(piece.saveat[::-1], [0.1, 1e-3, 0.0], cotangent[::-1]):
        y[:3] += c
        y = backwards(y, end, begin)
    for method in METHODS:
        by_params, by_starts = solve(kernel, [piece], 1e-11, method).pull([cotangent])
        np.testing.assert_allclose(by_starts[0], y[:3], rtol=1e-5)
        np.testing.assert_allclose(by_params, y[3:], rtol=1e-5)


@BOTH
def test_rounding_that_grows_with_the_solution_is_no_failure(method):
    """u' = 25 (u - cos t) - sin t from u = cos t: what a step errs by is 7e10 times as much at t = 1."""
    kernel = Kernel(lambda p, t, u, w: 25 * (u - np.cos(t)) - np.sin(t))
    solved = solve(kernel, [Piece(np.ones(1), 0.0, np.array([0.2, 1.0]))], 1e-10, method)
    assert solved.states[0][0, 0] == pytest.approx(np.cos(0.2), abs=1e-6)
    assert np.log(solved.pull([np.array([[0.0], [1.0]])])[1][0, 0]) == pytest.approx(25, rel=0.01)


@BOTH
def test_steps_one_after_the_other_are_the_steps_together(method, monkeypatch):
    """As they are solved where Newton's method fails on all together, of a chaotic solution for example."""
    inputs = Inputs(np.array([0.0, 0.5, 2.0]), np.array([[1.0], [-1.0], [3.0]]), "held")
    driven = Kernel(lambda p, t, u, w: p[0] * (w - u) ** 3, [1e2])
    ends = np.array([0.4, 1.1]), np.array([2.0])
    cases = [(Kernel(robertson, RATES), KINETICS), (driven, [Piece(np.zeros(1), 0.0, t, inputs) for t in ends])]
    together = [solve(*case, 1e-6, method) for case in cases]
    monkeypatch.setattr(METHODS[method][0], "NEWTON", 0 if method == "Radau" else -1)
    for case, found in zip(cases, together):
        alone = solve(*case, 1e-6, method)
        for a, b in zip(alone.states, found.states):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)
        pulled = [one.pull([np.cos(np.arange(v.size)).reshape(v.shape) for v in one.states]) for one in (alone, found)]
        np.testing.assert_allclose(pulled[0][0], pulled[1][0], rtol=1e-8)


def test_a_chaotic_solution_is_solved_and_differentiated():
    def lorenz(p, t, u, w):
        return np.stack([10 * (u[1] - u[0]), u[0] * (p[0] - u[2]) - u[1], u[0] * u[1] - 8 / 3 * u[2]])

    solved = solve(Kernel(lorenz, [28.0]), [Piece(np.ones(3), 0.0, np.array([25.0]))], 1e-3)
    assert np.all(np.abs(solved.states[0]) < 60)
    assert np.linalg.norm(solved.pull([np.ones((1, 3))])[1]) > 1e4


def test_newtons_method_is_damped_where_it_would_cycle_across_kinks():
    """On clip(x, -1, 1) + x / 100, which it leaves ever farther from outside [-1, 1]."""

    def correction(x):
        return -(np.clip(x, -1, 1) + 0.01 * x) / np.where(np.abs(x) < 1, 1.01, 0.01)

    found, size = damped_newton(correction, np.array([[5.0], [-300.0]]), lambda change, x: np.abs(change[:, 0]), 1e-7)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    assert np.all(size < 1e-8)


@BOTH
def test_failures_are_one_line(method):
    decay = Kernel(lambda p, t, u, w: -u)
    with pytest.raises(SolveError, match="needs more than 5 steps .*loosen rtol"):
        solve(decay, [Piece(np.ones(1), 0.0, np.array([50.0]))], 1e-10, method, max_steps=5)
    with pytest.raises(SolveError, match="blows up near t = "):
        solve(Kernel(lambda p, t, u, w: u * u), [Piece(np.ones(1), 0.0, np.array([2.0]))], 1e-6, method)
    with pytest.raises(SolveError):
        solve(decay, [Piece(np.array([np.nan]), 0.0, np.ones(1))], 1e-6, method)


@BOTH
def test_save_points_at_the_start_alone_are_the_start(method):
    solved = solve(Kernel(lambda p, t, u, w: -u), [Piece(np.ones(1), 2.0, np.array([2.0]))], 1e-6, method)
    np.testing.assert_allclose(solved.states[0], [[1.0]], rtol=1e-14)
    np.testing.assert_allclose(solved.pull([np.ones((1, 1))])[1], [[1.0]], rtol=1e-12)


@BOTH
def test_pieces_together_are_the_pieces_one_by_one(method):
    kernel, rng = Kernel(robertson, RATES), np.random.default_rng(0)
    together = solve(kernel, KINETICS, 1e-6, method)
    cotangents = [rng.normal(size=v.shape) for v in together.states]
    by_params, by_starts = together.pull(cotangents)
    alone = [solve(kernel, [one], 1e-6, method) for one in KINETICS]
    pulled = [one.pull([c]) for one, c in zip(alone, cotangents)]
    for one, states in zip(alone, together.states):
        np.testing.assert_allclose(states, one.states[0], rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(by_params, pulled[0][0] + pulled[1][0], rtol=1e-9)
    np.testing.assert_allclose(by_starts, np.concatenate([one[1] for one in pulled]), rtol=1e-9)
