"""Neural ODEs on equal terms: fields of every size, their trainings, the time of an evaluation with its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import SolveError
from kansciml._files import short_name
from kansciml.experiments.fair.config import DARCY, IMAGES, FairConfig
from kansciml.experiments.fair.kinds import MLP, Metric, grown, grown_width, of_layer
from kansciml.experiments.fair.record import StepTimes, Trained
from kansciml.experiments.fair.step_times import measure, stretched
from kansciml.experiments.ode.runs import Job, field_flops, flops_field, run_jobs, shared_backend
from kansciml.models.field_spec import FieldSpec
from kansciml.ode import resolve_system
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.settings import seed_range
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.system import System

ROUNDS = 3
"""Of the steps' times, for every seed: evaluations take milliseconds, and how many solver steps depends on the seed."""
SIZES = {"params": lambda spec: float(spec.n_parameters), "flops": field_flops}


class OdeKind:
    """All systems of a configuration; see `kansciml.experiments.fair.kinds.Kind`."""

    name = "ode"
    layers = ("spline",)

    def __init__(self, config: FairConfig) -> None:
        self.config = config
        self.sources = {short_name(Path(task).stem): task for task in config.tasks if task not in (IMAGES, DARCY)}
        self.tasks = tuple(self.sources)

    def system(self, task: str) -> System:
        return resolve_system(self.sources[task])

    def title(self, task: str) -> str:
        return self.system(task).title

    def metrics(self, task: str) -> tuple[Metric, ...]:
        fit = Metric("train_mse", "training MSE", primary=True)
        beyond = Metric("test_mse", "MSE beyond training")
        return (fit,) if self.system(task).test_end is None else (fit, beyond)

    def fields(self, task: str, names: Iterable[str]) -> dict[str, FieldSpec]:
        """Group -> field."""
        system, config = self.system(task), self.config
        options: dict[str, Any] = {"hidden": config.hidden, "grid": config.grid or 5}
        options["spline_order"] = config.spline_order
        mlp, kan = make_field(system, "mlp", **options), make_field(system, "kan", **options)
        hidden = mlp.widths[1:-1]

        def wider(first: int) -> FieldSpec:
            return make_field(system, "mlp", hidden=tuple(max(1, round(h * first / hidden[0])) for h in hidden))

        def made(group: str) -> FieldSpec:
            if group == of_layer("spline", "params"):
                return make_field(system, "kan", match="params", **options)
            if group == of_layer("spline", "flops"):
                return flops_field(system, **options)
            for by in SIZES:
                if group == grown("spline", by):
                    return wider(grown_width(lambda first, by=by: SIZES[by](wider(first)), SIZES[by](kan), hidden[0]))
            return mlp if group == MLP else kan

        return {group: made(group) for group in names}

    def jobs(self, groups: Callable[[str], Iterable[str]]) -> list[Job]:
        config = self.config
        return [
            Job(source, group, spec, seed, "torch", None, config.training, config.rtol, config.atol)
            for task, source in self.sources.items()
            for group, spec in self.fields(task, groups("spline")).items()
            for seed in seed_range(config)
        ]

    def stretched(self, job: Job, group: str, factor: float) -> Job:
        steps = {name: stretched(getattr(job.training, name), factor) for name in ("adam_steps", "lbfgs_steps")}
        return replace(job, variant=group, training=replace(job.training, **steps))

    def task_of(self, job: Job) -> str:
        return short_name(Path(job.system).stem)

    def group_of(self, job: Job) -> str:
        return job.variant

    def train(self, jobs: Sequence[Job], context: RunContext) -> tuple[Result, list[Trained]]:
        # the longest first, so that the pool does not wait for one of them at the end
        result = run_jobs(sorted(jobs, key=_length, reverse=True), context)
        rows = {row["id"]: row for row in result.result["runs"]}
        return result, [self._trained(job, rows[job.id], result) for job in jobs]

    def _trained(self, job: Job, row: dict[str, Any], result: Result) -> Trained:
        task = self.task_of(job)
        diverged = row["status"] != "finished" or row["train_mse"] is None  # or not to be solved at 1e-10
        return Trained(
            id=job.id,
            task=task,
            group=job.variant,
            label=job.spec.label(),
            seed=job.seed,
            status=row["status"],
            message=row["not_computed"].get("train_mse") or row["message"],
            parameters=job.spec.n_parameters,
            flops=field_flops(job.spec),
            steps=len(result.arrays[f"{job.id}.iteration"]),
            seconds=row["wall_s"],
            losses={metric.name: None if diverged else row[metric.name] for metric in self.metrics(task)},
        )

    def step_times(self, kans: Sequence[Job], mlps: Sequence[Job], result: Result, context: RunContext) -> StepTimes:
        """Of a loss with its gradient at the trained parameters of every seed, near which most steps are taken.

        At the first parameters du/dt is nearly zero, which takes fewer steps of the solver.
        """
        backend = shared_backend("torch", None, context.log)

        def evaluation(job: Job) -> Callable[[], object]:
            solver = backend.solver(make_problem(self.system(self.task_of(job)), job.spec, job.rtol, job.atol))
            params = np.asarray(result.arrays[f"{job.id}.params"])
            solver.value_and_grad(params)
            return lambda: solver.value_and_grad(params)

        found = []
        for kan, mlp in zip(kans, mlps):
            try:
                found.append((evaluation(kan), evaluation(mlp)))
            except SolveError as error:
                context.log(f"{kan.id} or {mlp.id} cannot be timed: {error}")
        return measure(found, ROUNDS)


def _length(job: Job) -> float:
    """Roughly proportional to the time of a training."""
    steps = job.training.adam_steps + job.training.lbfgs_steps
    return steps * math.sqrt(job.spec.state_size * job.spec.n_parameters)
