"""Trains image classifiers by cross-entropy, and scores them on the test images after each epoch."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.experiments.minibatch.trainings import Epoch, Steps, Trainer
from kansciml.experiments.vision.jobs import VisionData, VisionJob
from kansciml.experiments.vision.record import VisionRow
from kansciml.runs import ranks
from kansciml.tasks.vision.augment import preset
from kansciml.tasks.vision.batches import Batch, Batches
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.metrics import Score, Scores, cross_entropy
from kansciml.training.loop import TrainResult

EVALUATION_FACTOR = 4
"""Size of the batches of an evaluation over that of the batches of training."""


class SmoothedLoss:
    """Mean cross-entropy with label smoothing, and how many images were recognised."""

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        logits = module(batch.inputs)
        right = (logits.detach().argmax(1) == batch.labels).sum()
        loss = cross_entropy(logits, batch.targets, self.label_smoothing)
        return loss, {"count": len(batch.labels), "accuracy": right}


def plain_batches(
    images: Images,
    dataset: Dataset,
    image_size: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Images in their own order, without augmentation."""
    whole = -(-batch_size // world_size) * world_size
    return Batches(
        images, dataset, whole, device=device, shuffle=False, image_size=image_size, rank=rank, world_size=world_size
    )


@torch.inference_mode()
def score_images(module: nn.Module, batches: Batches, classes: int, together: bool = False) -> Scores:
    """Scores of `module` in eval mode, in the type of its weights; `together`: summed over all processes."""
    module.eval()
    like = next(module.parameters())
    found = Score(classes, like.device)
    for batch in batches.epoch():
        if len(batch.labels):
            found.update(module(batch.inputs.to(like)), batch.labels.to(like.device))
    if together and ranks.size() > 1:

        def summed(tensor: Tensor) -> Tensor:
            tensor = tensor.clone()
            torch.distributed.all_reduce(tensor)
            return tensor

        found.reduce(summed)
    return found.compute()


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
            evaluate=lambda module: _numbers(score_images(module, test, data.dataset.classes, together=True)),
        )

    def outcome(
        self, job: VisionJob, data: VisionData, network: nn.Module, result: TrainResult
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        dataset, pixels, size = data.dataset, job.network.image_size, EVALUATION_FACTOR * job.training.batch_size
        device = next(network.parameters()).device
        batches = (plain_batches(images, dataset, pixels, size, device) for images in (data.test, data.minimum))
        test, minimum = (score_images(network, one, dataset.classes) for one in batches)
        columns = {
            "dataset": dataset.name,
            "n_test": test.n,
            "train_accuracy": result.final.get("accuracy"),
            "minimum_loss": minimum.loss,
        }
        return columns | _numbers(test), {"confusion": test.confusion}


def _numbers(scores: Scores) -> dict[str, float]:
    return {"loss": scores.loss, "top1": scores.top1, "top5": scores.top5}
