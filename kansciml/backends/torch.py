"""Neural ODEs in PyTorch: torchdiffeq's dopri5, with three ways to the gradient.

* ``replay`` (default): integrate without gradients, then replay the accepted steps as one batch. The exact gradient of
  the discrete solution, several times faster than the others. The built-in fields run in NumPy, any other
  `torch.nn.Module` through autograd.
* ``backprop``: torchdiffeq's ``odeint``, differentiated through every operation.
* ``adjoint``: torchdiffeq's ``odeint_adjoint`` (Chen et al. 2018), constant memory, gradient error of the order of the
  tolerance.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from kansciml._errors import SolveError, unknown_name
from kansciml.backends import _kernels
from kansciml.backends._dopri5 import integrate
from kansciml.backends._kernels import FieldKernel
from kansciml.backends._replay import replay_gradient
from kansciml.backends.base import OdeProblem
from kansciml.backends.module_field import ModuleField, ModuleKernel, eager, flat, gradients
from kansciml.backends.solver_in_units import SolverInUnits
from kansciml.models.fields import VectorField

__all__ = ["DEFAULT_GRADIENT", "GRADIENTS", "ModuleField", "TorchBackend", "TorchOdeSolver"]

GRADIENTS = ("replay", "backprop", "adjoint")
DEFAULT_GRADIENT = "replay"


class TorchOdeSolver(SolverInUnits):
    """An `OdeProblem` on PyTorch; see `kansciml.backends.base.OdeSolver`.

    Raises:
        UsageError: unknown gradient method; a module that cannot be evaluated or differentiated (see `ModuleField`).
    """

    backend = "torch"

    def __init__(self, problem: OdeProblem, gradient: str = DEFAULT_GRADIENT) -> None:
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        super().__init__(problem)
        self.method = gradient
        inner = self.inner
        self._custom = isinstance(inner.field, ModuleField)
        if self._custom:
            count = inner.field.state_size + 1
            states = np.linspace(inner.u0, inner.data[-1] + 0.1 * inner.loss_scale, count)
            with eager():
                inner.field.prepare(np.linspace(inner.t0, inner.saveat[-1], count), states, gradient == "replay")
        elif gradient != "replay":
            self._module = VectorField(inner.field)

    def _bind(self, params: np.ndarray) -> FieldKernel:
        field = self.inner.field
        return ModuleKernel(field, params) if self._custom else _kernels.bind(field, params)

    def _rhs(self, v: np.ndarray, tau: np.ndarray, params: np.ndarray) -> np.ndarray:
        if self.method == "replay":
            kernel = self._bind(params)
            with self._eager():
                return kernel.batch(v, tau) if self._custom else kernel.batch(v)
        field = self._load(params)
        with torch.no_grad(), self._eager():
            if not self._custom:
                return field(None, torch.from_numpy(v)).numpy()
            pairs = zip(torch.from_numpy(tau), torch.from_numpy(v))
            return np.stack([field(t, state.clone()).numpy() for t, state in pairs])

    def _trajectory(self, params: np.ndarray, tau: np.ndarray, rtol: float, atol: float) -> np.ndarray:
        inner = self.inner
        with self._eager():
            if self.method == "replay":
                kernel = self._bind(params)
                steps = integrate(kernel.rhs, inner.u0, inner.t0, tau[-1], rtol, atol, inner.max_steps)
                return _finite(steps.interpolate(*steps.locate(tau)))
            field = self._load(params)
            with torch.no_grad():
                return _finite(self._odeint(field, tau, rtol, atol).numpy())

    def value_and_grad(self, params: np.ndarray, horizon: int | None = None) -> tuple[float, np.ndarray]:
        params, tau, data = self._checked(params), self.inner.saveat[:horizon], self.inner.data[:horizon]
        try:
            with self._eager():
                return (self._replay if self.method == "replay" else self._backprop)(params, tau, data)
        except SolveError as error:
            raise self._told(error) from error

    def _backprop(self, params: np.ndarray, tau: np.ndarray, data: np.ndarray) -> tuple[float, np.ndarray]:
        inner, field = self.inner, self._load(params)
        u = self._odeint(field, tau, inner.rtol, inner.atol)
        loss = (((u - torch.from_numpy(data)) / torch.from_numpy(inner.loss_scale)) ** 2).mean()
        if self._custom:
            gradient = flat(gradients(loss, field.trainable))
        else:
            field.zero_grad(set_to_none=False)
            for p, g in zip(field.parameters(), gradients(loss, list(field.parameters()))):
                p.grad = g
            gradient = field.to_flat(gradient=True)
        return float(_finite(loss.detach().numpy())), _finite(gradient)

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

    def _eager(self) -> AbstractContextManager:
        return eager() if self._custom else nullcontext()

    def _load(self, params: np.ndarray) -> ModuleField | VectorField:
        field = self.inner.field if self._custom else self._module
        field.load_flat(params)
        return field

    def _odeint(self, field: ModuleField | VectorField, tau: np.ndarray, rtol: float, atol: float) -> Tensor:
        inner = self.inner
        prepend = tau[0] > inner.t0  # torchdiffeq starts at the first time it is given
        times = torch.from_numpy(np.append(inner.t0, tau) if prepend else np.array(tau))
        u0 = torch.from_numpy(inner.u0)
        if len(times) == 1:
            return u0[None]
        options = {"max_num_steps": inner.max_steps, "norm": _largest}
        method = odeint
        if self.method == "adjoint":
            trained = field.trainable if self._custom else field.parameters()
            method = partial(odeint_adjoint, adjoint_params=tuple(trained))
        try:
            u = method(field, u0, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:  # how torchdiffeq tells that a solve failed
            text = str(error).splitlines()[0][:120]
            if "max_num_steps" in text:  # torchdiffeq counts anew after each save point
                remedy = "raise max_steps, or loosen rtol and atol"
                text = f"more than {inner.max_steps} steps to one save point: {remedy}"
            raise SolveError(f"torchdiffeq could not solve the ODE: {text}") from error
        return u[1:] if prepend else u

    def close(self) -> None:
        """Nothing is held outside this object."""


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
