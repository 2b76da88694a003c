"""What every ODE backend is given (`OdeProblem`) and must answer (`OdeSolver`). Torch-free: NumPy only."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Float64, Num

from kansciml._errors import SolveError, UsageError
from kansciml.models.field_spec import FieldSpec
from kansciml.models.units import Units, to_digits, to_places

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField

MAX_STEPS = 20_000
"""Steps of one solve before it is given up; the default of `OdeProblem.max_steps`."""
Times = float | int | Sequence[float | int] | Num[np.ndarray, " T"]


@dataclass(frozen=True, eq=False)
class OdeProblem:
    """Learning problem: field, initial state, data to fit, and solver settings.

    Loss (dimensionless): mean over save points and components of ((u(t_s; params) - data_s) / loss_scale)^2.

    Args:
        field: the vector field.
        u0: initial state (n,) at `t0`.
        saveat: times (T,), strictly increasing, all >= t0.
        data: states to fit, (T, n).
        t0: initial time.
        loss_scale: (n,) positive weights' inverse; None means ones.
        rtol, atol: solver tolerances, both positive: a step may err by atol + rtol |v| in the variables of `units`.
        max_steps: accepted and rejected steps after which the solve is given up with a SolveError; torchdiffeq, behind
            the gradients backprop and adjoint, counts anew after each save point.
        units: variables v, tau that the problem is solved in; None: the states as they are, time counted from t0.

    Raises:
        UsageError: wrong shape, non-finite numbers, unsorted times, non-positive tolerance or max_steps.
    """

    field: FieldSpec | ModuleField
    u0: np.ndarray
    saveat: np.ndarray
    data: np.ndarray
    t0: float = 0.0
    loss_scale: np.ndarray = cast(np.ndarray, None)
    rtol: float = 1e-7
    atol: float = 1e-7
    max_steps: int = MAX_STEPS
    units: Units | None = None

    def __post_init__(self) -> None:
        n = self.field.state_size
        if self.loss_scale is None:
            object.__setattr__(self, "loss_scale", np.ones(n))
        for name, shape in (("u0", (n,)), ("saveat", (None,)), ("data", (None, n)), ("loss_scale", (n,))):
            value = np.array(getattr(self, name), dtype=np.float64)  # a writable copy, as torch wants it
            if len(shape) != value.ndim or any(want not in (None, got) for want, got in zip(shape, value.shape)):
                want = ", ".join("T" if size is None else str(size) for size in shape)
                raise UsageError(f"got {name} of shape {value.shape}: expected ({want}), n = {n} state components")
            if not np.all(np.isfinite(value)):
                raise UsageError(f"{name} holds a number that is not finite: remove NaN and infinite values")
            object.__setattr__(self, name, value)
        if len(self.saveat) == 0 or len(self.saveat) != len(self.data):
            raise UsageError(f"got {len(self.saveat)} save times and {len(self.data)} rows of data: expected as many")
        if np.any(np.diff(self.saveat) <= 0) or self.saveat[0] < self.t0:
            raise UsageError("saveat must be strictly increasing and start at t0 or later: sort it, drop repeats")
        if not (self.rtol > 0 and self.atol > 0 and np.isfinite([self.rtol, self.atol]).all()):
            raise UsageError(f"got rtol {self.rtol}, atol {self.atol}: expected positive tolerances, such as 1e-7")
        if not 1 <= self.max_steps < 2**63 or self.max_steps != int(self.max_steps):
            raise UsageError(
                f"got max_steps {self.max_steps}: expected a whole number of at least 1, such as {MAX_STEPS}"
            )
        if not np.all(self.loss_scale > 0):
            raise UsageError(f"got loss_scale {self.loss_scale}: expected positive numbers")
        units = self.solved_in
        if units.state.shape != (n,) or units.origin.shape != (n,) or units.t0 != self.t0:
            raise UsageError(f"got units {units}: expected {n} state components and t0 {self.t0}")

    @property
    def solved_in(self) -> Units:
        """`units`, with the default filled in."""
        return self.units or Units.plain(self.field.state_size, self.t0)

    def in_own_units(self) -> OdeProblem:
        """This problem in the variables that it is solved in, with the same parameters and the same loss."""
        units = self.solved_in
        if units.are_plain:
            return self
        exact = units.times_in(self.saveat)
        rounded = to_digits(exact)
        return replace(
            self,
            field=self.field.in_units(units),
            u0=to_places(units.states_in(self.u0)),
            saveat=rounded if np.all(np.diff(rounded) > 0) else exact,
            data=to_places(units.states_in(self.data)),
            t0=0.0,
            loss_scale=to_digits(self.loss_scale / units.state),
            units=None,
        )


class Integrator(ABC):
    """Slopes and trajectories of an `OdeProblem`: requests in the user's units, checked, and answered by a solver.

    Subclasses work on `inner`, the problem in the variables v, tau of its `Units`, and define `_rhs` and `_trajectory`.
    All arrays are float64. `rhs` and `trajectory` raise `SolveError` when the solution blows up or needs more than
    `max_steps` steps, and never return NaN.
    """

    backend: str
    """Name of the backend, ``"torch"`` or ``"julia"``."""
    method: str
    """How the gradient is computed, e.g. ``"replay"`` or ``"InterpolatingAdjoint"``."""

    def __init__(self, problem: OdeProblem) -> None:
        self.problem = problem
        self.units, self.inner = problem.solved_in, problem.in_own_units()

    @abstractmethod
    def _rhs(self, v: np.ndarray, tau: np.ndarray, params: np.ndarray) -> np.ndarray:
        """dv/dtau (B, n) at v (B, n) and tau (B,)."""

    @abstractmethod
    def _trajectory(self, params: np.ndarray, tau: np.ndarray, rtol: float, atol: float) -> np.ndarray:
        """States v (T, n) at strictly increasing tau (T,) from 0 on, not all 0."""

    def rhs(
        self,
        u: Num[np.ndarray, "B n"],
        t: float | int | Num[np.ndarray, ""] | Num[np.ndarray, " B"],
        params: Float64[np.ndarray, " P"],
    ) -> Float64[np.ndarray, "B n"]:
        """du/dt at states u and a time, or one for each state."""
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
        params: Float64[np.ndarray, " P"],
        saveat: Times | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> Float64[np.ndarray, "T n"]:
        """States at times in any order, each >= t0; times and tolerances default to the problem's."""
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
        with self._telling_units():
            v = self._trajectory(params, units.times_in(t), rtol, atol)
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

    @contextlib.contextmanager
    def _telling_units(self) -> Iterator[None]:
        """Within, a SolveError says what its numbers mean."""
        units = self.units
        try:
            yield
        except SolveError as error:
            if units.are_plain:
                raise
            what = f"(t counted from {units.t0:.15g} in units of {units.time:.6g}, states scaled)"
            raise SolveError(f"{error} {what}") from error


class OdeSolver(Integrator):
    """An `OdeProblem` made ready by a backend, with its loss."""

    @abstractmethod
    def value_and_grad(
        self, params: Float64[np.ndarray, " P"], horizon: int | None = None
    ) -> tuple[float, Float64[np.ndarray, " P"]]:
        """Loss over the first `horizon` save points (default all) and its gradient; raises `SolveError`."""

    def close(self) -> None:
        """Free what the solver holds; calling it twice is allowed."""
