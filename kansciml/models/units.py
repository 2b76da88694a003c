"""The variables that an ODE problem is solved in. NumPy only.

Step control, first steps and optimisers hold numbers against constants. They are therefore given states and times of
order one, whatever unit the data are in: see `Units`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from kansciml._errors import UsageError

States = Float[np.ndarray, "*batch states"]
BITS = 36
"""Numbers of a problem in its own units are rounded to these binary places, 7e-12, far below any tolerance. A change of
unit costs a rounding error, which hundreds of optimiser steps magnify without limit: rounded away, the same data in
another unit give the same training bit by bit."""


def to_places(x: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """The nearest multiples of 2^-36: for numbers whose errors are absolute."""
    return np.ldexp(np.rint(np.ldexp(x, BITS)), -BITS)


def to_digits(x: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """The nearest numbers of 36 binary digits: for numbers whose errors are relative."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(to_places(mantissa), exponent)


@dataclass(frozen=True, eq=False)
class Units:
    """States u = origin + state * v and times t = t0 + time * tau; v and tau are what solvers see.

    Args:
        origin: (n,), in the user's unit, as the rest. Relative tolerances count from here.
        state: (n,), positive; absolute tolerances are multiples of it.
        t0: where tau = 0. Differences of nearby float64 numbers are exact, so a far-away zero of time costs nothing.
        time: positive.
    """

    origin: np.ndarray
    state: np.ndarray
    t0: float = 0.0
    time: float = 1.0

    def __post_init__(self) -> None:
        for name in ("origin", "state"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        numbers = [*self.origin, *self.state, self.t0, self.time]
        if not (np.isfinite(numbers).all() and np.all(self.state > 0) and self.time > 0):
            raise UsageError(f"got units {self}: expected finite numbers, state and time positive")

    def __str__(self) -> str:
        return f"origin {self.origin.tolist()}, state {self.state.tolist()}, t0 {self.t0}, time {self.time}"

    @classmethod
    def plain(cls, size: int, t0: float = 0.0) -> Units:
        """The user's own, time counted from `t0`."""
        return cls(np.zeros(size), np.ones(size), t0)

    @property
    def are_plain(self) -> bool:
        return self.t0 == 0 and self.time == 1 and not np.any(self.origin) and bool(np.all(self.state == 1))

    def states_in(self, u: States) -> States:
        """v of states u."""
        return u if self.are_plain else (u - self.origin) / self.state

    def states_out(self, v: States) -> States:
        """u of states v."""
        return v if self.are_plain else self.origin + self.state * v

    def times_in(self, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """tau of strictly increasing times t, strictly increasing as well."""
        if self.are_plain:
            return t
        tau = (t - self.t0) / self.time
        for i in np.flatnonzero(np.diff(tau) <= 0):  # closer than float64 resolves this far from t0
            tau[i + 1] = np.nextafter(tau[i], np.inf)
        return tau
