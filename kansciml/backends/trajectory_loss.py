"""The training loss of a built-in field near its trained parameters, as a twice differentiable function in PyTorch.

The loss is that of the training: the error at the save points of the discrete solution, its steps held fixed. As a
function of the parameters it is a recursion over hundreds of steps, and going back through each twice takes up to a
second. Instead all steps are taken at once, each from its own start u_s, and the starts are made to fit by Newton's
method with the Jacobian of the trained parameters,

    u <- u + M (Phi(u; theta) - u),    (M r)_{s+1} = G_s (M r)_s + r_s,    G_s = d Phi_s / d u_s,

where Phi_s is the step from u_s to u_{s+1}. From the trained solution one such iteration is exact to first order in the
parameters and two are exact to second order, so that value, gradient and Hessian at the trained parameters are those of
the recursion. Third derivatives are not, nor are values at other parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.backends._dopri5 import STAGES, A, Steps, integrate
from kansciml.backends._kernels import bind
from kansciml.backends.base import OdeProblem
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

NEWTON = 2
"""Iterations from the trained solution: the first makes the gradient exact, the second the Hessian."""
Batch = tuple[Tensor, Tensor, Tensor]
"""Per save point the step that holds it (T,), its dense-output weights (T, 7), and the data (T, n)."""


def trajectory_loss(
    problem: OdeProblem, params: Float64[np.ndarray, " P"]
) -> tuple[VectorField, TrajectoryLoss, Batch]:
    """The built-in field of `problem` at its trained parameters, its loss, and the data.

    Raises:
        SolveError: the ODE cannot be solved with these parameters.
    """
    problem = problem.in_own_units()
    assert isinstance(problem.field, FieldSpec)
    rhs = bind(problem.field, params).rhs
    steps = integrate(rhs, problem.u0, problem.t0, problem.saveat[-1], problem.rtol, problem.atol, problem.max_steps)
    module = VectorField(problem.field).load_flat(params)
    step, weights = steps.locate(problem.saveat)
    batch = torch.from_numpy(step), torch.from_numpy(weights), torch.from_numpy(problem.data)
    return module, TrajectoryLoss.of(module, problem, steps), batch


@dataclass(frozen=True, eq=False)
class TrajectoryLoss:
    """Mean squared error at save points, as described above; called as ``loss(module, batch)``.

    Args:
        starts: state at the start of each step, (N, n), of the trained solution. sizes: of the steps, (N, 1).
        solve: M, (N - 1, n, N - 1, n), block-triangular: misfits at the ends of steps to changes of the next starts.
        scale: divisor of the error, (n,).
    """

    starts: Tensor
    sizes: Tensor
    solve: Tensor
    scale: Tensor

    @classmethod
    def of(cls, module: nn.Module, problem: OdeProblem, steps: Steps) -> TrajectoryLoss:
        starts = torch.from_numpy(np.ascontiguousarray(steps.stage_states[:, 0]))
        sizes = torch.from_numpy(steps.h)[:, None]
        u = starts[:-1].clone().requires_grad_()
        count, n = u.shape
        after = _step(module, u, sizes[:-1])[0]
        rows = [torch.autograd.grad(after[:, i].sum(), u, retain_graph=i + 1 < n)[0] for i in range(n)] if count else []
        solve = torch.zeros(count, n, count, n, dtype=torch.float64)
        for s in range(count):
            if s:
                jacobian = torch.stack([row[s] for row in rows])
                solve[s, :, :s] = torch.tensordot(jacobian, solve[s - 1, :, :s], 1)
            solve[s, range(n), s, range(n)] = 1.0
        return cls(starts, sizes, solve, torch.from_numpy(problem.loss_scale))

    def __call__(self, module: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        step, weights, data = batch
        u = self.starts
        if len(u) > 1:
            for _ in range(NEWTON):
                misfit = _step(module, u[:-1], self.sizes[:-1])[0] - u[1:]
                u = torch.cat([u[:1], u[1:] + torch.tensordot(self.solve, misfit, 2)])
        after, slopes = _step(module, u, self.sizes)
        all_slopes = torch.stack([*slopes, module(None, after)], dim=1)  # (N, 7, n)
        states = u[step] + self.sizes[step] * torch.matmul(weights[:, None, :], all_slopes[step])[:, 0]
        return (((states - data) / self.scale) ** 2).mean()


def _step(module: nn.Module, u: Tensor, sizes: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One Dormand-Prince step from each of u (N, n): the states after it, and the slopes at its first six stages."""
    slopes: list[Tensor] = []
    at = u
    for j in range(1, STAGES):
        slopes.append(module(None, at))
        at = u + sizes * sum(float(a) * slope for a, slope in zip(A[j], slopes) if a != 0)
    return at, slopes
