"""The variables that a problem is solved in, and the user's at the outside of every solver. NumPy only.

Step control, first steps and optimisers hold numbers against constants. They are therefore given states and times of
order one, whatever unit the data are in: see `Units`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kansciml._errors import SolveError, UsageError

if TYPE_CHECKING:
    from kansciml.backends.base import OdeProblem


BITS = 36
"""Numbers of a problem in its own units are rounded to these binary places, 7e-12, far below any tolerance. A change of
unit costs a rounding error, which hundreds of optimiser steps magnify without limit: rounded away, the same data in
another unit give the same training bit by bit."""


def to_places(x: np.ndarray) -> np.ndarray:
    """The nearest multiples of 2^-36: for numbers whose errors are absolute."""
    return np.ldexp(np.rint(np.ldexp(x, BITS)), -BITS)


def to_digits(x: np.ndarray) -> np.ndarray:
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

    def states_in(self, u: np.ndarray) -> np.ndarray:
        """v of states u (..., n)."""
        return u if self.are_plain else (u - self.origin) / self.state

    def states_out(self, v: np.ndarray) -> np.ndarray:
        """u of states v (..., n)."""
        return v if self.are_plain else self.origin + self.state * v

    def times_in(self, t: np.ndarray) -> np.ndarray:
        """tau (T,) of strictly increasing times t (T,), strictly increasing as well."""
        if self.are_plain:
            return t
        tau = (t - self.t0) / self.time
        for i in np.flatnonzero(np.diff(tau) <= 0):  # closer than float64 resolves this far from t0
            tau[i + 1] = np.nextafter(tau[i], np.inf)
        return tau


class SolverInUnits:
    """What solvers of all backends share: requests in the user's units, checked, to a solver of the problem in its own.

    Subclasses work on `inner`, the problem in the variables of its `Units`, and define ``_rhs(v, tau, params)`` and
    ``_trajectory(params, tau, rtol, atol)``, for strictly increasing tau from 0 on, not all 0.
    """

    def __init__(self, problem: OdeProblem) -> None:
        self.problem = problem
        self.units, self.inner = problem.solved_in, problem.in_own_units()

    def rhs(self, u: np.ndarray, t: float | np.ndarray, params: np.ndarray) -> np.ndarray:
        """du/dt (B, n) at states u (B, n) and a time, or one for each state (B,)."""
        units, n = self.units, self.problem.field.state_size
        u, t = np.array(u, dtype=np.float64, ndmin=2), np.asarray(t, dtype=np.float64)
        if u.ndim != 2 or u.shape[1] != n:
            raise UsageError(f"got states of shape {u.shape}: expected (B, {n})")
        if t.shape not in ((), (len(u),)) or not np.isfinite(t).all():
            raise UsageError(f"got t {t}: expected a finite time, or one for each of {len(u)} states")
        tau = (np.broadcast_to(t, len(u)) - units.t0) / units.time
        slopes = self._rhs(units.states_in(u), tau, self._checked(params))
        if not np.isfinite(slopes).all():
            raise SolveError("du/dt is not finite: the field grew beyond float64")
        return slopes if units.are_plain else slopes * (units.state / units.time)

    def trajectory(
        self,
        params: np.ndarray,
        saveat: float | np.ndarray | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> np.ndarray:
        """States (T, n) at `saveat`, a number or (T,), in any order, each >= t0; times and tolerances default to the
        problem's."""
        problem, units = self.problem, self.units
        asked = problem.saveat if saveat is None else np.atleast_1d(np.asarray(saveat, dtype=np.float64))
        if asked.ndim != 1:
            raise UsageError(f"got times of shape {asked.shape}: expected one number or a vector of times")
        if not np.isfinite(asked).all() or np.any(asked < problem.t0):
            raise UsageError(f"got times {asked.min()} to {asked.max()}: expected finite times from {problem.t0} on")
        rtol, atol = problem.rtol if rtol is None else rtol, problem.atol if atol is None else atol
        if not (rtol > 0 and atol > 0):
            raise UsageError(f"got rtol {rtol}, atol {atol}: expected positive tolerances, such as 1e-7")
        params, (t, order) = self._checked(params), np.unique(asked, return_inverse=True)
        if not np.any(t > problem.t0):
            return np.tile(problem.u0, (len(asked), 1))
        try:
            v = self._trajectory(params, units.times_in(t), rtol, atol)
        except SolveError as error:
            raise self._told(error) from error
        u = units.states_out(v)
        if t[0] == problem.t0:
            u[0] = problem.u0  # not by way of v and back
        return u[order]

    def _checked(self, params: np.ndarray) -> np.ndarray:
        params = np.ascontiguousarray(params, dtype=np.float64)
        expected = self.problem.field.n_parameters
        if params.shape != (expected,):
            raise UsageError(f"got parameters of shape {params.shape}: expected ({expected},)")
        return params

    def _told(self, error: SolveError) -> SolveError:
        """The error with what its numbers mean."""
        units = self.units
        if units.are_plain:
            return error
        return SolveError(f"{error} (t counted from {units.t0:.15g} in units of {units.time:.6g}, states scaled)")
