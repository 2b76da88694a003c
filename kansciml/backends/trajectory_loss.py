"""The training loss of a built-in field near its trained parameters, as a twice differentiable function in PyTorch.

The loss is that of the training: the error at the save points of the discrete solutions, their steps held fixed. As a
function of the parameters it is a recursion over hundreds of steps, and going back through each twice takes up to a
second. Instead all steps are taken at once, each from its own start u_s, and the starts are made to fit by Newton's
method with the Jacobian of the trained parameters,

    u <- u + M (Phi(u; theta) - u),    (M r)_{s+1} = G_s (M r)_s + r_s,    G_s = d Phi_s / d u_s,

where Phi_s is the step from u_s to u_{s+1} of the same trajectory. From the trained solution one such iteration is
exact to first order in the parameters and two are exact to second order, so that value, gradient and Hessian at the
trained parameters are those of the recursion. Third derivatives are not, nor are values at other parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml._errors import UsageError
from kansciml.backends._engines.replay import ExplicitSolved
from kansciml.backends._engines.tableaus import TABLEAUS
from kansciml.backends._kernels import bind
from kansciml.backends.base import OdeProblem, Piece
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

DOPRI5 = TABLEAUS["dopri5"]
NEWTON = 2
"""Iterations from the trained solution: the first makes the gradient exact, the second the Hessian."""
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Per save point the step that holds it (T,), its dense-output weights (T, 7), the data (T, n), and the weights of the
measurements (T, n), 0 where nothing was measured; T counts those of all trajectories."""


def trajectory_loss(
    problem: OdeProblem, params: Float64[np.ndarray, " P"]
) -> tuple[VectorField, TrajectoryLoss, Batch]:
    """The built-in field of `problem` at its trained parameters, its loss, and the data.

    Raises:
        UsageError: another solver than dopri5, another field, or learned initial states.
        SolveError: the ODE cannot be solved with these parameters.
    """
    field = problem.field
    if not isinstance(field, FieldSpec):
        raise UsageError(f"got the field {field.label()}: expected a built-in MLP or KAN for second derivatives")
    if problem.solver not in ("5", DOPRI5.name):
        raise UsageError(f"got solver {problem.solver}: expected 5 (dopri5), the one with second derivatives")
    if len(problem.learned):
        raise UsageError("got learned initial states: expected given ones, second derivatives are by the field alone")
    problem = problem.in_own_units()
    assert isinstance(problem.field, FieldSpec)
    pieces = [Piece(one.u0, one.t0, one.saveat, one.inputs) for one in problem.series]
    settings = problem.rtol, problem.atol, problem.max_steps
    solved = ExplicitSolved(bind(problem.field, params), DOPRI5, pieces, *settings)
    module = VectorField(problem.field).load_flat(params)
    loss = TrajectoryLoss.of(module, problem, solved)
    data = np.concatenate([one.data for one in problem.series])
    weights = np.concatenate([np.ones_like(one.data) if one.weights is None else one.weights for one in problem.series])
    missing = np.isnan(data)
    data, weights = np.where(missing, 0.0, data), np.where(missing, 0.0, weights)
    tensor = torch.from_numpy
    return module, loss, (tensor(solved.row), tensor(solved.weights), tensor(data), tensor(weights))


@dataclass(frozen=True, eq=False)
class TrajectoryLoss:
    """Weighted mean squared error at save points, as described above; called as ``loss(module, batch)``.

    Args:
        starts: state at the start of each step, (N, n), of the trained solution. sizes: of the steps, (N, 1).
        times: of the stages (7, N, 1). inputs: at the stages (7, N, m), or None 7 times.
        chains: per trajectory its steps (N_k,), and M, (N_k - 1, n, N_k - 1, n), block-triangular: misfits at the ends
            of steps to changes of the next starts.
        scale: divisor of the error, (n,).
    """

    starts: Tensor
    sizes: Tensor
    times: Tensor
    inputs: Tensor | list[None]
    chains: list[tuple[Tensor, Tensor]]
    scale: Tensor

    @classmethod
    def of(cls, module: nn.Module, problem: OdeProblem, solved: ExplicitSolved) -> TrajectoryLoss:
        steps = solved.steps
        starts = torch.from_numpy(np.ascontiguousarray(steps.states[:, 0])).requires_grad_()
        times = steps.t + DOPRI5.c[:, None] * steps.h  # (7, N)
        inputs = solved.drive(times.ravel(), np.tile(steps.interval, len(times)))
        given = [None] * len(times) if inputs is None else torch.from_numpy(inputs.reshape(*times.shape, -1))
        found = cls(starts, torch.from_numpy(steps.h)[:, None], torch.from_numpy(times)[..., None], given, [],
                    torch.from_numpy(problem.loss_scale))  # fmt: skip
        n = starts.shape[1]
        after = found._step(module, starts)[0]
        rows = [torch.autograd.grad(after[:, i].sum(), starts, retain_graph=i + 1 < n)[0] for i in range(n)]
        jacobians = torch.stack(rows, dim=1)
        for place in range(len(steps.order)):
            chain = steps.rows(place)
            solve = torch.zeros(len(chain) - 1, n, len(chain) - 1, n, dtype=torch.float64)
            for s in range(len(chain) - 1):
                if s:
                    solve[s, :, :s] = torch.tensordot(jacobians[chain[s]], solve[s - 1, :, :s], 1)
                solve[s, range(n), s, range(n)] = 1.0
            found.chains.append((torch.from_numpy(chain), solve))
        starts.requires_grad_(False)
        return found

    def __call__(self, module: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        step, dense, data, weights = batch
        u = self.starts
        for _ in range(NEWTON):
            after = self._step(module, u)[0]
            change = torch.zeros_like(u)
            for chain, solve in self.chains:
                misfit = after[chain[:-1]] - u[chain[1:]]
                change = change.index_add(0, chain[1:], torch.tensordot(solve, misfit, 2))
            u = u + change
        after, slopes = self._step(module, u)
        all_slopes = torch.stack([*slopes, module(self.times[-1], after, self.inputs[-1])], dim=1)  # (N, 7, n)
        states = u[step] + self.sizes[step] * torch.matmul(dense[:, None, :], all_slopes[step])[:, 0]
        return (weights * ((states - data) / self.scale) ** 2).sum() / weights.sum()

    def _step(self, module: nn.Module, u: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Each step from its u (N, n): the states after it, and the slopes at its first six stages."""
        slopes: list[Tensor] = []
        at = u
        for j in range(1, DOPRI5.stages):
            slopes.append(module(self.times[j - 1], at, self.inputs[j - 1]))
            at = u + self.sizes * sum(float(a) * slope for a, slope in zip(DOPRI5.a[j], slopes) if a != 0)
        return at, slopes
