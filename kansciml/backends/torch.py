"""Neural ODEs in PyTorch: torchdiffeq's dopri5, with three ways to the gradient.

* ``replay`` (default): integrate without gradients, then replay the accepted steps as one batch. The exact gradient of
  the discrete solution, several times faster than the others. The built-in fields run in NumPy, any other
  `torch.nn.Module` through autograd.
* ``backprop``: torchdiffeq's ``odeint``, differentiated through every operation.
* ``adjoint``: torchdiffeq's ``odeint_adjoint`` (Chen et al. 2018), constant memory, gradient error of the order of the
  tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from kansciml._errors import SolveError, UsageError, unknown_name
from kansciml.backends import _kernels
from kansciml.backends._dopri5 import Rhs, integrate
from kansciml.backends._kernels import FieldKernel, Pullback
from kansciml.backends._replay import replay_gradient
from kansciml.backends.base import FieldSpec, OdeProblem
from kansciml.models.fields import VectorField

GRADIENTS = ("replay", "backprop", "adjoint")
DEFAULT_GRADIENT = "replay"


@dataclass(frozen=True, eq=False)
class ModuleField:
    """Any `torch.nn.Module` as the field of an `OdeProblem` (torch backend only).

    Args:
        module: called as ``module(t, u)``; for ``gradient="replay"`` it must accept a batch, t (B, 1) and u (B, n), and
            treat its rows independently (every feed-forward network does; train-mode batch norm does not).
        state_size: n.

    The flat parameter vector is `module.parameters()` in their order, as float64.
    """

    module: nn.Module
    state_size: int

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())

    def initial_parameters(self, seed: int = 0) -> np.ndarray:
        """The module's present parameters (P,); `seed` has no effect, since the module made its own."""
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().to(torch.float64).numpy().copy()

    def label(self) -> str:
        return type(self.module).__name__

    def load_flat(self, params: np.ndarray) -> None:
        nn.utils.vector_to_parameters(torch.from_numpy(np.array(params)), self.module.parameters())


class ModuleKernel:
    """A torch module as a field kernel: NumPy in, NumPy out."""

    def __init__(self, field: ModuleField, params: np.ndarray) -> None:
        field.load_flat(params)
        self.module = field.module
        self.rhs = self._make_rhs()

    def _make_rhs(self) -> Rhs:
        module = self.module

        def rhs(t: float, u: np.ndarray, out: np.ndarray) -> None:
            with torch.no_grad():
                out[:] = module(torch.tensor(t, dtype=torch.float64), torch.from_numpy(u)).numpy()

        return rhs

    def batch(self, u: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.module(torch.zeros(len(u), 1, dtype=torch.float64), torch.from_numpy(u)).numpy()

    def linearise(self, t: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, Pullback]:
        n = u.shape[-1]
        states = torch.from_numpy(u).requires_grad_()
        f = self.module(torch.from_numpy(t)[:, None], states)
        # Rows are independent, so one product per component gives that row of every Jacobian
        rows = [torch.autograd.grad(f[:, i].sum(), states, retain_graph=True)[0] for i in range(n)]

        def pullback(cotangent: np.ndarray) -> np.ndarray:
            parameters = list(self.module.parameters())
            grads = torch.autograd.grad(f, parameters, torch.from_numpy(cotangent), allow_unused=True)
            filled = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters)]
            return torch.cat([g.reshape(-1) for g in filled]).numpy()

        return torch.stack(rows, dim=1).numpy(), pullback


