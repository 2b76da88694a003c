"""What every ODE backend is given (`OdeProblem`) and must answer (`OdeSolver`). Torch-free: NumPy only."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float64, Num

from kansciml._errors import SolveError, UsageError
from kansciml.backends.problem import MAX_STEPS, OdeProblem, Series
from kansciml.models.inputs import Inputs

__all__ = ["MAX_STEPS", "Integrator", "OdeProblem", "OdeSolver", "Part", "Piece", "Series", "Solved", "Subset", "Times"]

KEPT_PARTS = 16
"""Parts of the data that a solver keeps ready."""
Times = float | int | Sequence[float | int] | Num[np.ndarray, " T"]
Vector = Float64[np.ndarray, " P"]
Loss = Callable[[Sequence[np.ndarray]], "tuple[float, Sequence[np.ndarray]]"]
"""States (T, n) of each series, in the user's units -> loss, and its gradient by each of them."""


@dataclass(frozen=True)
class Subset:
    """A part of the data: these series (None: all), and of each the first share of its save points, see `Series`."""

    series: tuple[int, ...] | None = None
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Piece:
    """One initial value problem in the solver's variables: start (n,) at `t0`, save times (T,), inputs, and the name it
    has in messages, if any."""

    start: np.ndarray
    t0: float
    saveat: np.ndarray
    inputs: Inputs | None = None
    name: str = ""


class Part:
    """Some series of a problem, each with its first save points: what one evaluation of the loss is about.

    Attributes:
        problem, picked, counts: the problem, indices of the series (K,), and how many save points of each.
        begins: (K + 1,) of all R save points, one series after the other: where those of a series begin.
        data, weights: (R, n) both, 0 where nothing was measured; weights None: 1 everywhere.
        size: sum of the weights.
    """

    def __init__(self, problem: OdeProblem, picked: Sequence[int], counts: Sequence[int]) -> None:
        self.problem, self.picked, self.counts = problem, list(picked), list(counts)
        self.begins = np.cumsum([0, *counts])
        chosen = [(problem.series[k], rows) for k, rows in zip(picked, counts)]
        self.size = sum(one.measured(rows) for one, rows in chosen)
        data = np.concatenate([one.data[:rows] for one, rows in chosen])
        absent, self.weights = np.isnan(data), None
        if absent.any() or any(one.weights is not None for one, _ in chosen):
            given = [np.ones((rows, data.shape[1])) if (w := one.weights) is None else w[:rows] for one, rows in chosen]
            self.weights = np.where(absent, 0.0, np.concatenate(given))
        self.data = np.where(absent, 0.0, data)
        # A link counts if the series that ends there is picked with all its rows; the start is a parameter in any case.
        place = {k: i for i, (k, rows) in enumerate(zip(picked, counts)) if rows == len(problem.series[k].saveat)}
        before = [place.get(-1 if one.follows is None else one.follows, -1) for one in problem.series]
        self._linked = np.array([i for i, k in enumerate(before) if k >= 0], dtype=np.intp)
        self._rows = np.array([self.begins[k + 1] - 1 for k in before if k >= 0], dtype=np.intp)

    @property
    def linked(self) -> bool:
        """Whether an end is linked to a start."""
        return len(self._linked) > 0

    def pieces(self, starts: np.ndarray) -> list[Piece]:
        """The initial value problems, from the starts (N, n) of all series of the problem."""
        series = self.problem.series
        found = []
        for k, rows in zip(self.picked, self.counts):
            one, name = series[k], series[k].name or f"series {k}" if len(series) > 1 else ""
            found.append(Piece(starts[k], one.t0, one.saveat[:rows], one.inputs, name))
        return found

    def check_measured(self) -> None:
        """Raises UsageError if there is nothing to fit."""
        if self.size == 0 and all(one.follows is None for one in self.problem.series):
            raise UsageError("nothing is measured in the part of the data that was picked: take a larger part")

    def misfit(self, states: np.ndarray) -> tuple[float, np.ndarray]:
        """The documented loss of states (R, n) but for its links, and its gradient."""
        scale, size = self.problem.loss_scale, self.size or 1.0
        residual = (states - self.data) / scale
        weighted = residual if self.weights is None else self.weights * residual
        return float(np.sum(residual * weighted)) / size, weighted * (2.0 / size) / scale

    def links(self, states: np.ndarray, starts: np.ndarray, cotangents: np.ndarray, by_starts: np.ndarray) -> float:
        """The part of the loss that links ends to starts (N, n); its gradient is added to the last two arguments."""
        if not self.linked:
            return 0.0
        scale, continuity = self.problem.loss_scale, self.problem.continuity
        gap = (states[self._rows] - starts[self._linked]) / scale
        pull = continuity * gap * (2.0 / gap.size) / scale
        np.add.at(cotangents, self._rows, pull)
        by_starts[self._linked] -= pull
        return continuity * float(np.mean(gap**2))


