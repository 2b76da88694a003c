"""Trains image classifiers. Entry point: `run_jobs`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kansciml.experiments.minibatch.trainings import Outcome, Steps, Trained, Trainer
from kansciml.experiments.vision.jobs import VisionData, VisionJob
from kansciml.experiments.vision.record import VisionRow
from kansciml.experiments.vision.steps import EVALUATION_FACTOR, Epoch, SmoothedLoss, plain_batches, score
from kansciml.runs import ranks
from kansciml.runs.experiment import RunContext
from kansciml.tasks.vision.augment import preset
from kansciml.tasks.vision.batches import Batches
from kansciml.tasks.vision.dataset import Images
from kansciml.tasks.vision.metrics import Scores
from kansciml.training.loop import TrainResult

CURVES = {
    "accuracy": "accuracy",
    "test_loss": "eval_loss",
    "test_top1": "eval_top1",
    "test_top5": "eval_top5",
}
"""Name of a curve in the record, and of its column in the loop's history."""


def run_jobs(jobs: Sequence[VisionJob], context: RunContext) -> Trained[VisionRow]:
    """Train what is not trained yet, and collect the rows.

    Raises:
        UsageError: two jobs of one name, or no job; settings or data that do not fit.
        KansciError: data that cannot be had, memory that ran out.
        KeyboardInterrupt: after the training was saved.
    """
    return ImageTrainer(context).run(jobs)


class ImageTrainer(Trainer[VisionJob, VisionData, VisionRow]):
    """Trains image classifiers by cross-entropy, and scores them on the test images after each epoch."""

    unit, monitor, monitor_mode, shown = "images", "top1", "max", "top-1"
    curves = CURVES
    row = VisionRow

    def data(self, job: VisionJob) -> VisionData:
        source, progress = job.data, self.context.progress
        key = source.dataset, source.data_dir, source.subset
        return self.once(key, lambda: VisionData.load(*key, progress=progress if ranks.rank() == 0 else None))

    def steps(self, job: VisionJob, data: VisionData, device: torch.device) -> Steps:
        batches = training_batches(job, data, device)
        classes, test = data.dataset.classes, _large(job, data, data.test, device, ranks.rank(), ranks.size())
        return Steps(
            batches=lambda epoch: Epoch(batches, epoch),
            loss=SmoothedLoss(job.data.label_smoothing),
            evaluate=lambda module: _numbers(score(module, test, classes, together=True)),
        )

    def outcome(self, job: VisionJob, data: VisionData, network: nn.Module, result: TrainResult) -> Outcome:
        classes, device = data.dataset.classes, next(network.parameters()).device
        scores = score(network, _large(job, data, data.test, device), classes)
        minimum = score(network, _large(job, data, data.minimum, device), classes)
        values = {"dataset": data.dataset.name, "n_test": scores.n, **_numbers(scores)}
        values["train_accuracy"] = result.final.get("accuracy")
        return Outcome(values, minimum.loss, {"confusion": scores.confusion})


def training_batches(job: VisionJob, data: VisionData, device: torch.device) -> Batches:
    """The batches of a training, augmented."""
    return Batches(
        data.train,
        data.dataset,
        job.training.batch_size,
        device=device,
        seed=job.seed,
        drop_last=True,  # every step of every process has as many images
        augmentation=preset(job.data.augmentation, data.dataset),
        image_size=job.network.image_size,
    )


def _large(
    job: VisionJob, data: VisionData, images: Images, device: torch.device, rank: int = 0, world_size: int = 1
) -> Batches:
    size = EVALUATION_FACTOR * job.training.batch_size
    return plain_batches(images, data.dataset, job.network.image_size, size, device, rank, world_size)


def _numbers(scores: Scores) -> dict[str, float]:
    return {"loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