class TorchOdeSolver:
    """An `OdeProblem` on PyTorch; see `kansciml.backends.base.OdeSolver`.

    Raises:
        UsageError: unknown gradient method; a module that cannot be evaluated on a batch (for ``replay``).
    """

    backend = "torch"

    def __init__(self, problem: OdeProblem, gradient: str = DEFAULT_GRADIENT) -> None:
        if gradient not in GRADIENTS:
            raise unknown_name("gradient", gradient, GRADIENTS)
        self.problem = problem
        self.method = gradient
        self._custom = isinstance(problem.field, ModuleField)
        if self._custom:
            self._module = problem.field.module.to(torch.float64)
            if gradient == "replay":
                self._check_batched()
        elif gradient != "replay":
            self._module = VectorField(problem.field)

    def _check_batched(self) -> None:
        problem = self.problem
        # n + 1 rows: a field written for one state cannot mistake the batch for it
        u = np.linspace(problem.u0, problem.data[-1] + 0.1, problem.field.state_size + 1)
        kernel = self._bind(problem.field.initial_parameters())
        single = np.empty_like(u)
        for row, out in zip(u, single):
            kernel.rhs(0.0, row, out)
        try:
            batched = kernel.batch(u)
        except (RuntimeError, ValueError, IndexError) as error:
            batched, reason = None, str(error).splitlines()[0]
        else:
            reason = "rows of a batch differ from single states"
        if batched is None or batched.shape != u.shape or not np.allclose(batched, single, rtol=1e-9, atol=1e-12):
            raise UsageError(
                f"the field {problem.field.label()} cannot be replayed ({reason}): accept t of shape (B, 1) and u of"
                ' shape (B, n), or use gradient="backprop"'
            )

    def _bind(self, params: np.ndarray) -> FieldKernel:
        params = np.ascontiguousarray(params, dtype=np.float64)
        expected = self.problem.field.n_parameters
        if params.shape != (expected,):
            raise UsageError(f"got parameters of shape {params.shape}: expected ({expected},)")
        if isinstance(self.problem.field, FieldSpec):
            return _kernels.bind(self.problem.field, params)
        return ModuleKernel(self.problem.field, params)

    def rhs(self, u: np.ndarray, t: float, params: np.ndarray) -> np.ndarray:
        u = np.atleast_2d(np.asarray(u, dtype=np.float64))
        if self.method == "replay":
            return self._bind(params).batch(u)
        self._load(params)
        with torch.no_grad():
            return self._module(torch.tensor(float(t), dtype=torch.float64), torch.from_numpy(u)).numpy()

    def trajectory(
        self,
        params: np.ndarray,
        saveat: np.ndarray | None = None,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> np.ndarray:
        problem = self.problem
        saveat = problem.saveat if saveat is None else np.asarray(saveat, dtype=np.float64)
        rtol, atol = rtol or problem.rtol, atol or problem.atol
        if self.method == "replay":
            kernel = self._bind(params)
            steps = integrate(kernel.rhs, problem.u0, problem.t0, saveat[-1], rtol, atol, problem.max_steps)
            return _finite(steps.interpolate(*steps.locate(saveat)))
        self._load(params)
        with torch.no_grad():
            return _finite(self._odeint(saveat, rtol, atol).numpy())

    def value_and_grad(self, params: np.ndarray, horizon: int | None = None) -> tuple[float, np.ndarray]:
        problem = self.problem
        saveat, data = problem.saveat[:horizon], problem.data[:horizon]
        if self.method == "replay":
            return self._replay(params, saveat, data)
        self._load(params)
        self._module.zero_grad(set_to_none=False)
        u = self._odeint(saveat, problem.rtol, problem.atol)
        loss = (((u - torch.from_numpy(data)) / torch.from_numpy(problem.loss_scale)) ** 2).mean()
        loss.backward()
        if self._custom:
            parameters = self._module.parameters()
            filled = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            gradient = torch.cat([g.reshape(-1) for g in filled]).numpy()
        else:
            gradient = self._module.to_flat(gradient=True)
        return float(_finite(loss.detach().numpy())), _finite(gradient)

    def _replay(self, params: np.ndarray, saveat: np.ndarray, data: np.ndarray) -> tuple[float, np.ndarray]:
        problem = self.problem
        kernel = self._bind(params)
        steps = integrate(kernel.rhs, problem.u0, problem.t0, saveat[-1], problem.rtol, problem.atol, problem.max_steps)
        step, weights = steps.locate(saveat)
        residual = (steps.interpolate(step, weights) - data) / problem.loss_scale
        loss = float(_finite(np.mean(residual**2)))
        cotangent = residual * (2.0 / residual.size) / problem.loss_scale
        with np.errstate(all="ignore"):  # an overflow is told by SolveError
            return loss, _finite(replay_gradient(kernel, steps, step, weights, cotangent))

    def _load(self, params: np.ndarray) -> None:
        target = self.problem.field if self._custom else self._module
        target.load_flat(np.asarray(params, dtype=np.float64))

    def _odeint(self, saveat: np.ndarray, rtol: float, atol: float) -> Tensor:
        problem = self.problem
        prepend = saveat[0] > problem.t0  # torchdiffeq starts at the first time it is given
        times = torch.from_numpy(np.append(problem.t0, saveat) if prepend else np.array(saveat))
        u0 = torch.from_numpy(problem.u0)
        if len(times) == 1:
            return u0[None]
        method = odeint_adjoint if self.method == "adjoint" else odeint
        options = {"max_num_steps": problem.max_steps, "norm": _largest}
        try:
            u = method(self._module, u0, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        except AssertionError as error:  # how torchdiffeq tells that a solve failed
            text = str(error).splitlines()[0][:120]
            if "max_num_steps" in text:  # torchdiffeq counts anew after each save point
                remedy = "raise max_steps, or loosen rtol and atol"
                text = f"more than {problem.max_steps} steps to one save point: {remedy}"
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