class Solved(Protocol):
    """Solutions of several pieces at once."""

    @property
    def states(self) -> Sequence[np.ndarray]:
        """States (T, n) of each piece at its save times."""

    def pull(self, cotangents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of sum(cotangent * state) over all pieces: by the field's parameters (P,), by the starts (K, n)."""


class Engine(Protocol):
    """A solver of one field, whose parameters it is given with each call."""

    def solve(
        self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int, gradient: bool
    ) -> Solved:
        """All pieces solved; `gradient`: whether `pull` will be called. Raises `SolveError`."""


class Integrator(ABC):
    """Slopes and trajectories of an `OdeProblem`: requests in the user's units, checked, and answered by a solver.

    Subclasses work on `inner`, the problem in the variables v, tau of its `Units`, and define `_rhs` and `_states`.
    All arrays are float64. `rhs` and `trajectory` raise `SolveError` when the solution blows up or needs more than
    `max_steps` steps, and never return NaN.
    """

    backend: str
    """Name of the backend, ``"torch"`` or ``"julia"``."""
    method: str
    """How the gradient is computed, e.g. ``"replay"`` or ``"InterpolatingAdjoint"``."""
    evaluations: int = 0
    """Of the field, at one state each, in the solves so far for losses and gradients (torch: for trajectories too)."""

    def __init__(self, problem: OdeProblem) -> None:
        self.problem = problem
        self.units, self.inner = problem.solved_in, problem.in_own_units()

    @abstractmethod
    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        """dv/dtau (B, n) at v (B, n), tau (B,) and inputs (B, m), with the field's parameters."""

    @abstractmethod
    def _states(self, params: np.ndarray, piece: Piece, rtol: float, atol: float) -> np.ndarray:
        """States v (T, n) of a piece, whose save times are strictly increasing and not all its t0."""

    def rhs(
        self,
        u: Num[np.ndarray, "B n"],
        t: float | int | Num[np.ndarray, ""] | Num[np.ndarray, " B"],
        params: Vector,
        inputs: Num[np.ndarray, "B m"] | None = None,
    ) -> Float64[np.ndarray, "B n"]:
        """du/dt at states u and a time, or one for each state, and inputs where the field has them."""
        units, field = self.units, self.problem.field
        u, t = np.array(u, dtype=np.float64, ndmin=2), np.asarray(t, dtype=np.float64)
        if u.ndim != 2 or u.shape[1] != field.state_size:
            raise UsageError(f"got states of shape {u.shape}: expected (B, {field.state_size})")
        if t.shape not in ((), (len(u),)) or not np.isfinite(t).all():
            raise UsageError(f"got t {t}: expected a finite time, or one for each of {len(u)} states")
        shape = None if inputs is None else np.shape(inputs)
        if shape != ((len(u), field.inputs) if field.inputs else None):
            raise UsageError(
                f"got inputs of shape {shape}: expected ({len(u)}, {field.inputs}), one row for each state"
            )
        tau = (np.broadcast_to(t, len(u)) - units.t0) / units.time
        w = None if inputs is None else self.problem.inputs_in(np.asarray(inputs, dtype=np.float64))
        slopes = self._rhs(units.states_in(u), tau, w, self.problem.split(self._checked(params))[0])
        if not np.isfinite(slopes).all():
            raise SolveError("du/dt is not finite: the field grew beyond float64")
        return slopes if units.are_plain else slopes * (units.state / units.time)

    def trajectory(
        self,
        params: Vector,
        saveat: Times | None = None,
        rtol: float | None = None,
        atol: float | None = None,
        *,
        series: int = 0,
        u0: Num[np.ndarray, " n"] | None = None,
        t0: float | None = None,
        inputs: Inputs | None = None,
    ) -> Float64[np.ndarray, "T n"]:
        """States at times in any order, each at or after the start.

        Args:
            params: those of the problem, see `OdeProblem`.
            saveat, rtol, atol: times and tolerances (default: the problem's).
            series: which of the problem's series gives what is not given here: the initial state (learned ones as in
                `params`) and its time, save times, inputs.
            u0, t0, inputs: another initial state, its time, other inputs, in the user's units.

        Raises:
            UsageError: a time before the start or not finite, inputs that do not cover the times, wrong shapes.
            SolveError: the solution does not reach the last time.
        """
        problem, units = self.problem, self.units
        own = problem.series[series]
        asked = own.saveat if saveat is None else np.atleast_1d(np.asarray(saveat, dtype=np.float64))
        begin = own.t0 if t0 is None else float(t0)
        if asked.ndim != 1:
            raise UsageError(f"got times of shape {asked.shape}: expected one number or a vector of times")
        if not np.isfinite(asked).all() or np.any(asked < begin):
            raise UsageError(f"got times {asked.min()} to {asked.max()}: expected finite times from {begin} on")
        rtol, atol = problem.rtol if rtol is None else rtol, problem.atol if atol is None else atol
        if not (rtol > 0 and atol > 0):
            raise UsageError(f"got rtol {rtol}, atol {atol}: expected positive tolerances, such as 1e-7")
        field, starts = problem.split(self._checked(params))
        t, order = np.unique(asked, return_inverse=True)
        start = own.u0 if u0 is None else np.asarray(u0, dtype=np.float64)
        if start.shape != own.u0.shape or not np.isfinite(start).all():
            raise UsageError(f"got u0 {start}: expected {len(own.u0)} finite numbers")
        v0 = starts[series] if u0 is None else units.states_in(start)
        if own.learned and u0 is None:
            start = units.states_out(v0)
        if not np.any(t > begin):
            return np.tile(start, (len(asked), 1))
        own_inputs = problem.checked_inputs(inputs or own.inputs, begin, t[-1])
        piece = Piece(v0, (begin - units.t0) / units.time, units.times_in(t), own_inputs)
        with self._telling_units():
            v = self._states(field, piece, rtol, atol)
        u = units.states_out(v)
        if t[0] == begin:
            u[0] = start  # not by way of v and back
        return u[order]

    def _checked(self, params: np.ndarray) -> np.ndarray:
        params = np.ascontiguousarray(params, dtype=np.float64)
        expected = self.problem.n_parameters
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


def not_finite() -> SolveError:
    """For an overflow."""
    return SolveError("the solution or its gradient is not finite: the field grew beyond float64")


class OdeSolver(Integrator):
    """An `OdeProblem` made ready by a backend, with its loss."""

    def __init__(self, problem: OdeProblem) -> None:
        super().__init__(problem)
        self._make_part: Callable[[OdeProblem, list[int], list[int]], Part] = Part
        self._parts: dict[Subset, Part] = {}

    @abstractmethod
    def _solve(self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, gradient: bool) -> Solved:
        """All pieces solved with the field's parameters (P,); `gradient`: whether `pull` will be called."""

    def _states(self, params: np.ndarray, piece: Piece, rtol: float, atol: float) -> np.ndarray:
        return self._solve(params, [piece], rtol, atol, False).states[0]

    def value_and_grad(self, params: Vector, subset: Subset | None = None) -> tuple[float, Vector]:
        """Loss over a part of the data (default all) and its gradient; raises `SolveError`."""
        field, starts = self.problem.split(self._checked(params))
        part = self._part(subset or Subset())
        with self._telling_units():
            loss, by_field, by_starts = self._value_and_grad(field, starts, part)
        return loss, self._flat(by_field, by_starts)

    def value_and_grad_of(self, loss: Loss, params: Vector, subset: Subset | None = None) -> tuple[float, Vector]:
        """The same for a loss of your own, a function of the states of each series picked, in the user's units.

        With multiple shooting, the links count as ever.
        """
        field, starts = self.problem.split(self._checked(params))
        part, units = self._part(subset or Subset()), self.units
        with self._telling_units():
            solved = self._solve(field, part.pieces(starts), self.inner.rtol, self.inner.atol, True)
            value, by_states = loss([units.states_out(v) for v in solved.states])
            cotangents = np.concatenate([np.asarray(g, dtype=np.float64) * units.state for g in by_states])
            by_starts = np.zeros_like(starts)
            value += part.links(np.concatenate(solved.states), starts, cotangents, by_starts)
            by_field = self._pulled(solved, part, cotangents, by_starts)
        return value, self._flat(by_field, by_starts)

    def _part(self, subset: Subset) -> Part:
        """What a subset picks; the last few are kept."""
        part = self._parts.get(subset)
        if part is None:
            part = self._make_part(self.inner, *self._picked(subset))
            self._parts = dict([*self._parts.items(), (subset, part)][-KEPT_PARTS:])
        return part

    def _picked(self, subset: Subset) -> tuple[list[int], list[int]]:
        """Indices of the series, and how many save points of each; all of a window that another one follows."""
        series = self.problem.series
        picked = list(range(len(series))) if subset.series is None else list(subset.series)
        if not picked or not all(0 <= k < len(series) for k in picked):
            raise UsageError(f"got series {subset.series}: expected indices below {len(series)}, at least one")
        return picked, [series[k].rows(subset.share) for k in picked]

    def _value_and_grad(
        self, params: np.ndarray, starts: np.ndarray, part: Part
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Loss, its gradient by the field's parameters (P,) and by all starts (N, n), zero for those not picked."""
        part.check_measured()
        solved = self._solve(params, part.pieces(starts), self.inner.rtol, self.inner.atol, True)
        states, by_starts = np.concatenate(solved.states), np.zeros_like(starts)
        with np.errstate(all="ignore"):  # an overflow is told by SolveError
            loss, cotangents = part.misfit(states)
            loss += part.links(states, starts, cotangents, by_starts)
        if not np.isfinite(loss):
            raise not_finite()
        return loss, self._pulled(solved, part, cotangents, by_starts), by_starts

    def _pulled(self, solved: Solved, part: Part, cotangents: np.ndarray, by_starts: np.ndarray) -> np.ndarray:
        """The gradient by the parameters (P,); that by the starts is added."""
        by_params, by_picked = solved.pull(np.split(cotangents, part.begins[1:-1]))
        by_starts[part.picked] += by_picked
        return by_params

    def _flat(self, by_field: np.ndarray, by_starts: np.ndarray) -> np.ndarray:
        learned = self.problem.learned
        flat = by_field if not len(learned) else np.concatenate([by_field, by_starts[learned].ravel()])
        if not np.isfinite(flat).all():
            raise not_finite()
        return flat

    def close(self) -> None:
        """Free what the solver holds; calling it twice is allowed."""
