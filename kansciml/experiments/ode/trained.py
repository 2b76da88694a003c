"""Trained neural ODEs as modules with a twice differentiable training loss.

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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import KansciError
from kansciml.backends import _kernels
from kansciml.backends._dopri5 import STAGES, A, Steps, integrate
from kansciml.backends.base import OdeProblem
from kansciml.experiments.ode.runs import Job
from kansciml.models.fields import VectorField
from kansciml.runs.records import Record
from kansciml.runs.trained import LoadedModel, TrainedModel
from kansciml.tasks.ode.problem import METRICS, make_problem
from kansciml.tasks.ode.system import System

NEWTON = 2
"""Iterations from the trained solution: the first makes the gradient exact, the second the Hessian."""


def trained_fields(record: Record, jobs: Sequence[Job]) -> list[TrainedModel]:
    """The models of a run whose training ended (neither diverged nor interrupted), in the order of `jobs`.

    Raises:
        KansciError: the data of a system are not those of the record any more.
    """
    rows = {row["id"]: row for row in record.result["runs"]}
    found, checked = [], set()
    for job in jobs:
        row = rows.get(job.id)
        if row is None or row["status"] != "finished":
            continue
        system = job.resolve()
        if system.name not in checked:
            _require_same_data(record, system, make_problem(system, job.spec))
            checked.add(system.name)
        model, _, backend = job.variant.partition("@")
        reference = f"mlp@{backend}" if backend else "mlp"
        found.append(
            TrainedModel(
                name=job.id,
                label=job.spec.label() + (f" ({backend})" if backend else ""),
                group=job.variant,
                seed=job.seed,
                load=lambda job=job, system=system: load_field(
                    make_problem(system, job.spec, job.rtol, job.atol, job.max_steps), record.arrays[f"{job.id}.params"]
                ),
                task=system.name,
                against=None if model == "mlp" else reference,
                metrics={name: row[name] for name in METRICS},
                loss=row["final_loss"],
            )
        )
    return found


def load_field(problem: OdeProblem, params: np.ndarray) -> LoadedModel:
    """The field of `problem` at its trained parameters (P,), float64.

    One batch: per save point the step that holds it (T,), its dense-output weights (T, 7), and the data (T, n).

    Raises:
        SolveError: the ODE cannot be solved with these parameters.
    """
    params, problem = np.ascontiguousarray(params, dtype=np.float64), problem.in_own_units()
    rhs = _kernels.bind(problem.field, params).rhs
    steps = integrate(rhs, problem.u0, problem.t0, problem.saveat[-1], problem.rtol, problem.atol, problem.max_steps)
    module = VectorField(problem.field).load_flat(params)
    step, weights = steps.locate(problem.saveat)
    batch = tuple(map(torch.from_numpy, (step, weights, problem.data)))
    # thousands of operations on a few numbers: a second thread only waits for the first
    return LoadedModel(module, TrajectoryLoss.of(module, problem, steps), batch, threads=1)


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

    def __call__(self, module: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        step, weights, data = batch
        u = self.starts
        if len(u) > 1:
            for _ in range(NEWTON):
                misfit = _step(module, u[:-1], self.sizes[:-1])[0] - u[1:]
                u = torch.cat([u[:1], u[1:] + torch.tensordot(self.solve, misfit, 2)])
        after, slopes = _step(module, u, self.sizes)
        slopes = torch.stack([*slopes, module(None, after)], dim=1)  # (N, 7, n)
        states = u[step] + self.sizes[step] * torch.matmul(weights[:, None, :], slopes[step])[:, 0]
        return (((states - data) / self.scale) ** 2).mean()


def _step(module: nn.Module, u: Tensor, sizes: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One Dormand-Prince step from each of u (N, n): the states after it, and the slopes at its first six stages."""
    slopes: list[Tensor] = []
    at = u
    for j in range(1, STAGES):
        slopes.append(module(None, at))
        at = u + sizes * sum(float(a) * slope for a, slope in zip(A[j], slopes) if a != 0)
    return at, slopes


def _require_same_data(record: Record, system: System, problem: OdeProblem) -> None:
    times, states = (record.arrays.get(f"{system.name}.{name}") for name in ("data_t", "data"))
    if times is None or states is None:
        raise KansciError(f"{record.folder} holds no data of {system.name}: run it again")
    kept = np.isin(times, problem.saveat)
    near = 1e-9 * np.abs(problem.data).max(axis=0)  # solved on another machine, the last digits differ
    if kept.sum() != len(problem.saveat) or np.any(np.abs(states[kept] - problem.data) > near):
        raise KansciError(
            f"the data of {system.name} are not those that the run in {record.folder} was trained on: restore the file,"
            " or train anew"
        )
