"""The functions that an edge is read as, phi(x) = c f(a x + b) + d, and the fit of one of them to values of an edge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Line = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Shape (..., p) -> a, b (...) of u = a z + b, where z is the edge's input scaled to -1 ... 1."""
GAP = 1e-6
"""Least distance of a pole or branch point from the inputs, in halves of their range: rounding cannot bridge it."""


def _shifted(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(shape.shape[:-1]), -shape[..., 0]


def _begins_left(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u > 0 from a point left of the inputs on."""
    return np.ones(shape.shape[:-1]), 1 + GAP + np.exp(np.minimum(shape[..., 0], 50.0))


def _begins_right(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _begins_left(shape)
    return -a, b


def _grows(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u from 0 down: an exponential that cannot overflow."""
    return shape[..., 0], -np.abs(shape[..., 0])


def _placed(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A slope above 0, as its logarithm, and a centre."""
    a = np.exp(np.clip(shape[..., 0], -20.0, 20.0))
    return a, -a * shape[..., 1]


def _waves(shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return shape[..., 0], shape[..., 1]


def _grid(*axes: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


_SHIFTED = ((_shifted, _grid(np.linspace(-3, 3, 49))),)
_BENT = ((_shifted, _grid(np.linspace(-0.95, 0.95, 39))),)
_BEGUN = ((_begins_left, _grid(np.linspace(-9, 3, 25))), (_begins_right, _grid(np.linspace(-9, 3, 25))))
_GROWN = ((_grows, _grid(np.geomspace(0.05, 30, 30) * np.array([[1], [-1]])).reshape(-1, 1)),)
_PLACED = ((_placed, _grid(np.log(np.geomspace(0.3, 30, 14)), np.linspace(-2, 2, 17))),)
_WAVED = ((_waves, _grid(np.linspace(0.25, 30, 120), np.arange(6) * math.pi / 6)),)


@dataclass(frozen=True)
class Function:
    """A function f of c f(a x + b) + d.

    Args:
        text: f as it is written, with {} for its argument. value: f, on arrays. symbol: f in SymPy, given the library.
        constants: how many constants the family c f(a x + b) + d really has; the fewer, the simpler.
        searches: where a and b are searched: what they follow from, and a grid of it.
        degree: n where f(k u) = k^n f(u) for k > 0. parity: 1 or -1 where f(-u) = f(u) or -f(u), else 0.
    """

    text: str
    value: Callable[[np.ndarray], np.ndarray]
    symbol: Callable[[Any, Any], Any]
    constants: int
    searches: tuple[tuple[Line, np.ndarray], ...]
    degree: float | None = None
    parity: int = 0


FUNCTIONS: dict[str, Function] = {
    "x": Function("{}", lambda u: u, lambda s, u: u, 2, ((_shifted, np.zeros((1, 1))),), 1, -1),
    "x^2": Function("({})^2", lambda u: u**2, lambda s, u: u**2, 3, _SHIFTED, 2, 1),
    "exp": Function("exp({})", np.exp, lambda s, u: s.exp(u), 3, _GROWN),
    "sqrt": Function("sqrt({})", np.sqrt, lambda s, u: s.sqrt(u), 3, _BEGUN, 0.5),
    "log": Function("log({})", np.log, lambda s, u: s.log(u), 3, _BEGUN),
    "1/x": Function("({})^-1", lambda u: 1 / u, lambda s, u: 1 / u, 3, _BEGUN, -1, -1),
    "x^3": Function("({})^3", lambda u: u**3, lambda s, u: u**3, 3, _SHIFTED, 3, -1),
    "1/x^2": Function("({})^-2", lambda u: u**-2.0, lambda s, u: u**-2, 3, _BEGUN, -2, 1),
    "x^4": Function("({})^4", lambda u: u**4, lambda s, u: u**4, 3, _SHIFTED, 4, 1),
    "abs": Function("|{}|", np.abs, lambda s, u: s.Abs(u), 3, _BENT, 1, 1),
    "sin": Function("sin({})", np.sin, lambda s, u: s.sin(u), 4, _WAVED, None, -1),
    "tanh": Function("tanh({})", np.tanh, lambda s, u: s.tanh(u), 4, _PLACED, None, -1),
    "gaussian": Function("exp(-({})^2)", lambda u: np.exp(-(u**2)), lambda s, u: s.exp(-(u**2)), 4, _PLACED, None, 1),
    "arctan": Function("arctan({})", np.arctan, lambda s, u: s.atan(u), 4, _PLACED, None, -1),
}
"""By name. A cosine is a sine, a logistic function a tanh; poles lie outside the inputs."""
BEGUN = {name for name, function in FUNCTIONS.items() if function.searches is _BEGUN}
"""Those with a pole or a branch point."""
CONSTANT = "constant"
ROUNDING = 1e-12
"""Differences that are rounding alone in float64, of the largest value."""


@dataclass(frozen=True)
class Fit:
    """c f(a x + b) + d as it fits an edge best, by least squares.

    Args:
        function: name in `FUNCTIONS`, or ``constant``: d alone.
        r2: share of the variance of the edge's values that it explains, over the edge's inputs.
    """

    function: str
    a: float
    b: float
    c: float
    d: float
    r2: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values at x; not finite where f is not defined."""
        if self.function == CONSTANT:
            return np.full(np.shape(x), self.d)
        with np.errstate(all="ignore"):
            return self.c * FUNCTIONS[self.function].value(self.a * np.asarray(x, float) + self.b) + self.d

    def __str__(self) -> str:
        if self.function == CONSTANT:
            return f"{self.d:g}"
        inner = f"{_factor(self.a)}x{_term(self.b)}"
        value = FUNCTIONS[self.function].text.format(inner).replace("(x)^", "x^")
        return f"{_factor(self.c)}{value}{_term(self.d)}"


def _factor(value: float) -> str:
    return {1.0: "", -1.0: "-"}.get(value, f"{value:g} ")


def _term(value: float) -> str:
    return f" {'-' if value < 0 else '+'} {abs(value):g}" if value else ""


def fit_edges(x: np.ndarray, y: np.ndarray, functions: Sequence[str]) -> list[list[Fit]]:
    """The fit of each function to each edge that leaves one node, best first.

    a and b are searched on a grid, the best of which Levenberg-Marquardt refines; c and d follow in closed form.

    Args:
        x: inputs (n,), not all the same. y: values (n, O), each edge's not all the same.
    """
    from scipy.optimize import leastsq

    middle, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    z = (x - middle) / half
    centred = y - y.mean(0)
    unit = centred / np.linalg.norm(centred, axis=0)
    found: list[list[Fit]] = [[] for _ in unit.T]
    for name in functions:
        function = FUNCTIONS[name]

        def shapes_of(line: Line, shape: np.ndarray) -> np.ndarray:
            """f (..., n) of unit length and mean 0; zero where that is undefined."""
            a, b = line(shape)
            with np.errstate(all="ignore"):
                value = function.value(a[..., None] * z + b[..., None])  # noqa: B023 (called within this turn alone)
                value = value - value.mean(-1, keepdims=True)
                value /= np.linalg.norm(value, axis=-1, keepdims=True)
            return np.where(np.isfinite(value).all(-1, keepdims=True), value, 0.0)

        starts = [(line, grid, (shapes_of(line, grid) @ unit) ** 2) for line, grid in function.searches]
        for o, target in enumerate(unit.T):
            line, grid, shares = max(starts, key=lambda start: start[2][:, o].max())
            shape = grid[shares[:, o].argmax()]

            def residual(shape: np.ndarray) -> np.ndarray:
                value = shapes_of(line, shape)  # noqa: B023
                return target - (value @ target) * value  # noqa: B023

            if len(grid) > 1:
                shape = leastsq(residual, shape, ftol=1e-15, xtol=1e-12, maxfev=200, full_output=True)[0]
            a, b = (float(part) for part in line(shape))
            fit = _fit(name, a / half, b - a * middle / half, x, y[:, o])
            found[o] += [fit] if fit is not None else []
    return [sorted(fits, key=lambda fit: -fit.r2) for fits in found]


def _fit(name: str, a: float, b: float, x: np.ndarray, y: np.ndarray) -> Fit | None:
    """The fit with these a and b, if f varies there: c and d by least squares, constants as simple as they can be."""
    function = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        value = function.value(a * x + b)
        centred = value - value.mean()
        c = float(centred @ (y - y.mean()) / (centred @ centred))
    if not math.isfinite(c):
        return None
    d = float(y.mean() - c * value.mean())
    r2 = share_explained(y, c * value + d)
    if function.parity and a < 0:
        a, b, c = -a, -b, function.parity * c
    if function.degree is not None:
        c, a, b = c * abs(a) ** function.degree, math.copysign(1, a), b / abs(a)
    if name == "x":
        b, d = 0.0, d + c * b
    elif name == "log":
        d, a, b = d + c * math.log(abs(a)), math.copysign(1, a), b / abs(a)
    elif name == "exp" and c:
        c, b = math.copysign(1, c), b + math.log(abs(c))
    elif name == "sin":
        half_turns = round(b / math.pi)
        b, c = b - half_turns * math.pi, -c if half_turns % 2 else c
    return Fit(name, float(a), float(b), float(c), float(d), r2)


def share_explained(y: np.ndarray, found: np.ndarray, rounding: float = ROUNDING) -> float:
    """R2 of `found` as values of y: 1 less the share of y's variance that is left; -inf where one is not finite.

    Values that differ by `rounding` alone, of the largest, count as equal.
    """
    if not np.isfinite(found).all():
        return -math.inf
    least = len(y) * (rounding * np.abs(y).max()) ** 2 + 1e-300
    return 1.0 - float(((y - found) ** 2).sum() / max(((y - y.mean()) ** 2).sum(), least))
