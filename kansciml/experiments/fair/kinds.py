"""The kinds of tasks on equal terms: neural ODEs, images by MLP-Mixers, Darcy flow by neural operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from kansciml._errors import SolveError
from kansciml.analysis.matching import mixing_size
from kansciml.backends.julia import JuliaBackend
from kansciml.experiments.fair.config import DARCY, IMAGES, LAYERS, FairConfig
from kansciml.experiments.fair.domain import MLP, Arrays, Domain, Metric, Model, Step, measure, stretched
from kansciml.experiments.fair.record import FairRun, StepTimes
from kansciml.experiments.fno.jobs import jobs as fno_jobs
from kansciml.experiments.fno.runs import OperatorTrainer
from kansciml.experiments.minibatch.jobs import TrainingJob
from kansciml.experiments.minibatch.trainings import Trainer
from kansciml.experiments.ode.backends import shared_backend
from kansciml.experiments.ode.config import SystemConfig
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.run_rows import Run
from kansciml.experiments.ode.runs import run_jobs
from kansciml.experiments.ode.variants import field_flops, flops_field
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.models.hybrid_spec import Spec
from kansciml.runs.experiment import RunContext
from kansciml.runs.ranks import device_of
from kansciml.runs.settings import seed_range
from kansciml.runs.typed import attributes, read
from kansciml.tasks.ode.problem import FieldSizes, field_of, make_problem
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.optim import adamw

ROUNDS = 3
"""Of the steps' times, for every seed: evaluations take milliseconds, and how many solver steps depends on the seed."""


METRICS = (
    Metric("train_mse", "training MSE", lambda run: run.train_mse, primary=True),
    Metric("test_mse", "MSE beyond training", lambda run: run.test_mse),
)
Training = TrainingJob[Any, Any]


class NeuralOdes(Domain[Job]):
    """The systems of a configuration, on one backend; with two of them each system is two tasks."""

    def __init__(self, config: FairConfig, backend: str) -> None:
        how = config.ode.whole()
        self.how, several = replace(how, backend=backend), len(how.backends) > 1
        sources = [SystemConfig(name) for name in config.systems]
        self.sources = {f"{source.name}-{backend}" if several else source.name: source for source in sources}
        self.systems = {source: source.resolve() for source in sources}
        found = {task: self.systems[source] for task, source in self.sources.items()}
        titles = {task: system.title + f", {backend}" * several for task, system in found.items()}
        metrics = {task: METRICS[:1] if system.test_end is None else METRICS for task, system in found.items()}
        super().__init__(config, "ode", ("spline",), titles, metrics)

    def field(self, task: str, model: Model) -> Spec:
        """The field of a model for a system."""
        system, kan = self.systems[self.sources[task]], self.config.kan
        sizes = FieldSizes(self.config.hidden, kan.grid or 5, kan.spline_order)
        if model.kind == "flops":
            return flops_field(system, sizes)
        match = "params" if model.kind == "params" else "width"
        return field_of(system, "mlp" if model == MLP else "kan", match=match, config=sizes)

    def seeds_of(self, task: str, model: Model) -> list[Job]:
        field, how = self.field(task, model), self.how
        return [Job(self.sources[task], model.group, field, seed, how.backend, how) for seed in seed_range(self.config)]

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
        task = next(task for task, source in self.sources.items() if source == job.system)
        return FairRun(
            **attributes(row, "id seed status"),
            task=task,
            group=job.variant,
            label=job.spec.label(),
            message=row.not_computed.get("train_mse") or row.message,
            parameters=job.spec.n_parameters,
            flops=field_flops(cast(Spec, job.spec)),
            steps=1 + int(max(arrays[f"{job.id}.iteration"], default=-1)),  # of a long training not all rows are kept
            seconds=row.wall_s,
            losses={metric.name: None if row.diverged else metric.of(row) for metric in self.metrics[task]},
        )

    def step_times(self, kans: Sequence[Job], mlps: Sequence[Job], arrays: Arrays, context: RunContext) -> StepTimes:
        """Of a loss with its gradient at the trained parameters of every seed, near which most steps are taken.

        At the first parameters du/dt is nearly zero, which takes fewer steps of the solver.
        """
        backend = shared_backend(self.how.backend, self.how.method(self.how.backend), context.log)

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
        elsewhere = backend.cpu_seconds if isinstance(backend, JuliaBackend) else lambda: 0.0
        return measure(found, ROUNDS, elsewhere=elsewhere)


