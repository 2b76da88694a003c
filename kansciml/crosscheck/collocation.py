r"""Radau IIA of order 17: collocation for stiff systems, to near the precision of float64.

The polynomial of degree 9 that satisfies the equations at the nodes of Radau's quadrature in a step (Hairer & Wanner,
Solving ODEs II, sec. IV.5). A step is compared with two halves of it, which are what is kept: better by a factor of
about 2^17 where the field is smooth, across the kinks of splines still by one of about 2^4.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy.polynomial import legendre

from kansciml._errors import SolveError

STAGES = 9
MAX_STEPS = 20_000
_ITERATIONS = 12
# Nodes on [-1, 1]: zeros of P_s - P_{s-1}, the last one is 1
_NODES = np.append(np.sort(legendre.legroots(np.eye(STAGES + 1)[STAGES] - np.eye(STAGES + 1)[STAGES - 1]))[:-1], 1.0)
_INTEGRALS = [legendre.legint(unit, lbnd=-1) / 2 for unit in np.eye(STAGES)]
C = (1 + _NODES) / 2
A = np.stack([legendre.legval(_NODES, p) for p in _INTEGRALS], axis=1) @ np.linalg.inv(
    legendre.legvander(_NODES, STAGES - 1)
)
_POWERS = np.arange(1, STAGES + 1)
# From values at the nodes, of a polynomial that is 0 at 0, to those at the nodes of either half of the step
_FIRST, _SECOND = ((at[:, None] ** _POWERS) @ np.linalg.inv(C[:, None] ** _POWERS) for at in (C / 2, (1 + C) / 2))

Field = Callable[[np.ndarray, np.ndarray], "tuple[np.ndarray, np.ndarray]"]
"""Times (B,) and states (B, n) -> du/dt (B, n) and its Jacobians (B, n, n) by the states."""


def solve_stiff(
    field: Field, t: float, u: Float64[np.ndarray, " n"], stops: Float64[np.ndarray, " T"], tolerance: float
) -> Float64[np.ndarray, "T n"]:
    """States at increasing times after t, from u at t on; steps end at each of these times.

    Args:
        tolerance: that a step and two halves of it may differ by, relative to 1 + |u|.

    Raises:
        SolveError: more than `MAX_STEPS` steps, or steps too small for float64.
    """
    states, h, tried = np.empty((len(stops), len(u))), stops[0] - t, 0
    for i, stop in enumerate(stops):
        while t < stop:
            tried += 1
            size = min(h, stop - t)
            if tried > MAX_STEPS or t + size / 4 == t:
                raise SolveError(f"the reference solution does not get beyond t = {t:.6g}")
            whole = _step(field, t, u, size, np.zeros((STAGES, len(u))))
            first = None if whole is None else _step(field, t, u, size / 2, _FIRST @ whole)
            if whole is None or first is None:
                h = size / 4
                continue
            middle = u + first[-1]
            second = _step(field, t + size / 2, middle, size / 2, _SECOND @ whole - first[-1])
            if second is None:
                h = size / 4
                continue
            end = middle + second[-1]
            error = float(np.max(np.abs(end - u - whole[-1]) / (1 + np.abs(end)))) / tolerance
            factor = min(4.0, max(0.1, 0.8 * max(error, 1e-30) ** (-1 / (2 * STAGES))))
            if error <= 1:
                t, u = (stop if size == stop - t else t + size), end
                h = max(h, factor * size) if size < h else factor * size
            else:
                h = min(factor, 0.5) * size
        states[i] = u
    return states


def _step(field: Field, t: float, u: np.ndarray, h: float, rise: np.ndarray) -> np.ndarray | None:
    """What the state has risen by at the nodes of a step, by Newton's method; None if it does not converge."""
    n, times, before = len(u), t + C * h, np.inf
    for _ in range(_ITERATIONS):
        slopes, jacobian = field(times, u + rise)
        if not (np.isfinite(slopes).all() and np.isfinite(jacobian).all()):
            return None
        matrix = np.eye(STAGES * n) - h * np.einsum("ij,jab->iajb", A, jacobian).reshape(STAGES * n, STAGES * n)
        change = np.linalg.solve(matrix, (h * (A @ slopes) - rise).ravel()).reshape(STAGES, n)
        rise = rise + change
        moved = float(np.max(np.abs(change) / (1 + np.abs(u + rise))))
        if moved < 1e-15 or 0.3 * before < moved < 1e-12:  # then rounding alone moves it
            return rise
        before = moved
    return None
