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

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import KansciError
from kansciml.backends import _kernels
from kansciml.backends._dopri5 import STAGES, A, Steps, integrate
from kansciml.backends.base import OdeProblem
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.record import Run, read_runs
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField
from kansciml.runs.records import Record
from kansciml.runs.trained import LoadedModel, TrainedModel
from kansciml.tasks.ode.data import training_data
from kansciml.tasks.ode.problem import METRICS, make_problem
from kansciml.tasks.ode.system import System

NEWTON = 2
"""Iterations from the trained solution: the first makes the gradient exact, the second the Hessian."""


def trained_fields(record: Record, plan: Plan) -> list[TrainedModel]:
    """The models of a run whose training ended (neither diverged nor interrupted), in the order of the plan.

    Raises:
        KansciError: the data of a system are not those of the record any more.
    """
    runs = {run.id: run for run in read_runs(record) if run.status == "finished"}
    jobs = [job for job in plan.jobs if job.id in runs]
    for source in dict.fromkeys(job.system for job in jobs):
        _require_same_data(record, plan.systems[source])
    return [_trained(job, plan.systems[job.system], runs[job.id]) for job in jobs]


def _trained(job: Job, system: System, run: Run) -> TrainedModel:
    def load() -> LoadedModel:
        config = job.config
        problem = make_problem(system, job.spec, config.rtol, config.atol, config.max_steps)
        return load_field(problem, run.array("params"))

    two = job.group != job.variant
    return TrainedModel(
        name=job.id,
        label=f"{job.spec.label()} ({job.backend})" if two else job.spec.label(),
        group=job.group,
        seed=job.seed,
        load=load,
        task=system.name,
        against=None if job.variant == "mlp" else replace(job, variant="mlp").group,
        metrics={name: getattr(run, name) for name in METRICS},
        loss=run.final_loss,
    )


def load_field(problem: OdeProblem, params: np.ndarray) -> LoadedModel:
    """The built-in field of `problem` at its trained parameters (P,), float64.

    One batch: per save point the step that holds it (T,), its dense-output weights (T, 7), and the data (T, n).

    Raises:
        SolveError: the ODE cannot be solved with these parameters.
    """
    problem = problem.in_own_units()
    assert isinstance(problem.field, FieldSpec)
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


def _require_same_data(record: Record, system: System) -> None:
    times, states = (record.arrays.get(f"{system.name}.{name}") for name in ("data_t", "data"))
    if times is None or states is None:
        raise KansciError(f"{record.folder} holds no data of {system.name}: run it again")
    data = training_data(system)
    kept = np.isin(times, data.t)
    near = 1e-9 * np.abs(data.states).max(axis=0)  # solved on another machine, the last digits differ
    if kept.sum() != len(data) or np.any(np.abs(states[kept] - data.states) > near):
        raise KansciError(
            f"the data of {system.name} are not those that the run in {record.folder} was trained on: restore the file,"
            " or train anew"
        )
