"""What every ODE backend is given (`OdeProblem`) and must answer (`OdeSolver`). Torch-free: NumPy only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from kansciml._errors import UsageError
from kansciml.models.field_spec import FieldSpec
from kansciml.models.units import Units, to_digits, to_places

MAX_STEPS = 20_000
"""Steps of one solve before it is given up; the default of `OdeProblem.max_steps`."""


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

    field: FieldSpec
    u0: np.ndarray
    saveat: np.ndarray
    data: np.ndarray
    t0: float = 0.0
    loss_scale: np.ndarray | None = None
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

    def to_message(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """JSON-able header and float64 arrays (u0, saveat, data, loss_scale), for a worker in another process."""
        header = {
            "field": asdict(self.field),
            "t0": self.t0,
            "rtol": self.rtol,
            "atol": self.atol,
            "max_steps": self.max_steps,
        }
        return header, [self.u0, self.saveat, self.data, self.loss_scale]


@runtime_checkable
class OdeSolver(Protocol):
    """An `OdeProblem` made ready by a backend. All arrays are float64 NumPy arrays.

    `rhs`, `trajectory` and `value_and_grad` raise `SolveError` when the solution blows up or needs more than
    `max_steps` steps, and never return NaN.
    """

    problem: OdeProblem
    backend: str
    """Name of the backend, ``"torch"`` or ``"julia"``."""
    method: str
    """How the gradient is computed, e.g. ``"replay"`` or ``"InterpolatingAdjoint"``."""

    def rhs(self, u: np.ndarray, t: float | np.ndarray, params: np.ndarray) -> np.ndarray:
        """du/dt, shape (B, n), at a batch of states u (B, n) and a time, or one for each state (B,)."""

    def trajectory(
        self,
        params: np.ndarray,
        saveat: float | np.ndarray | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> np.ndarray:
        """States (T, n) at `saveat`, a number or (T,), in any order, each >= t0; times and tolerances default to the
        problem's."""

    def value_and_grad(self, params: np.ndarray, horizon: int | None = None) -> tuple[float, np.ndarray]:
        """Loss over the first `horizon` save points (default all) and its gradient (P,)."""

    def close(self) -> None:
        """Free what the solver holds; calling it twice is allowed."""
