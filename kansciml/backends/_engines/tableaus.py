"""Explicit Runge-Kutta pairs: Bogacki-Shampine 3(2), Dormand-Prince 5(4), and DOP853, of order 8.

Dormand-Prince is torchdiffeq's ``dopri5`` with Shampine's midpoint; the others have the coefficients of SciPy's RK23
and DOP853 (Bogacki & Shampine 1989; Dormand & Prince 1980; Hairer, Norsett & Wanner I, sec. II.5 and II.6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.polynomial import Polynomial
from scipy.integrate import DOP853 as SCIPY_853
from scipy.integrate import RK23


@dataclass(frozen=True, eq=False)
class Tableau:
    """An explicit pair whose last stage is evaluated at the solution: first stage of the next step (FSAL).

    Args:
        name: as `OdeProblem.solver` knows it. order: of the solution; its error estimate shrinks like h^order.
        a: (R, R), strictly lower triangular, c (R,): k_j = f(t + c_j h, u + h sum_m a_jm k_m). The first S stages
            make the step, row S - 1 holds its weights; the others are for dense output alone.
        error: (S,) weights of the error estimate; or two rows (2, S), of which DOP853 combines the estimates.
        dense: (D, R): u(t + theta h) = u + h sum_j (dense[0, j] theta + ... + dense[D - 1, j] theta^D) k_j.
    """

    name: str
    order: int
    c: np.ndarray
    a: np.ndarray
    error: np.ndarray
    dense: np.ndarray

    @property
    def stages(self) -> int:
        """S, the stages of a step."""
        return self.error.shape[-1]

    def weights(self, theta: Float64[np.ndarray, " T"]) -> Float64[np.ndarray, "T R"]:
        """Dense-output weights of the stages, without the factor h."""
        return (theta[:, None] ** np.arange(1, len(self.dense) + 1)) @ self.dense


def _dopri5() -> Tableau:
    c = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
    a = np.zeros((7, 7))
    a[1, :1] = [1 / 5]
    a[2, :2] = [3 / 40, 9 / 40]
    a[3, :3] = [44 / 45, -56 / 15, 32 / 9]
    a[4, :4] = [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729]
    a[5, :5] = [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656]
    a[6, :6] = [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]
    b = a[6]
    error = b - np.array([1951 / 21600, 0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60])
    mid = 0.5 * np.array(
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
    first, last = np.eye(7)[0], np.eye(7)[-1]
    dense = [  # the quartic through both ends, both slopes and the midpoint
        first,
        last - 4 * first - 5 * b + 16 * mid,
        5 * first - 3 * last + 14 * b - 32 * mid,
        2 * (last - first) - 8 * b + 16 * mid,
    ]
    return Tableau("dopri5", 5, c, a, error, np.stack(dense))


def _bosh3() -> Tableau:
    a = np.zeros((4, 4))
    a[:3, :3], a[3, :3] = RK23.A, RK23.B
    return Tableau("bosh3", 3, np.append(RK23.C, 1.0), a, RK23.E, RK23.P.T)


def _dop853() -> Tableau:
    a = np.zeros((16, 16))
    a[:12, :12], a[12, :12], a[13:] = SCIPY_853.A, SCIPY_853.B, SCIPY_853.A_EXTRA
    c = np.concatenate([SCIPY_853.C, [1.0], SCIPY_853.C_EXTRA])
    b, first, last = a[12], np.eye(16)[0], np.eye(16)[12]
    # u + h theta (F_0 + (1 - theta) (F_1 + theta (F_2 + (1 - theta) (F_3 + ...)))), F_i combinations of the stages
    rows = [b, first - b, 2 * b - first - last, *SCIPY_853.D]
    dense, factor = np.zeros((7, 16)), Polynomial([1.0])
    for i, row in enumerate(rows):
        factor = factor * Polynomial([0, 1] if i % 2 == 0 else [1, -1])
        dense[: len(factor.coef) - 1] += factor.coef[1:, None] * row
    return Tableau("dop853", 8, c, a, np.stack([SCIPY_853.E5, SCIPY_853.E3]), dense)


TABLEAUS = {tableau.name: tableau for tableau in (_bosh3(), _dopri5(), _dop853())}
