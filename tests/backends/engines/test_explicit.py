"""Explicit pairs of order 3, 5, 8: rates, steps of torchdiffeq, dense output, inputs, many pieces, honest failures."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from support.kernels import Kernel, lotka
from torchdiffeq import odeint

from kansciml import SolveError
from kansciml.backends._engines.explicit import integrate_one
from kansciml.backends._engines.replay import ExplicitEngine, ExplicitSolved
from kansciml.backends._engines.tableaus import TABLEAUS
from kansciml.backends.base import Piece
from kansciml.models.inputs import Inputs

PAIRS = pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
DOPRI5 = TABLEAUS["dopri5"]
LOTKA = Kernel(lotka, [1.5, 3.0])
DENSE_ORDER = {"bosh3": 3, "dopri5": 4, "dop853": 7}


def solve(kernel, pieces, tolerance, tableau=DOPRI5, max_steps=20_000):
    return ExplicitSolved(kernel, tableau, pieces, tolerance, tolerance, max_steps)


def rhs(t, u, out):
    LOTKA.rhs(t, u, out)


@PAIRS
def test_order_conditions_of_tableau_and_dense_output(tableau):
    stages = tableau.stages
    np.testing.assert_allclose(tableau.a.sum(1), tableau.c, atol=2e-15)
    b, c = tableau.a[stages - 1], tableau.c
    for power in range(tableau.order):
        assert b @ c**power == pytest.approx(1 / (power + 1), abs=1e-13)
    assert np.abs(tableau.error.sum(-1)).max() < 1e-14
    thetas = np.array([0.0, 0.3, 0.5, 1.0])
    weights = tableau.weights(thetas)
    for power in range(DENSE_ORDER[tableau.name]):
        np.testing.assert_allclose(weights @ c**power, thetas ** (power + 1) / (power + 1), atol=1e-12)
    np.testing.assert_allclose(weights[-1], np.where(np.arange(len(c)) < stages, b, 0), atol=1e-12)


@PAIRS
def test_fixed_step_convergence_rates_are_the_orders(tableau):
    """u' = -u + cos t; the steps' and, at theta = 0.4 of the last one, the dense output's global errors."""
    step_errors, dense_errors = [], []
    counts = np.array([8, 16, 32]) if tableau.order < 8 else np.array([2, 4, 8])
    for count in counts:
        u, h = 0.5, 2.0 / count
        for i in range(count):
            k = np.zeros(len(tableau.c))
            for j in range(len(k)):
                k[j] = -(u + h * tableau.a[j] @ k) + np.cos(h * (i + tableau.c[j]))
            middle = u + h * tableau.weights(np.array([0.4]))[0] @ k
            u += h * tableau.a[tableau.stages - 1] @ k
        exact = [0.5 * (np.cos(t) + np.sin(t)) for t in (2.0, 2.0 - 0.6 * h)]
        step_errors.append(abs(u - exact[0]))
        dense_errors.append(abs(middle - exact[1]))
    assert np.log2(step_errors[-2] / step_errors[-1]) > tableau.order - 0.3
    assert np.log2(dense_errors[-2] / dense_errors[-1]) > DENSE_ORDER[tableau.name] - 0.3


def test_dopri5_takes_the_steps_of_torchdiffeq_and_gives_its_solution():
    saveat = np.linspace(0, 10, 41)
    times = []

    class Field(torch.nn.Module):
        def forward(self, t, u):
            return torch.stack([1.5 * u[0] - u[0] * u[1], u[0] * u[1] - 3.0 * u[1]])

        def callback_accept_step(self, t0, y0, dt):
            times.append(float(t0))

    u0, t = torch.ones(2, dtype=torch.float64), torch.from_numpy(saveat)
    options = {"norm": lambda x: x.abs().max()}
    expected = odeint(Field(), u0, t, rtol=1e-7, atol=1e-7, method="dopri5", options=options)
    solved = solve(LOTKA, [Piece(np.ones(2), 0.0, saveat)], 1e-7)
    np.testing.assert_allclose(solved.steps.t, times, rtol=1e-7)  # the error estimate is a small difference
    np.testing.assert_allclose(solved.states[0], expected, atol=1e-10)


@PAIRS
def test_save_points_are_as_accurate_as_the_tolerance_and_buffers_grow(tableau):
    saveat = np.sort(np.random.default_rng(0).uniform(0, 14, 200))

    def field(t, u):
        return [1.5 * u[0] - u[0] * u[1], u[0] * u[1] - 3 * u[1]]

    truth = solve_ivp(field, (0, 14), [1, 1], "DOP853", saveat, rtol=1e-13, atol=1e-13).y.T
    tolerance = 1e-10 if tableau.order > 3 else 1e-7
    solved = solve(LOTKA, [Piece(np.ones(2), 0.0, saveat)], tolerance, tableau)
    assert np.max(np.abs(solved.states[0] - truth)) < 1000 * tolerance
    assert len(solved.steps.t) > 64


@PAIRS
def test_pieces_together_are_the_pieces_one_by_one(tableau):
    rng = np.random.default_rng(1)
    pieces = [Piece(rng.uniform(0.5, 2, 2), t0, t0 + np.sort(rng.uniform(0, 1 + 2 * t0, 7))) for t0 in (0.0, 2.0, 0.5)]
    together = solve(LOTKA, pieces, 1e-7, tableau)
    steps = together.steps
    follows = steps.t[:, None] == steps.end  # each step but the first of a piece starts where another ended
    assert np.sum(~follows.any(1)) == len(pieces)
    for one, states in zip(pieces, together.states):
        np.testing.assert_allclose(states, solve(LOTKA, [one], 1e-7, tableau).states[0], rtol=1e-13, atol=1e-13)


