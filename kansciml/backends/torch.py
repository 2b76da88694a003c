"""Neural ODEs in PyTorch, with three ways to the gradient.

* ``replay`` (default): integrate without gradients, then replay the accepted steps in batches, those of all
  trajectories together. The exact gradient of the discrete solution, several times faster than the others; solvers
  bosh3, dopri5, dop853, and SciPy's Radau and BDF for stiff systems. The built-in fields run in C++ where that has been
  built (dopri5), else in NumPy as those of known terms do, any other `torch.nn.Module` through autograd.
* ``backprop``: torchdiffeq's ``odeint``, differentiated through every operation.
* ``adjoint``: torchdiffeq's ``odeint_adjoint`` (Chen et al. 2018), constant memory, gradient error of the order of the
  tolerance.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from kansciml._errors import UsageError, unknown_name
from kansciml.backends._engines import native
from kansciml.backends._engines.bdf import BdfSolved
from kansciml.backends._engines.differentiated import DifferentiatedEngine, SpecField
from kansciml.backends._engines.methods import DEFAULT_GRADIENT, GRADIENTS, solver_name
from kansciml.backends._engines.radau import RadauSolved
from kansciml.backends._engines.replay import ExplicitEngine
from kansciml.backends._engines.stiff import ImplicitEngine
from kansciml.backends._engines.tableaus import TABLEAUS
from kansciml.backends._hybrid import HybridKernel
from kansciml.backends._kernels import CountedKernel, FieldKernel, bind
from kansciml.backends.base import Engine, OdeProblem, OdeSolver, Part, Piece, Solved, not_finite
from kansciml.backends.module_field import ModuleField, ModuleKernel, eager
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec
from kansciml.models.lux_field import LuxField

__all__ = ["DEFAULT_GRADIENT", "GRADIENTS", "ModuleField", "TorchBackend", "TorchOdeSolver", "solver_name"]


class TorchOdeSolver(OdeSolver):
    """An `OdeProblem` on PyTorch.

    Raises:
        UsageError: unknown gradient method or solver; a module that cannot be evaluated or differentiated (see
            `ModuleField`).
    """

    backend = "torch"

    def __init__(self, problem: OdeProblem, gradient: str = DEFAULT_GRADIENT) -> None:
        solver = solver_name(problem.solver, gradient)
        super().__init__(problem)
        self.method = gradient
        field, one = self.inner.field, self.inner.series[0]
        if isinstance(field, LuxField):
            raise UsageError(f"got a layer of Lux, {field.name}: it needs backend 'julia'")
        self._field: SpecField | ModuleField | None = None  # as torchdiffeq is given it
        if not isinstance(field, HybridSpec):
            self._field = SpecField(field) if isinstance(field, FieldSpec) else field
        self._engine = self._make_engine(solver)
        if isinstance(self._engine, native.NativeEngine):
            self._make_part = functools.partial(native.NativePart, self._engine)
        if isinstance(field, ModuleField):
            count = field.state_size + 1
            last = np.where(np.isnan(one.data[-1]), one.u0, one.data[-1])
            states = np.linspace(one.u0, last + 0.1 * self.inner.loss_scale, count)
            times = np.linspace(one.t0, one.saveat[-1], count)
            with eager():
                field.prepare(times, states, gradient == "replay", None if one.inputs is None else one.inputs(times))

    def _make_engine(self, solver: str) -> Engine:
        field = self.inner.field
        if self.method != "replay":
            if self._field is None:
                raise UsageError(f"got gradient {self.method} for known terms and a network: expected replay")
            return DifferentiatedEngine(self._field, solver, self.method == "adjoint", self._count)
        if solver in ("Radau", "BDF"):
            return ImplicitEngine(self._counted, RadauSolved if solver == "Radau" else BdfSolved)
        if solver == "dopri5" and isinstance(field, FieldSpec) and native.runs(field):
            return native.NativeEngine(field, self._count)
        return ExplicitEngine(self._counted, TABLEAUS[solver])

    def _count(self, states: int) -> None:
        self.evaluations += states

    def _counted(self, params: np.ndarray) -> FieldKernel:
        return CountedKernel(self._bind(params), self._count)

    def _bind(self, params: np.ndarray) -> FieldKernel:
        field = self.inner.field
        if isinstance(field, HybridSpec):
            return HybridKernel(field, params)
        return ModuleKernel(field, params) if isinstance(field, ModuleField) else bind(cast(FieldSpec, field), params)

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        with eager():
            if self.method == "replay":
                return self._bind(params).batch(v, tau, w)
            assert self._field is not None
            self._field.load_flat(params)
            columns = [torch.tensor(x) for x in ((tau, v) if w is None else (tau, v, w))]
            with torch.no_grad():
                return torch.stack([self._field(*row) for row in zip(*columns)]).numpy()

    def _value_and_grad(
        self, params: np.ndarray, starts: np.ndarray, part: Part
    ) -> tuple[float, np.ndarray, np.ndarray]:
        if not isinstance(self._engine, native.NativeEngine) or not isinstance(part, native.NativePart) or part.linked:
            return super()._value_and_grad(params, starts, part)
        part.check_measured()
        states, by_params, by_picked = self._engine.fit(params, starts[part.picked], part)
        with np.errstate(all="ignore"):
            loss = part.misfit(states)[0]
        if not np.isfinite(loss):
            raise not_finite()
        by_starts = np.zeros_like(starts)
        by_starts[part.picked] = by_picked
        return loss, by_params, by_starts

    def _solve(self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, gradient: bool) -> Solved:
        with eager():
            return _Checked(self._engine.solve(params, pieces, rtol, atol, self.inner.max_steps, gradient))


class _Checked:
    """What an engine solved, with finite states; modules are not compiled while it is differentiated."""

    def __init__(self, solved: Solved) -> None:
        self.solved, self.states = solved, solved.states
        if not all(np.isfinite(v).all() for v in self.states):
            raise not_finite()

    def pull(self, cotangents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"), eager():  # an overflow is told by SolveError
            return self.solved.pull(cotangents)


class TorchBackend:
    """Makes solvers; the counterpart of `kansciml.backends.julia.JuliaBackend`."""

    name = "torch"

    def __init__(self, gradient: str = DEFAULT_GRADIENT) -> None:
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        self.gradient = gradient

    def solver(self, problem: OdeProblem, gradient: str | None = None) -> TorchOdeSolver:
        return TorchOdeSolver(problem, gradient or self.gradient)

    def cpu_seconds(self) -> float:
        """It runs in this process."""
        return 0.0

    def close(self) -> None:
        """Nothing is held outside the solvers."""
