"""High-order Taylor integration of the five systems in 60-digit decimal arithmetic: the truth for the tests.

Every right-hand side is written a second time here, as a recurrence for the Taylor coefficients of its solution
(Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section I.8), so that a wrong constant in either
place is seen. Only the standard library is used: `decimal` is compiled, and much faster than a Python multiprecision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from operator import mul

WORKING_DIGITS = 60
Series = list[Decimal]


def product_term(a: Series, b: Series, k: int) -> Decimal:
    """Coefficient k of the product of two power series (Cauchy product)."""
    return sum(map(mul, a[: k + 1], b[k::-1]), Decimal(0))


def power_term(base: Series, power: Series, exponent: Decimal, k: int) -> Decimal:
    """Coefficient k >= 1 of base^exponent, from its coefficients below k and those of `base` up to k."""
    total = sum(((exponent * j - (k - j)) * base[j] * power[k - j] for j in range(1, k + 1)), Decimal(0))
    return total / (k * base[0])


def lotka(u: list[Series], order: int) -> None:
    x, y = u
    for k in range(order):
        xy = product_term(x, y, k)
        x.append((Decimal("1.5") * x[k] - xy) / (k + 1))
        y.append((-3 * y[k] + xy) / (k + 1))


def fitzhugh(u: list[Series], order: int) -> None:
    v, w = u
    square: Series = []
    for k in range(order):
        square.append(product_term(v, v, k))
        cube = product_term(square, v, k)
        current, offset = (Decimal("0.5"), Decimal("0.7")) if k == 0 else (Decimal(0), Decimal(0))
        v.append((v[k] - cube / 3 - w[k] + current) / (k + 1))
        w.append((v[k] + offset - Decimal("0.8") * w[k]) / Decimal("12.5") / (k + 1))


def rigid(u: list[Series], order: int) -> None:
    a, b, c = u
    for k in range(order):
        bc, ac, ab = product_term(b, c, k), product_term(a, c, k), product_term(a, b, k)
        a.append(-2 * bc / (k + 1))
        b.append(Decimal("1.25") * ac / (k + 1))
        c.append(-Decimal("0.5") * ab / (k + 1))


def spiral(u: list[Series], order: int) -> None:
    a, b = u
    a_square: Series = []
    b_square: Series = []
    for k in range(order):
        a_square.append(product_term(a, a, k))
        b_square.append(product_term(b, b, k))
        a_cube, b_cube = product_term(a_square, a, k), product_term(b_square, b, k)
        a.append((-Decimal("0.1") * a_cube - 2 * b_cube) / (k + 1))
        b.append((2 * a_cube - Decimal("0.1") * b_cube) / (k + 1))


def pleiades(u: list[Series], order: int) -> None:
    x, y, vx, vy = u[:7], u[7:14], u[14:21], u[21:]
    exponent = Decimal("-1.5")
    pairs = [(i, j) for i in range(7) for j in range(i)]
    # Per pair: differences, squared distance, and its power -3/2.
    series: dict[tuple[int, int], tuple[Series, Series, Series, Series]] = {p: ([], [], [], []) for p in pairs}
    for k in range(order):
        ax, ay = [Decimal(0)] * 7, [Decimal(0)] * 7
        for i, j in pairs:
            dx, dy, square, inverse_cube = series[i, j]
            dx.append(x[j][k] - x[i][k])
            dy.append(y[j][k] - y[i][k])
            square.append(product_term(dx, dx, k) + product_term(dy, dy, k))
            inverse_cube.append(square[0] ** exponent if k == 0 else power_term(square, inverse_cube, exponent, k))
            fx, fy = product_term(dx, inverse_cube, k), product_term(dy, inverse_cube, k)
            ax[i] += (j + 1) * fx  # the mass of star j, counted from 1, is j
            ay[i] += (j + 1) * fy
            ax[j] -= (i + 1) * fx
            ay[j] -= (i + 1) * fy
        for i in range(7):
            x[i].append(vx[i][k] / (k + 1))
            y[i].append(vy[i][k] / (k + 1))
            vx[i].append(ax[i] / (k + 1))
            vy[i].append(ay[i] / (k + 1))


RECURRENCES: dict[str, Callable[[list[Series], int], None]] = {
    "lotka": lotka,
    "fitzhugh": fitzhugh,
    "rigid": rigid,
    "spiral": spiral,
    "pleiades": pleiades,
}


def step_size(u: list[Series], order: int, digits: int) -> float:
    """Largest step whose two last Taylor terms stay below 10^-digits, in every component."""
    size = math.inf
    for k in (order - 1, order):
        largest = max(abs(series[k]) for series in u)
        if largest:
            size = min(size, math.exp(-(digits * math.log(10) + float(largest.ln())) / k))
    return 0.8 * size


def integrate(
    name: str, u0: Sequence[str], times: Sequence[str], order: int = 40, digits: int = 48
) -> list[list[Decimal]]:
    """States at increasing `times` > 0 of the system `name` started from u0 at t = 0.

    Numbers come as decimal strings so that 0.1 means one tenth. The local error of each step is about 10^-digits.
    """
    with localcontext() as context:
        context.prec = WORKING_DIGITS
        state, now, states = [Decimal(value) for value in u0], Decimal(0), []
        for target in map(Decimal, times):
            while now < target:
                u = [[value] for value in state]
                RECURRENCES[name](u, order)
                h = Decimal(step_size(u, order, digits))
                h, now = (target - now, target) if now + h >= target else (h, now + h)
                for i, series in enumerate(u):
                    total = Decimal(0)
                    for term in reversed(series):
                        total = total * h + term
                    state[i] = total
            states.append(list(state))
        return states