class Networks(Domain[Training]):
    """Trainings on minibatches, all on one task.

    Args:
        trainer: makes what trains them.
        jobs_of: variant and match (``none``, ``params``, ``flops``) -> trainings, the first seed's first.
    """

    def __init__(
        self,
        config: FairConfig,
        task: str,
        title: str,
        metrics: Sequence[Metric],
        trainer: Callable[[RunContext], Trainer[Any, Any, Any]],
        jobs_of: Callable[[str, str], Sequence[Training]],
    ) -> None:
        super().__init__(config, task, LAYERS, {task: title}, {task: metrics})
        self.trainer, self.jobs_of = trainer, jobs_of

    def seeds_of(self, task: str, model: Model) -> list[Training]:
        job = self.jobs_of(model.variant, model.kind or "none")[0]  # once, as looking up models takes long
        job.sizes()
        return [replace(job, seed=seed) for seed in seed_range(self.config)]

    def stretched(self, job: Training, model: Model, factor: float) -> Training:
        training = job.training
        epochs = stretched(training.epochs, factor)
        longer = replace(training, epochs=epochs, warmup=training.warmup * epochs / training.epochs)
        return replace(job, kind=model.kind, training=longer)

    def train(self, jobs: Sequence[Training], context: RunContext) -> tuple[list[FairRun], Arrays]:
        found = self.trainer(context).run(jobs)
        return [self._run(job, row, found.arrays) for job, row in zip(jobs, found.rows)], found.arrays

    def _run(self, job: Training, row: Any, arrays: Arrays) -> FairRun:
        return FairRun(
            **attributes(row, "id seed status message parameters steps"),
            task=self.name,
            group=Model(job.network.variant, job.kind).group,
            label=label(job.network),
            flops=mixing_size(job.network, "flops"),
            seconds=float(arrays[f"{job.id}.train_s"][-1:].sum()),
            losses={metric.name: None if row.diverged else metric.of(row) for metric in self.metrics[self.name]},
        )

    def step_times(
        self, kans: Sequence[Training], mlps: Sequence[Training], arrays: Arrays, context: RunContext
    ) -> StepTimes:
        """Of the first seed's networks with their first weights: a step's time does not depend on them."""
        trainer, device = self.trainer(context), device_of(kans[0].training.accelerator)
        clock = "wall" if device.type == "cuda" else "process"
        return measure([(_step(trainer, kans[0], device), _step(trainer, mlps[0], device))], clock=clock)


def images(config: FairConfig) -> Networks:
    """Image classification by MLP-Mixers."""
    metrics = (
        Metric("error", "test error rate", lambda row: row.error, primary=True),
        Metric("test_loss", "test cross-entropy", lambda row: row.loss),
    )
    title = f"{get_dataset(config.images.images_dataset).title}, MLP-Mixer"
    return Networks(config, IMAGES, title, metrics, ImageTrainer, lambda *how: vision_jobs(config.classifier(*how)))


def darcy(config: FairConfig) -> Networks:
    """Darcy flow by neural operators."""
    operator = config.neural_operator("mlp").operator
    size = operator.samples.darcy.size
    title = f"Darcy flow, {size} x {size}, {operator.model}"
    metrics = (Metric("relative_l2", "test relative L2", lambda row: row.relative_l2, primary=True),)
    return Networks(config, DARCY, title, metrics, OperatorTrainer, lambda *how: fno_jobs(config.neural_operator(*how)))


def label(network: Any) -> str:
    """``MLP 4-128-4, 64-64-64`` and ``KAN 4-6-4, 64-7-64 (G=5, S=3)``: of each kind of MLP or KAN in a network."""
    widths = [slot.widths for slot in network.slots()] if network.kan_layer is None else network.kan_widths()
    sizes = ", ".join("-".join(map(str, own)) for own in widths)
    if network.kan_layer is None:
        return f"MLP {sizes}"
    if network.kan_layer == "rswaf":
        return f"KAN {sizes} (RSWAF, G={network.kan_grid})"
    return f"KAN {sizes} (G={network.kan_grid}, S={network.spline_order})"


def _step(trainer: Trainer[Any, Any, Any], job: Training, device: torch.device) -> Step:
    """A function that takes one step as `kansciml.training.loop` does, and waits for its end on a GPU."""
    steps, training = trainer.steps(job, trainer.data(job), device), job.training
    batches = (batch for epoch in count() for batch in steps.batches(epoch))
    network = job.build().to(device).train()
    optimiser = adamw(network, training.learning_rate, training.weight_decay)

    def step() -> None:
        value, _ = steps.loss(network, next(batches))
        value.backward()
        if training.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step
