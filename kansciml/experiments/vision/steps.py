"""Steps and evaluations in the training of image classifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kansciml.runs import ranks
from kansciml.tasks.vision.batches import Batch, Batches
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.metrics import Score, Scores, cross_entropy

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
def score(module: nn.Module, batches: Batches, classes: int, together: bool = False) -> Scores:
    """Scores of `module` in eval mode, in the type of its weights; `together`: summed over all processes."""
    module.eval()
    like = next(module.parameters())
    found = Score(classes, like.device)
    for batch in batches.epoch():
        if len(batch.labels):
            found.update(module(batch.inputs.to(like)), batch.labels.to(like.device))
    if together and ranks.size() > 1:
        found.reduce(_sum_over_ranks)
    return found.compute()


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    tensor = tensor.clone()
    torch.distributed.all_reduce(tensor)
    return tensor
