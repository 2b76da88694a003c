"""Image classification by MLP-Mixers on equal terms: networks of every size, their trainings, the time of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import nn

from kansciml.analysis.matching import mixing_flops, mlp_size
from kansciml.experiments.fair.config import IMAGES, LAYERS, MIXER, FairConfig
from kansciml.experiments.fair.kinds import MLP, Metric, grown, grown_width, of_layer
from kansciml.experiments.fair.record import StepTimes, Trained
from kansciml.experiments.fair.step_times import measure, stretched
from kansciml.experiments.minibatch.trainings import Steps, Trainer
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.record import VisionRow
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.models.base import VisionConfig
from kansciml.models.registry import find
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.runs.settings import seed_range
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.optim import adamw

HIDDEN = ("token_hidden", "channel_hidden")


class ImagesKind:
    """The data set of a configuration; see `kansciml.experiments.fair.kinds.Kind`."""

    name = IMAGES
    tasks = (IMAGES,)
    layers = LAYERS

    def __init__(self, config: FairConfig) -> None:
        self.config = config

    def title(self, task: str) -> str:
        return f"{get_dataset(self.config.images_dataset).title}, MLP-Mixer"

    def metrics(self, task: str) -> tuple[Metric, ...]:
        return (Metric("error", "test error rate", primary=True),
                Metric("test_loss", "test cross-entropy"))  # fmt: skip

    def jobs(self, groups: Callable[[str], Iterable[str]]) -> list[VisionJob]:
        made: dict[str, VisionJob] = {}
        for layer in self.config.layers:
            for group in groups(layer):
                if group not in made:
                    made[group] = named(self._job(group, layer), group)
                    made[group].sizes()
        return [replace(job, seed=seed) for job in made.values() for seed in seed_range(self.config)]

    def _job(self, group: str, layer: str) -> VisionJob:
        """Of the first seed; looking up models takes long enough not to do it for every one."""
        config = self.config
        for match in ("params", "flops"):
            if group == of_layer(layer, match):
                return vision_jobs(config.images(of_layer(layer), match))[0]
            if group == grown(layer, match):
                base = vision_jobs(config.images(MLP))[0]
                network = _grown(base.network, config.images(of_layer(layer)).network(of_layer(layer)), match)
                return replace(base, network=network)
        return vision_jobs(config.images(MLP if group == MLP else of_layer(layer)))[0]

    def stretched(self, job: VisionJob, group: str, factor: float) -> VisionJob:
        epochs = stretched(job.training.epochs, factor)
        warmup = job.training.warmup * epochs / job.training.epochs
        return named(replace(job, training=replace(job.training, epochs=epochs, warmup=warmup)), group)

    def task_of(self, job: VisionJob) -> str:
        return IMAGES

    def group_of(self, job: VisionJob) -> str:
        return job.group

    def train(self, jobs: Sequence[VisionJob], context: RunContext) -> tuple[Result, list[Trained]]:
        trained = ImageTrainer(context).run(jobs)
        return trained.result, [_trained(job, row, trained.result) for job, row in zip(jobs, trained.rows)]

    def step_times(
        self, kans: Sequence[VisionJob], mlps: Sequence[VisionJob], result: Result, context: RunContext
    ) -> StepTimes:
        """Of the first seed's networks with their first weights: a step's time does not depend on them."""
        return minibatch_step_times(ImageTrainer(context), kans[0], mlps[0])


def minibatch_step_times(trainer: Trainer[Any, Any, Any], kan: Any, mlp: Any) -> StepTimes:
    """Of two jobs on the same data."""
    data, device = trainer.data(kan), device_of(kan.training.accelerator)
    kan_step, mlp_step = (training_step(job, trainer.steps(job, data, device), device) for job in (kan, mlp))
    return measure([(kan_step, mlp_step)], clock="wall" if device.type == "cuda" else "process")


def named(job: Any, group: str) -> Any:
    """The job with the kind that makes its group that of this name."""
    return replace(job, kind=group.removeprefix(job.network.variant).removeprefix("-"))


def _trained(job: VisionJob, row: VisionRow, result: Result) -> Trained:
    diverged = row.diverged
    seconds = result.arrays[f"{job.id}.train_s"]
    losses = {"error": row.error, "test_loss": row.loss}
    return Trained(
        id=job.id,
        task=IMAGES,
        group=job.group,
        label=label(job.network),
        seed=job.seed,
        status=row.status,
        message=row.message,
        parameters=row.parameters,
        flops=row.mixing_flops,
        steps=row.steps,
        seconds=float(seconds[-1]) if len(seconds) else 0.0,
        losses=dict.fromkeys(losses) if diverged else losses,
    )


def label(network: Any) -> str:
    """``MLP 4-128-4, 64-64-64`` and ``KAN 4-6-4, 64-7-64 (G=5, S=3)``: of each kind of MLP or KAN in a network."""
    widths = [slot.widths for slot in network.slots()] if network.kan_layer is None else network.kan_widths()
    sizes = ", ".join("-".join(map(str, own)) for own in widths)
    if network.kan_layer is None:
        return f"MLP {sizes}"
    if network.kan_layer == "rswaf":
        return f"KAN {sizes} (RSWAF, G={network.kan_grid})"
    return f"KAN {sizes} (G={network.kan_grid}, S={network.spline_order})"


def _grown(mlp: VisionConfig, kan: VisionConfig, by: str) -> VisionConfig:
    """The MLP with both hidden widths widened by one factor, until it is as large as the KAN."""
    model, _ = find(MIXER)
    hidden = [getattr(mlp, name) for name in HIDDEN]
    if by == "flops":
        wanted = mixing_flops(kan) or 0.0
    else:  # they differ in what mixes alone
        wanted = mlps_size(mlp, by) + model.count(kan).active - model.count(mlp).active

    def wider(first: int) -> VisionConfig:
        return replace(mlp, **{name: max(1, round(h * first / hidden[0])) for name, h in zip(HIDDEN, hidden)})

    return wider(grown_width(lambda first: mlps_size(wider(first), by), wanted, hidden[0]))


def mlps_size(network: Any, by: str) -> float:
    """Parameters, or forward FLOPs, of all MLPs of a network together."""
    return sum(mlp_size(slot, by) * slot.count for slot in network.slots())


def training_step(job: Any, steps: Steps, device: torch.device) -> Callable[[], object]:
    """A function that takes one step as `kansciml.training.loop` does, and waits for its end on a GPU."""
    network, training = job.build().to(device), job.training
    source = (batch for epoch in count() for batch in steps.batches(epoch))
    optimiser = adamw(network, training.learning_rate, training.weight_decay)
    network.train()

    def step() -> None:
        value, _ = steps.loss(network, next(source))
        value.backward()
        if training.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.clip)
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step
