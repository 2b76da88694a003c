"""Neural ODEs in PyTorch: torchdiffeq's dopri5, with three ways to the gradient.

* ``replay`` (default): integrate without gradients, then replay the accepted steps as one batch. The exact gradient of
  the discrete solution, several times faster than the others. The built-in fields run in NumPy, any other
  `torch.nn.Module` through autograd.
* ``backprop``: torchdiffeq's ``odeint``, differentiated through every operation.
* ``adjoint``: torchdiffeq's ``odeint_adjoint`` (Chen et al. 2018), constant memory, gradient error of the order of the
  tolerance.
"""

from __future__ import annotations

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
from kansciml.backends.base import OdeProblem, OdeSolver
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
        field = self.inner.field
        self._field = _SpecField(field) if isinstance(field, FieldSpec) else field
        if isinstance(field, ModuleField):
            inner, count = self.inner, field.state_size + 1
            states = np.linspace(inner.u0, inner.data[-1] + 0.1 * inner.loss_scale, count)
            with eager():
                field.prepare(np.linspace(inner.t0, inner.saveat[-1], count), states, gradient == "replay")

    def _bind(self, params: np.ndarray) -> FieldKernel:
        field = self.inner.field
        return bind(field, params) if isinstance(field, FieldSpec) else ModuleKernel(field, params)

    def _rhs(self, v: np.ndarray, tau: np.ndarray, params: np.ndarray) -> np.ndarray:
        field = self._field
        if self.method == "replay":
            with eager():
                return self._bind(params).batch(v, tau)
        field.load_flat(params)
        with torch.no_grad(), eager():
            if isinstance(field, _SpecField):
                return field(None, torch.from_numpy(v)).numpy()
            pairs = zip(torch.from_numpy(tau), torch.from_numpy(v))
            return np.stack([field(t, state.clone()).numpy() for t, state in pairs])

    def _trajectory(self, params: np.ndarray, tau: np.ndarray, rtol: float, atol: float) -> np.ndarray:
        inner = self.inner
        with eager(), torch.no_grad():
            if self.method == "replay":
                steps = integrate(self._bind(params).rhs, inner.u0, inner.t0, tau[-1], rtol, atol, inner.max_steps)
                return _finite(steps.interpolate(*steps.locate(tau)))
            return _finite(self._odeint(params, tau, rtol, atol).numpy())

    def value_and_grad(
        self, params: Float64[np.ndarray, " P"], horizon: int | None = None
    ) -> tuple[float, Float64[np.ndarray, " P"]]:
        params, tau, data = self._checked(params), self.inner.saveat[:horizon], self.inner.data[:horizon]
        with self._telling_units(), eager():
            return (self._replay if self.method == "replay" else self._backprop)(params, tau, data)

    def _backprop(self, params: np.ndarray, tau: np.ndarray, data: np.ndarray) -> tuple[float, np.ndarray]:
        inner = self.inner
        u = self._odeint(params, tau, inner.rtol, inner.atol)
        loss = (((u - torch.from_numpy(data)) / torch.from_numpy(inner.loss_scale)) ** 2).mean()
        return float(_finite(loss.detach().numpy())), _finite(self._field.gradient(loss))

    def _replay(self, params: np.ndarray, tau: np.ndarray, data: np.ndarray) -> tuple[float, np.ndarray]:
        inner = self.inner
        kernel = self._bind(params)
        steps = integrate(kernel.rhs, inner.u0, inner.t0, tau[-1], inner.rtol, inner.atol, inner.max_steps)
        step, weights = steps.locate(tau)
        residual = (steps.interpolate(step, weights) - data) / inner.loss_scale
        loss = float(_finite(np.mean(residual**2)))
        cotangent = residual * (2.0 / residual.size) / inner.loss_scale
        with np.errstate(all="ignore"):  # an overflow is told by SolveError
            return loss, _finite(replay_gradient(kernel, steps, step, weights, cotangent))

    def _odeint(self, params: np.ndarray, tau: np.ndarray, rtol: float, atol: float) -> Tensor:
        inner, field = self.inner, self._field
        field.load_flat(params)
        prepend = tau[0] > inner.t0  # torchdiffeq starts at the first time it is given
        times = torch.from_numpy(np.append(inner.t0, tau) if prepend else np.array(tau))
        u0 = torch.from_numpy(inner.u0)
        if len(times) == 1:
            return u0[None]
        options = {"max_num_steps": inner.max_steps, "norm": _largest}
        adjoint = partial(odeint_adjoint, adjoint_params=tuple(field.trainable))
        method = adjoint if self.method == "adjoint" else odeint
        try:
            u = method(field, u0, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:  # how torchdiffeq tells that a solve failed
            text = str(error).splitlines()[0][:120]
            if "max_num_steps" in text:  # torchdiffeq counts anew after each save point
                remedy = "raise max_steps, or loosen rtol and atol"
                text = f"more than {inner.max_steps} steps to one save point: {remedy}"
            raise SolveError(f"torchdiffeq could not solve the ODE: {text}") from error
        return u[1:] if prepend else u


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
