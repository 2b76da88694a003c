"""Neural ODEs on equal terms: fields of every size, their trainings, the time of an evaluation with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kansciml._errors import SolveError
from kansciml.experiments.fair.config import FairConfig
from kansciml.experiments.fair.domain import MLP, Arrays, Domain, Metric, Model, Step, measure, stretched
from kansciml.experiments.fair.record import FairRun, StepTimes
from kansciml.experiments.ode.backends import shared_backend
from kansciml.experiments.ode.config import SystemConfig
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.record import Run
from kansciml.experiments.ode.runs import run_jobs
from kansciml.experiments.ode.variants import field_flops, flops_field
from kansciml.models.field_spec import FieldSpec
from kansciml.runs.experiment import RunContext
from kansciml.runs.settings import seed_range
from kansciml.runs.typed import read
from kansciml.tasks.ode.problem import FieldSizes, make_field, make_problem

ROUNDS = 3
"""Of the steps' times, for every seed: evaluations take milliseconds, and how many solver steps depends on the seed."""


METRICS = (
    Metric("train_mse", "training MSE", lambda run: run.train_mse, primary=True),
    Metric("test_mse", "MSE beyond training", lambda run: run.test_mse),
)


class NeuralOdes(Domain[Job]):
    """The systems of a configuration."""

    def __init__(self, config: FairConfig) -> None:
        self.sources = {source.name: source for source in map(SystemConfig, config.systems)}
        self.systems = {source: source.resolve() for source in self.sources.values()}
        titles = {source.name: system.title for source, system in self.systems.items()}
        metrics = {
            source.name: METRICS[:1] if system.test_end is None else METRICS for source, system in self.systems.items()
        }
        super().__init__(config, "ode", ("spline",), titles, metrics)

    def field(self, task: str, model: Model) -> FieldSpec:
        """The field of a model for a system."""
        system, kan = self.systems[self.sources[task]], self.config.kan
        sizes = FieldSizes(self.config.hidden, kan.grid or 5, kan.spline_order)
        if model.kind == "flops":
            return flops_field(system, sizes)
        match = "params" if model.kind == "params" else "width"
        return make_field(system, "mlp" if model == MLP else "kan", match=match, config=sizes)

    def seeds_of(self, task: str, model: Model) -> list[Job]:
        field, how = self.field(task, model), self.config.ode.whole()
        return [Job(self.sources[task], model.group, field, seed, "torch", how) for seed in seed_range(self.config)]

    def stretched(self, job: Job, model: Model, factor: float) -> Job:
        training = job.config.training
        longer = replace(
            training,
            adam_steps=stretched(training.adam_steps, factor),
            lbfgs_steps=stretched(training.lbfgs_steps, factor),
        )
        return replace(job, variant=model.group, config=replace(job.config, training=longer))

    def train(self, jobs: Sequence[Job], context: RunContext) -> tuple[list[FairRun], Arrays]:
        result = run_jobs(Plan(list(jobs), {job.system: self.systems[job.system] for job in jobs}), context)
        rows = [read(Run, row) for row in result.result["runs"]]
        return [self._run(job, row, result.arrays) for job, row in zip(jobs, rows)], result.arrays

    def _run(self, job: Job, row: Run, arrays: Arrays) -> FairRun:
        task = job.system.name
        return FairRun(
            id=job.id,
            task=task,
            group=job.variant,
            label=job.spec.label(),
            seed=job.seed,
            status=row.status,
            message=row.not_computed.get("train_mse") or row.message,
            parameters=job.spec.n_parameters,
            flops=field_flops(job.spec),
            steps=len(arrays[f"{job.id}.iteration"]),
            seconds=row.wall_s,
            losses={metric.name: None if row.diverged else metric.of(row) for metric in self.metrics[task]},
        )

    def step_times(self, kans: Sequence[Job], mlps: Sequence[Job], arrays: Arrays, context: RunContext) -> StepTimes:
        """Of a loss with its gradient at the trained parameters of every seed, near which most steps are taken.

        At the first parameters du/dt is nearly zero, which takes fewer steps of the solver.
        """
        backend = shared_backend("torch", None, context.log)

        def evaluation(job: Job) -> Step:
            solver = backend.solver(make_problem(self.systems[job.system], job.spec, job.config.rtol, job.config.atol))
            params = np.asarray(arrays[f"{job.id}.params"])
            solver.value_and_grad(params)
            return lambda: solver.value_and_grad(params)

        found: list[tuple[Step, Step]] = []
        for kan, mlp in zip(kans, mlps):
            try:
                found.append((evaluation(kan), evaluation(mlp)))
            except SolveError as error:
                context.log(f"{kan.id} or {mlp.id} cannot be timed: {error}")
        return measure(found, ROUNDS)
