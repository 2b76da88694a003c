"""Neural ODEs in PyTorch: torchdiffeq's dopri5, with three ways to the gradient.

* ``replay`` (default): integrate without gradients, then replay the accepted steps as one batch. The exact gradient of
  the discrete solution, several times faster than the others. The built-in fields run in NumPy, any other
  `torch.nn.Module` through autograd.
* ``backprop``: torchdiffeq's ``odeint``, differentiated through every operation.
* ``adjoint``: torchdiffeq's ``odeint_adjoint`` (Chen et al. 2018), constant memory, gradient error of the order of the
  tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from kansciml._errors import SolveError, unknown_name
from kansciml.backends._dopri5 import integrate
from kansciml.backends._kernels import FieldKernel, bind
from kansciml.backends._replay import replay_gradient
from kansciml.backends.base import OdeProblem, OdeSolver, Piece, Solved
from kansciml.backends.module_field import ModuleField, ModuleKernel, eager, gradients
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

__all__ = ["DEFAULT_GRADIENT", "GRADIENTS", "ModuleField", "TorchBackend", "TorchOdeSolver"]

GRADIENTS = ("replay", "backprop", "adjoint")
DEFAULT_GRADIENT = "replay"


class _SpecField(VectorField):
    """A built-in field as torchdiffeq is given it; the counterpart of `ModuleField`."""

    @property
    def trainable(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def gradient(self, loss: Float[Tensor, ""]) -> Float64[np.ndarray, " P"]:
        """Of a loss by the flat parameters."""
        for p, g in zip(self.trainable, gradients(loss, self.trainable)):
            p.grad = g
        return self.to_flat(gradient=True)


class TorchOdeSolver(OdeSolver):
    """An `OdeProblem` on PyTorch.

    Raises:
        UsageError: unknown gradient method; a module that cannot be evaluated or differentiated (see `ModuleField`).
    """

    backend = "torch"

    def __init__(self, problem: OdeProblem, gradient: str = DEFAULT_GRADIENT) -> None:
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        super().__init__(problem)
        self.method = gradient
        field, one = self.inner.field, self.inner.series[0]
        self._field = _SpecField(field) if isinstance(field, FieldSpec) else field
        if isinstance(field, ModuleField):
            count = field.state_size + 1
            last = np.where(np.isnan(one.data[-1]), one.u0, one.data[-1])
            states = np.linspace(one.u0, last + 0.1 * self.inner.loss_scale, count)
            times = np.linspace(one.t0, one.saveat[-1], count)
            with eager():
                field.prepare(times, states, gradient == "replay", one.inputs and one.inputs(times))

    def _bind(self, params: np.ndarray) -> FieldKernel:
        field = self.inner.field
        return bind(field, params) if isinstance(field, FieldSpec) else ModuleKernel(field, params)

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        with eager():
            if self.method == "replay":
                return self._bind(params).batch(v, tau, w)
            self._field.load_flat(params)
            rows = zip(tau, v, [None] * len(v) if w is None else w)
            with torch.no_grad():
                found = [self._field(*(None if x is None else torch.tensor(x) for x in row)) for row in rows]
            return torch.stack(found).numpy()

    def _solve(self, params: np.ndarray, pieces: Sequence[Piece], rtol: float, atol: float, gradient: bool) -> Solved:
        if self.method == "replay":
            with eager():
                return _Replayed(self._bind(params), pieces, rtol, atol, self.inner.max_steps)
        self._field.load_flat(params)
        return _Differentiated(self._field, pieces, partial(self._odeint, rtol=rtol, atol=atol), gradient)

    def _odeint(self, piece: Piece, start: Tensor, rtol: float, atol: float) -> Tensor:
        tau, field = piece.saveat, self._field
        prepend = tau[0] > piece.t0  # torchdiffeq starts at the first time it is given
        times = torch.from_numpy(np.append(piece.t0, tau) if prepend else np.array(tau))
        if len(times) == 1:
            return start[None]
        options = {"max_num_steps": self.inner.max_steps, "norm": _largest}
        adjoint = partial(odeint_adjoint, adjoint_params=tuple(field.trainable))
        method = adjoint if self.method == "adjoint" else odeint
        try:
            u = method(field, start, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:  # how torchdiffeq tells that a solve failed
            text = str(error).splitlines()[0][:120]
            if "max_num_steps" in text:  # torchdiffeq counts anew after each save point
                remedy = "raise max_steps, or loosen rtol and atol"
                text = f"more than {self.inner.max_steps} steps to one save point: {remedy}"
            raise SolveError(f"torchdiffeq could not solve the ODE: {text}") from error
        return u[1:] if prepend else u


class _Replayed:
    """Solutions by Dormand-Prince, whose accepted steps are replayed for the gradient."""

    def __init__(self, kernel: FieldKernel, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int) -> None:
        self.kernel = kernel
        self.steps = [integrate(kernel.rhs, one.start, one.t0, one.saveat[-1], rtol, atol, max_steps) for one in pieces]
        self.places = [steps.locate(one.saveat) for steps, one in zip(self.steps, pieces)]
        self.states = [_finite(steps.interpolate(*place)) for steps, place in zip(self.steps, self.places)]

    def pull(self, cotangents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"), eager():  # an overflow is told by SolveError
            pulled = [
                replay_gradient(self.kernel, steps, *place, cotangent)
                for steps, place, cotangent in zip(self.steps, self.places, cotangents)
            ]
        return sum(by_params for by_params, _ in pulled), np.stack([by_start for _, by_start in pulled])


class _Differentiated:
    """Solutions by torchdiffeq, which torch differentiates."""

    def __init__(
        self, field: _SpecField | ModuleField, pieces: Sequence[Piece], odeint: Callable, gradient: bool
    ) -> None:
        self.field = field
        with eager(), torch.set_grad_enabled(gradient):
            self.starts = [torch.tensor(one.start, requires_grad=gradient) for one in pieces]
            self.solutions = [odeint(one, start) for one, start in zip(pieces, self.starts)]
        self.states = [_finite(u.detach().numpy()) for u in self.solutions]

    def pull(self, cotangents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        with eager():
            loss = sum((u * torch.from_numpy(c)).sum() for u, c in zip(self.solutions, cotangents))
            by_starts = torch.stack(gradients(loss, self.starts))
            return self.field.gradient(loss), by_starts.numpy()


def _largest(x: Tensor) -> Tensor:
    """The maximum norm, in which torchdiffeq is to control the error: see `kansciml.backends._dopri5`."""
    return x.abs().max()


def _finite(array: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(array)):
        raise SolveError("the solution or its gradient is not finite: the field grew beyond float64")
    return array


class TorchBackend:
    """Makes solvers; the counterpart of `kansciml.backends.julia.JuliaBackend`."""

    name = "torch"

    def __init__(self, gradient: str = DEFAULT_GRADIENT) -> None:
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        self.gradient = gradient

    def solver(self, problem: OdeProblem, gradient: str | None = None) -> TorchOdeSolver:
        return TorchOdeSolver(problem, gradient or self.gradient)

    def close(self) -> None:
        """Nothing is held outside the solvers."""
