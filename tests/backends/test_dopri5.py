"""The NumPy dopri5: order of convergence, the steps of torchdiffeq, dense output, honest failures."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from kansciml import SolveError
from kansciml.backends import _dopri5
from kansciml.backends._dopri5 import DENSE, A, B, C, E, integrate


def lotka(t, u, out):
    x, y = u
    out[0], out[1] = 1.5 * x - x * y, x * y - 3.0 * y


def solve(tolerance, saveat):
    steps = integrate(lotka, np.ones(2), 0.0, saveat[-1], tolerance, tolerance)
    return steps, steps.interpolate(*steps.locate(saveat))


def test_order_conditions_of_the_tableau_and_dense_output():
    np.testing.assert_allclose(A.sum(1), C, atol=1e-15)
    for power in range(5):
        assert B @ C**power == pytest.approx(1 / (power + 1), abs=1e-14)
    assert abs(E.sum()) < 1e-15
    for theta in (0.0, 0.3, 0.5, 1.0):  # fourth order: exact for cubic quadrature at every theta
        weights = theta ** np.arange(1, 5) @ DENSE
        for power in range(4):
            assert weights @ C**power == pytest.approx(theta ** (power + 1) / (power + 1), abs=1e-12)


def test_fixed_step_convergence_rate_is_five():
    exact = np.exp(-1.0)
    errors = []
    for n in (8, 16, 32):
        u, h = 1.0, 1.0 / n
        for _ in range(n):
            k = np.zeros(7)
            for j in range(7):
                k[j] = -(u + h * A[j] @ k)
            u += h * B @ k
        errors.append(abs(u - exact))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(rates - 5) < 0.15)


def test_takes_the_steps_of_torchdiffeq_and_gives_its_solution():
    saveat = np.linspace(0, 10, 41)
    times = []

    class Field(torch.nn.Module):
        def forward(self, t, u):
            x, y = u
            return torch.stack([1.5 * x - x * y, x * y - 3.0 * y])

        def callback_accept_step(self, t0, y0, dt):
            times.append(float(t0))

    u0, t = torch.ones(2, dtype=torch.float64), torch.from_numpy(saveat)
    options = {"norm": lambda x: x.abs().max()}
    expected = odeint(Field(), u0, t, rtol=1e-7, atol=1e-7, method="dopri5", options=options)
    steps, u = solve(1e-7, saveat)
    np.testing.assert_allclose(steps.t, times, rtol=1e-7)  # the error estimate is a small difference
    np.testing.assert_allclose(u, expected, atol=1e-10)


def test_save_points_are_accurate_at_tolerance_1e_10():
    saveat = np.sort(np.random.default_rng(0).uniform(0, 14, 200))
    truth = solve_ivp(
        lambda t, u: [1.5 * u[0] - u[0] * u[1], u[0] * u[1] - 3 * u[1]],
        (0, 14),
        [1, 1],
        "DOP853",
        saveat,
        rtol=1e-13,
        atol=1e-13,
    ).y.T
    steps, u = solve(1e-10, saveat)
    assert np.max(np.abs(u - truth)) < 1e-7
    assert len(steps.t) > 64  # the buffers have grown at least once


def test_stages_belong_to_their_steps():
    steps, _ = solve(1e-6, np.array([3.0]))
    np.testing.assert_allclose(steps.stage_states[1:, 0], steps.stage_states[:-1, -1])
    np.testing.assert_allclose(steps.t[1:], steps.t[:-1] + steps.h[:-1])
    out = np.empty(2)
    for state, slope in zip(steps.stage_states.reshape(-1, 2), steps.stage_slopes.reshape(-1, 2)):
        lotka(0.0, state, out)
        np.testing.assert_array_equal(out, slope)


def blow_up(t, u, out):
    out[:] = u * u


def turns_nan(t, u, out):
    out[:] = np.nan if t > 0.5 else 1.0


@pytest.mark.parametrize("rhs, message", [(blow_up, "blows up near t = 1"), (turns_nan, "blows up near t = 0.5")])
def test_a_blow_up_is_an_error_and_never_a_nan(rhs, message):
    with pytest.raises(SolveError, match=message):
        integrate(rhs, np.ones(1), 0.0, 2.0, 1e-8, 1e-8)


def test_too_many_steps_is_an_error_with_the_remedy():
    with pytest.raises(SolveError, match="needs more than 10 steps.*loosen rtol"):
        integrate(lotka, np.ones(2), 0.0, 100.0, 1e-10, 1e-10, max_steps=10)


def test_a_state_that_starts_as_nan_is_an_error():
    with pytest.raises(SolveError):
        integrate(lotka, np.array([np.nan, 1.0]), 0.0, 1.0, 1e-8, 1e-8)


def test_a_field_that_is_zero_needs_few_steps():
    steps = integrate(lambda t, u, out: out.fill(0.0), np.zeros(2), 0.0, 1.0, 1e-8, 1e-8)
    assert len(steps.t) < 20 and _dopri5.ORDER == 5