FORCED = Kernel(lambda p, t, u, w: p[:4].reshape(2, 2) @ u + p[4:, None] * w, [-0.5, 2.0, -2.0, -0.1, 1.0, 0.5])


def forced_exactly(inputs, u0, times):
    """u' = A u + b w: from knot to knot by the exponential of (A, b and the line of w)."""
    a, b = FORCED.params[:4].reshape(2, 2), FORCED.params[4:]
    found = []
    for t in times:
        u, knots = u0, np.append(inputs.t[inputs.t < t], t)
        for left, right, value in zip(knots[:-1], knots[1:], inputs.values[:, 0]):
            i = np.searchsorted(inputs.t, left)
            slope = np.diff(inputs.values[i : i + 2, 0])[0] / np.diff(inputs.t[i : i + 2])[0]
            big = np.zeros((4, 4))
            big[:2, :2], big[:2, 2], big[2, 3] = a, b, slope if inputs.kind == "linear" else 0.0
            u = (expm(big * (right - left)) @ np.array([*u, value, 1.0]))[:2]
        found.append(u)
    return np.array(found)


def forced(kind):
    knots = np.array([0.0, 0.3, 0.31, 1.0, 2.0])
    return Inputs(knots, np.array([[1.0], [-2.0], [3.0], [0.0], [4.0]]), kind)


@PAIRS
@pytest.mark.parametrize("kind", ["linear", "held"])
def test_inputs_are_followed_exactly_from_knot_to_knot(tableau, kind):
    inputs, times = forced(kind), np.array([0.0, 0.2, 0.3, 0.305, 0.9, 1.0, 1.7, 2.0])
    pieces = [Piece(np.array([1.0, 0.0]), 0.0, times, inputs), Piece(np.array([0.0, 1.0]), 0.0, times[:5], inputs)]
    solved = solve(FORCED, pieces, 1e-9, tableau)
    for one, states in zip(pieces, solved.states):
        np.testing.assert_allclose(states, forced_exactly(inputs, one.start, one.saveat), atol=3e-8)
    ends = solved.steps.end
    assert all(np.sum(ends == knot) == 2 for knot in inputs.t[1:3]) and ends.max() <= 2.0
    # held inputs jump, so that the first slope after a knot is new
    starts = solved.steps.fresh & (solved.steps.t > 0)
    assert set(solved.steps.t[starts]) == (set(inputs.t[1:4]) if kind == "held" else set())


@PAIRS
def test_a_field_of_time_alone_is_its_integral(tableau):
    kernel = Kernel(lambda p, t, u, w: np.stack([np.cos(3 * t) + 0 * u[0]]))
    times = np.linspace(1.0, 3.0, 9)
    piece = Piece(np.zeros(1), 1.0, times)
    for pieces in ([piece], [piece, piece]):
        states = solve(kernel, pieces, 1e-9, tableau).states[0][:, 0]
        np.testing.assert_allclose(states, (np.sin(3 * times) - np.sin(3.0)) / 3, atol=1e-8)


def test_stages_belong_to_their_steps():
    steps = integrate_one(rhs, DOPRI5, np.ones(2), 0.0, 3.0, 1e-6, 1e-6)
    np.testing.assert_allclose(steps.states[1:, 0], steps.states[:-1, -1])
    np.testing.assert_allclose(steps.t[1:], steps.end[:-1])
    out = np.empty(2)
    for state, slope in zip(steps.states.reshape(-1, 2), steps.slopes.reshape(-1, 2)):
        rhs(0.0, state, out)
        np.testing.assert_array_equal(out, slope)


BLOW_UP = Kernel(lambda p, t, u, w: u * u)
TURNS_NAN = Kernel(lambda p, t, u, w: np.where(t > 0.5, np.nan, 1.0) + 0 * u)


@PAIRS
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kernel, message", [(BLOW_UP, "blows up near t = 1"), (TURNS_NAN, "blows up near t = 0.5")])
def test_a_blow_up_is_an_error_and_never_a_nan(tableau, kernel, message, count):
    pieces = [Piece(np.ones(1), 0.0, np.array([2.0])), Piece(np.ones(1), 0.0, np.array([0.25]))][:count]
    with pytest.raises(SolveError, match=message):
        solve(kernel, pieces, 1e-6 if tableau.order == 3 else 1e-8, tableau)


@pytest.mark.parametrize("count", [1, 2])
def test_too_many_steps_is_an_error_with_the_remedy(count):
    with pytest.raises(SolveError, match="needs more than 10 steps.*loosen rtol"):
        solve(LOTKA, [Piece(np.ones(2), 0.0, np.array([100.0]))] * count, 1e-10, max_steps=10)


@pytest.mark.parametrize("count", [1, 2])
def test_a_state_that_starts_as_nan_is_an_error(count):
    with pytest.raises(SolveError):
        solve(LOTKA, [Piece(np.array([np.nan, 1.0]), 0.0, np.ones(1))] * count, 1e-8)


@PAIRS
@pytest.mark.parametrize("count", [1, 2])
def test_a_field_that_is_zero_needs_few_steps(tableau, count):
    engine = ExplicitEngine(lambda params: Kernel(lambda p, t, u, w: 0 * u), tableau)
    solved = engine.solve(np.zeros(0), [Piece(np.zeros(2), 0.0, np.ones(1))] * count, 1e-8, 1e-8, 1000, False)
    assert len(solved.steps.t) < 20 * count
