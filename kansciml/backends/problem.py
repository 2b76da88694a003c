"""The learning problem that every ODE backend is given: a field, and series of measurements to fit. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError
from kansciml.backends._engines.relaxing import EXPLICIT, relaxing
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import Spec
from kansciml.models.inputs import Inputs
from kansciml.models.lux_field import LuxField
from kansciml.models.units import Units, to_digits, to_places

if TYPE_CHECKING:
    from kansciml.backends.module_field import ModuleField

MAX_STEPS = 20_000
"""Steps of one solve before it is given up; the default of `OdeProblem.max_steps`."""


@dataclass(frozen=True, eq=False)
class Series:
    """One trajectory to fit.

    Args:
        u0: initial state (n,) at `t0`; where it is `learned`, the first guess of it.
        saveat: times (T,), strictly increasing, all >= t0.
        data: measured states (T, n); NaN where a component was not measured.
        t0: initial time.
        weights: of the measurements in the loss, (T, n), not negative; None: 1 each.
        inputs: of the field, covering t0 to the last save time.
        learned: whether the initial state is a parameter.
        follows: index of the series whose end is to meet this one's start (multiple shooting); its last save time is
            `t0`, and `learned` is true.
        name: for messages and pictures.

    Raises:
        UsageError: wrong shape, infinite numbers, unsorted times, a negative weight, times without inputs.
    """

    u0: np.ndarray
    saveat: np.ndarray
    data: np.ndarray
    t0: float = 0.0
    weights: np.ndarray | None = None
    inputs: Inputs | None = None
    learned: bool = False
    follows: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        of = f" of {self.name}" if self.name else ""
        for name, n_axes in (("u0", 1), ("saveat", 1), ("data", 2), ("weights", 2)):
            if getattr(self, name) is not None:
                value = np.array(getattr(self, name), dtype=np.float64)  # a writable copy, as torch wants it
                if value.ndim != n_axes:
                    raise UsageError(f"got {name}{of} of shape {value.shape}: expected {n_axes} axes")
                if not (np.isfinite(value) | (np.isnan(value) if name == "data" else False)).all():
                    raise UsageError(f"{name}{of} holds a number that is not finite: remove NaN and infinite values")
                object.__setattr__(self, name, value)
        shapes = [self.data.shape[1:], self.u0.shape, self.data.shape if self.weights is None else self.weights.shape]
        if shapes[0] != shapes[1] or shapes[2] != self.data.shape:
            weights = "" if self.weights is None else f", weights of shape {self.weights.shape}"
            raise UsageError(
                f"got u0 of shape {self.u0.shape} and data of shape {self.data.shape}{weights}{of}: expected (n,) and"
                " (T, n)"
            )
        if len(self.saveat) == 0 or len(self.saveat) != len(self.data):
            raise UsageError(
                f"got {len(self.saveat)} save times and {len(self.data)} rows of data{of}: expected as many"
            )
        if np.any(np.diff(self.saveat) <= 0) or self.saveat[0] < self.t0:
            raise UsageError(f"saveat{of} must be strictly increasing and start at t0 or later: sort it, drop repeats")
        if self.weights is not None and np.any(self.weights < 0):
            raise UsageError(f"got a negative weight{of}: expected weights of at least 0")
        if self.inputs is not None:
            self.inputs.check_cover(self.t0, self.saveat[-1], of)

    @property
    def times(self) -> np.ndarray:
        """All times that it names, increasing: initial time, save times, knots of inputs."""
        return np.unique(np.concatenate([[self.t0], self.saveat, self.inputs.t if self.inputs else []]))

    def told(self) -> tuple[Any, ...]:
        """What distinguishes it from others, for fingerprints; what is not used is left out."""
        inputs = self.inputs and (self.inputs.t, self.inputs.values, self.inputs.kind)
        further = self.weights, inputs, self.learned or None, self.follows
        return self.u0, self.t0, self.saveat, self.data, *((further,) if any(x is not None for x in further) else ())

    @cached_property
    def _present(self) -> np.ndarray | None:
        """Where there is a measurement (T, n); None: everywhere."""
        present = ~np.isnan(self.data)
        return None if present.all() else present

    def rows(self, share: float) -> int:
        """Save points within a share of the horizon, which is counted from the first measurement on: at least two."""
        n_save = len(self.saveat)
        if share >= 1:
            return n_save
        counted = ~np.isnan(self.data) if self.weights is None else ~np.isnan(self.data) & (self.weights > 0)
        first = int(np.argmax(counted.any(axis=1)))
        return min(n_save, first + max(2, round(share * (n_save - first))))

    def measured(self, rows: int) -> float:
        """Sum of the weights of the measurements in the first rows."""
        if self.weights is not None:
            weights = self.weights[:rows]
            return float(weights.sum() if self._present is None else weights[self._present[:rows]].sum())
        return float(self.data[:rows].size if self._present is None else self._present[:rows].sum())


@dataclass(frozen=True, eq=False)
class OdeProblem:
    """Learning problem: field, series of measurements to fit, and solver settings.

    Loss (dimensionless): sum of w ((u(t_s; params) - data_s) / loss_scale)^2 over all measurements, over the sum of
    their weights w. With multiple shooting, plus `continuity` times the mean over links and components of
    ((end - next start) / loss_scale)^2.

    Its flat parameter vector holds the field's, then the learned initial states one after the other, in the order of
    the series and in the variables v of `units`.

    Args:
        field: the vector field.
        series: the trajectories, one or more.
        loss_scale: (n,) positive; None means ones.
        rtol, atol: solver tolerances, both positive: a step may err by atol + rtol |v| in the variables of `units`.
        max_steps: accepted and rejected steps after which a solve is given up with a SolveError; torchdiffeq, behind
            the gradients backprop and adjoint, counts anew after each save point, and Radau and BDF in torch count
            accepted steps alone.
        units: variables v, tau that the problem is solved in; None: the states as they are, time counted from the
            first initial time.
        solver: "3", "5" or "8" (explicit, of that order), "stiff" (implicit), or a name that the backend knows.
        continuity: weight of the links of multiple shooting.

    Raises:
        UsageError: wrong shape, non-finite numbers, non-positive tolerance or max_steps, nothing measured.
    """

    field: Spec | LuxField | ModuleField
    series: tuple[Series, ...]
    loss_scale: np.ndarray = cast(np.ndarray, None)
    rtol: float = 1e-7
    atol: float = 1e-7
    max_steps: int = MAX_STEPS
    units: Units | None = None
    solver: str = "5"
    continuity: float = 1.0

    @classmethod
    def single(
        cls, field: Spec | LuxField | ModuleField, u0: Any, saveat: Any, data: Any, t0: float = 0.0,
        loss_scale: Any = None, rtol: float = 1e-7, atol: float = 1e-7, **settings: Any,
    ) -> OdeProblem:  # fmt: skip
        """The problem of one trajectory: see `Series` and `OdeProblem`."""
        return cls(field, (Series(u0, saveat, data, t0),), loss_scale, rtol, atol, **settings)

    def __post_init__(self) -> None:
        n = self.field.state_size
        object.__setattr__(self, "series", tuple(self.series))
        scale = np.ones(n) if self.loss_scale is None else np.array(self.loss_scale, dtype=np.float64)
        object.__setattr__(self, "loss_scale", scale)
        if not self.series:
            raise UsageError("got no series: expected at least one trajectory to fit")
        for one in self.series:
            if one.u0.shape != (n,):
                raise UsageError(f"got u0 of shape {one.u0.shape}: expected ({n}), n = {n} state components")
            if (size := one.inputs.size if one.inputs else 0) != self.field.inputs:
                raise UsageError(f"got {size} inputs for a field of {self.field.inputs}: expected as many")
        if scale.shape != (n,) or not (np.isfinite(scale).all() and np.all(scale > 0)):
            raise UsageError(f"got loss_scale {scale}: expected {n} positive numbers")
        if not (self.rtol > 0 and self.atol > 0 and np.isfinite([self.rtol, self.atol]).all()):
            raise UsageError(f"got rtol {self.rtol}, atol {self.atol}: expected positive tolerances, such as 1e-7")
        if not 1 <= self.max_steps < 2**63 or self.max_steps != int(self.max_steps):
            raise UsageError(
                f"got max_steps {self.max_steps}: expected a whole number of at least 1, such as {MAX_STEPS}"
            )
        if not sum(one.measured(len(one.data)) for one in self.series) > 0:
            raise UsageError("nothing is measured in any series: the data hold NaN or weights of 0 alone")
        if not (0 < self.continuity < np.inf):
            raise UsageError(f"got continuity {self.continuity}: expected a positive weight, such as 1")
        for i, one in enumerate(self.series):
            if one.follows is not None:
                before = self.series[one.follows] if 0 <= one.follows < len(self.series) != i else None
                apart = 0.0 if before is None else abs(before.saveat[-1] - one.t0)  # an ulp, in a solver's variables
                if before is None or apart > 4 * np.spacing(abs(one.t0)) or not one.learned:
                    raise UsageError(
                        f"got series {i} after series {one.follows}: expected one whose last save time is {one.t0}, and"
                        " a learned initial state"
                    )
        units = self.solved_in
        if units.state.shape != (n,) or units.origin.shape != (n,):
            raise UsageError(f"got units {units}: expected {n} state components")

    @property
    def u0(self) -> np.ndarray:
        """Initial state (n,) of the first series."""
        return self.series[0].u0

    @property
    def t0(self) -> float:
        """Initial time of the first series."""
        return self.series[0].t0

    @property
    def saveat(self) -> np.ndarray:
        """Save times (T,) of the first series."""
        return self.series[0].saveat

    @property
    def data(self) -> np.ndarray:
        """Data (T, n) of the first series."""
        return self.series[0].data

    @cached_property
    def learned(self) -> np.ndarray:
        """Indices of the series whose initial state is learned."""
        return np.array([i for i, one in enumerate(self.series) if one.learned], dtype=np.intp)

    @cached_property
    def n_parameters(self) -> int:
        """Length of the flat parameter vector."""
        return self.field.n_parameters + len(self.learned) * self.field.state_size

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.stack([one.u0 for one in self.in_own_units().series])

    def split(self, params: Float64[np.ndarray, " P"]) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, "K n"]]:
        """The field's parameters, and the initial states of all series in the variables v."""
        count, starts = self.n_parameters - len(self.learned) * self.field.state_size, self._starts
        if len(self.learned):
            starts = starts.copy()
            starts[self.learned] = params[count:].reshape(-1, starts.shape[1])
        return params[:count], starts

    def initial_parameters(self, seed: int = 0) -> Float64[np.ndarray, " P"]:
        """The field's initial parameters, then the first guesses of the learned initial states.

        With an implicit solver a built-in field is `relaxing` at first. Where rates differ by orders of magnitude, its
        trajectories leave the data otherwise, however small du/dt is at first.
        """
        field = self.field
        if self.solver not in EXPLICIT and isinstance(field, FieldSpec):
            params = relaxing(field, seed)
        else:
            params = field.initial_parameters(seed)
        return np.concatenate([params, self._starts[self.learned].ravel()])

    @cached_property
    def solved_in(self) -> Units:
        """`units`, with the default filled in."""
        return self.units or Units.plain(self.field.state_size, min(one.t0 for one in self.series))

    def inputs_in(self, values: np.ndarray) -> np.ndarray:
        """Inputs as the field in these units is given them."""
        return values if self.solved_in.are_plain else self.field.inputs_in(values)

    def checked_inputs(self, inputs: Inputs | None, begin: float, end: float) -> Inputs | None:
        """Inputs of a solve from `begin` to `end`, in the solver's variables.

        Raises:
            UsageError: another number of them than the field has, or they do not cover the times.
        """
        size = inputs.size if inputs else 0
        if size != self.field.inputs:
            raise UsageError(f"got {size} inputs for a field of {self.field.inputs}: expected as many")
        if inputs is None:
            return None
        inputs.check_cover(begin, end)
        units = self.solved_in
        return (
            inputs if units.are_plain else Inputs(units.times_in(inputs.t), self.inputs_in(inputs.values), inputs.kind)
        )

    def in_own_units(self) -> OdeProblem:
        """This problem in the variables that it is solved in, with the same parameters and the same loss."""
        units = self.solved_in
        if units.are_plain:
            return self
        fits = all(np.all(np.diff(_rounded(units.times_in(one.times))) > 0) for one in self.series)
        series = tuple(self._in_units(one, units, fits) for one in self.series)  # alike, so that links stay closed
        scale = to_digits(self.loss_scale / units.state)
        return replace(self, field=self.field.in_units(units), series=series, loss_scale=scale, units=None)

    def _in_units(self, one: Series, units: Units, fits: bool) -> Series:
        inputs, times = one.inputs, one.times
        tau = _rounded(units.times_in(times)) if fits else units.times_in(times)
        return replace(
            one,
            u0=to_places(units.states_in(one.u0)),
            saveat=tau[np.searchsorted(times, one.saveat)],
            data=to_places(units.states_in(one.data)),
            t0=float(tau[np.searchsorted(times, one.t0)]),
            inputs=inputs and Inputs(tau[np.searchsorted(times, inputs.t)], self.inputs_in(inputs.values), inputs.kind),
        )


def _rounded(tau: np.ndarray) -> np.ndarray:
    """Times to 36 binary digits; far from the first one no coarser than near it."""
    return np.where(np.abs(tau) > 1, to_places(tau), to_digits(tau))
