"""Dormand-Prince 5(4) in NumPy, keeping every stage of every accepted step.

Steps, error control and dense output are those of torchdiffeq's ``dopri5`` (Dormand & Prince 1980 with Shampine's
midpoint; step control and first step of Hairer, Norsett & Wanner I, sec. II.4) with the maximum norm, so both take the
same steps up to rounding; the last step may reach beyond the end, and save points are read off the dense output. The
maximum norm because a root mean square over 28 components lets one of them err by five times the tolerance: where a
spline's knots are crossed, that cost one to two digits of the loss, and saved 12 to 27 % of the steps. A solver
written for states of 2 to 30 numbers: torchdiffeq spends its time in the dispatch of some thirty small tensor
operations a stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from kansciml._errors import SolveError

STAGES = 7
ORDER = 5
C = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
A = np.zeros((STAGES, STAGES))
A[1, :1] = [1 / 5]
A[2, :2] = [3 / 40, 9 / 40]
A[3, :3] = [44 / 45, -56 / 15, 32 / 9]
A[4, :4] = [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729]
A[5, :5] = [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656]
A[6, :6] = [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]
B = A[6]  # the last stage is evaluated at the solution: first stage of the next step (FSAL)
E = B - np.array([1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60])
_MID = 0.5 * np.array(
    [
        6025192743 / 30085553152,
        0,
        51252292925 / 65400821598,
        -2691868925 / 45128329728,
        187940372067 / 1594534317056,
        -1776094331 / 19743644256,
        11237099 / 235043384,
    ]
)
# Dense output u(t + theta h) = u + h sum_j (DENSE[0, j] theta + ... + DENSE[3, j] theta^4) k_j: the quartic through
# both ends, both slopes and the midpoint.
_FIRST, _LAST = np.eye(STAGES)[0], np.eye(STAGES)[-1]
DENSE = np.stack(
    [
        _FIRST,
        _LAST - 4 * _FIRST - 5 * B + 16 * _MID,
        5 * _FIRST - 3 * _LAST + 14 * B - 32 * _MID,
        2 * (_LAST - _FIRST) - 8 * B + 16 * _MID,
    ]
)

SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2

Rhs = Callable[[float, np.ndarray, np.ndarray], None]
"""``rhs(t, u, out)`` writes du/dt at the state u (n,) into out (n,)."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The accepted steps of one solve.

    t (N,), h (N,): start and size of each step. stage_states (N, 7, n): states at which the field was evaluated; the
    first is the state at the step's start, the last at its end. stage_slopes (N, 7, n): the values there.
    """

    t: np.ndarray
    h: np.ndarray
    stage_states: np.ndarray
    stage_slopes: np.ndarray
    rejected: int

    def locate(self, saveat: Float64[np.ndarray, " T"]) -> tuple[Int[np.ndarray, " T"], Float64[np.ndarray, "T 7"]]:
        """Step index and dense-output weights, without the factor h, of each save time."""
        step = np.minimum(np.searchsorted(self.t + self.h, saveat, side="left"), len(self.h) - 1)
        theta = (saveat - self.t[step]) / self.h[step]
        return step, (theta[:, None] ** np.arange(1, 5)) @ DENSE

    def interpolate(
        self, step: Int[np.ndarray, " T"], weights: Float64[np.ndarray, "T 7"]
    ) -> Float64[np.ndarray, "T n"]:
        """States at the save times that `locate` found."""
        increment = np.matmul(weights[:, None, :], self.stage_slopes[step])[:, 0]
        return self.stage_states[step, 0] + self.h[step, None] * increment


def integrate(
    rhs: Rhs, u0: Float64[np.ndarray, " n"], t0: float, t_end: float, rtol: float, atol: float, max_steps: int = 20_000
) -> Steps:
    """Solve du/dt = rhs(t, u), u(t0) = u0, until a step reaches `t_end` >= t0.

    Raises:
        SolveError: the state stopped being finite, the step size underflowed, or more than `max_steps` steps.
    """
    with np.errstate(all="ignore"):  # a field that blows up is an answer here, told by SolveError
        return _integrate(rhs, u0, t0, t_end, rtol, atol, max_steps)


def _integrate(rhs, u0, t0, t_end, rtol, atol, max_steps) -> Steps:
    n = len(u0)
    capacity = 64
    states, slopes = np.empty((2, capacity, STAGES, n))
    times, sizes = np.empty(capacity), np.empty(capacity)
    states[0, 0] = u0
    rhs(t0, u0, slopes[0, 0])
    h = _first_step(rhs, t0, u0, slopes[0, 0].copy(), rtol, atol)

    h_a, error, tol, magnitude = np.empty_like(A), np.empty(n), np.empty(n), np.empty(n)
    last_magnitude = np.abs(u0)
    stages = [(j, float(C[j]), h_a[j, :j]) for j in range(1, STAGES)]
    t, accepted, rejected = t0, 0, 0
    while True:
        u, k = states[accepted], slopes[accepted]
        start = u[0]
        while True:
            if accepted + rejected >= max_steps or t + h <= t or not h > 0:
                raise _failure(t, h, start, accepted, rejected, max_steps)
            np.multiply(A, h, out=h_a)
            for j, c, row in stages:
                stage = u[j]
                np.dot(row, k[:j], out=stage)
                stage += start
                rhs(t + c * h, stage, k[j])
            # Largest error over atol + rtol max(|u0|, |u1|)
            np.dot(E, k, out=error)
            np.abs(stage, out=magnitude)
            np.maximum(last_magnitude, magnitude, out=tol)
            tol *= rtol
            tol += atol
            error /= tol
            ratio = h * float(np.abs(error, out=error).max())
            if ratio <= 1.0:
                break
            rejected += 1
            h *= max(SAFETY / ratio**0.2, SHRINK) if ratio < np.inf else SHRINK
        times[accepted], sizes[accepted] = t, h
        t += h
        accepted += 1
        if t >= t_end:
            break
        h *= GROW if ratio == 0.0 else min(GROW, max(SAFETY / ratio**0.2, 1.0))
        last_magnitude, magnitude = magnitude, last_magnitude
        if accepted == capacity:
            capacity *= 2
            states, slopes = (np.concatenate([a, np.empty_like(a)]) for a in (states, slopes))
            times, sizes = (np.concatenate([a, np.empty_like(a)]) for a in (times, sizes))
            k, u = slopes[accepted - 1], states[accepted - 1]
        states[accepted, 0], slopes[accepted, 0] = u[-1], k[-1]
    return Steps(times[:accepted], sizes[:accepted], states[:accepted], slopes[:accepted], rejected)


def _first_step(rhs: Rhs, t0: float, u0: np.ndarray, f0: np.ndarray, rtol: float, atol: float) -> float:
    """Starting step size of Hairer, Norsett & Wanner I, sec. II.4."""
    scale = atol + np.abs(u0) * rtol
    d0, d1 = _size(u0 / scale), _size(f0 / scale)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    f1 = np.empty_like(f0)
    rhs(t0 + h0, u0 + h0 * f0, f1)
    d2 = _size((f1 - f0) / scale) / h0
    h1 = max(1e-6, h0 * 1e-3) if d1 <= 1e-15 and d2 <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / ORDER)
    return float(min(100 * h0, h1))


def _size(x: np.ndarray) -> float:
    return float(np.abs(x).max())


def _failure(t: float, h: float, u: np.ndarray, accepted: int, rejected: int, max_steps: int) -> SolveError:
    if accepted + rejected >= max_steps:
        remedy = "raise max_steps, or loosen rtol and atol"
        return SolveError(f"the solution needs more than {max_steps} steps (reached t = {t:.6g}): {remedy}")
    return SolveError(f"the solution blows up near t = {t:.6g} (largest state {np.max(np.abs(u)):.3g}, step {h:.3g})")
