"""What solvers of all backends share: requests in the user's units, answered in the problem's own. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kansciml._errors import SolveError, UsageError

if TYPE_CHECKING:
    from kansciml.backends.base import OdeProblem


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
