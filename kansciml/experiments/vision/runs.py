"""Trains image classifiers by cross-entropy, and scores them on the test images after each epoch."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from kansciml.experiments.minibatch.trainings import Epoch, Steps, Trainer
from kansciml.experiments.vision.jobs import VisionData, VisionJob
from kansciml.experiments.vision.record import VisionRow
from kansciml.experiments.vision.steps import EVALUATION_FACTOR, SmoothedLoss, plain_batches, score
from kansciml.runs import ranks
from kansciml.tasks.vision.augment import preset
from kansciml.tasks.vision.batches import Batches
from kansciml.tasks.vision.metrics import Scores
from kansciml.training.loop import TrainResult


class ImageTrainer(Trainer[VisionJob, VisionData, VisionRow]):
    """Trains image classifiers."""

    row = VisionRow
    unit, monitor, monitor_mode, shown = "images", "top1", "max", "top-1"
    curves: ClassVar = {
        "accuracy": "accuracy", "test_loss": "eval_loss", "test_top1": "eval_top1", "test_top5": "eval_top5"
    }  # fmt: skip

    def data(self, job: VisionJob) -> VisionData:
        key = job.data.dataset, job.data.data_dir, job.data.subset
        return self.once(key, lambda: VisionData.load(*key, progress=self.context.progress))

    def steps(self, job: VisionJob, data: VisionData, device: torch.device) -> Steps:
        batches = Batches(
            data.train,
            data.dataset,
            job.training.batch_size,
            device=device,
            seed=job.seed,
            drop_last=True,  # every step of every process has as many images
            augmentation=preset(job.data.augmentation, data.dataset),
            image_size=job.network.image_size,
        )
        pixels, size = job.network.image_size, EVALUATION_FACTOR * job.training.batch_size
        test = plain_batches(data.test, data.dataset, pixels, size, device, ranks.rank(), ranks.size())
        return Steps(
            batches=lambda epoch: Epoch(len(batches), partial(batches.epoch, epoch)),
            loss=SmoothedLoss(job.data.label_smoothing),
            evaluate=lambda module: _numbers(score(module, test, data.dataset.classes, together=True)),
        )

    def outcome(
        self, job: VisionJob, data: VisionData, network: nn.Module, result: TrainResult
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        dataset, pixels, size = data.dataset, job.network.image_size, EVALUATION_FACTOR * job.training.batch_size
        device = next(network.parameters()).device
        batches = (plain_batches(images, dataset, pixels, size, device) for images in (data.test, data.minimum))
        test, minimum = (score(network, one, dataset.classes) for one in batches)
        columns = {
            "dataset": dataset.name,
            "n_test": test.n,
            "train_accuracy": result.final.get("accuracy"),
            "minimum_loss": minimum.loss,
        }
        return columns | _numbers(test), {"confusion": test.confusion}


def _numbers(scores: Scores) -> dict[str, float]:
    return {"loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
