"""Loss and scores of a classifier, gathered batch by batch on the device without waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from kansciml._errors import UsageError


def cross_entropy(
    logits: Float[Tensor, "batch classes"],
    targets: Int64[Tensor, " batch"] | Float[Tensor, "batch classes"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean over the batch of -sum_c q_c log softmax(logits)_c, with q = (1 - s) p + s / classes for smoothing s.

    Args:
        logits: of any floating type: the sum is taken in float32 at least.
        targets: labels, or p itself, as mixup and CutMix make it.
        label_smoothing: s in [0, 1), default 0.

    Raises:
        UsageError: s out of range.
    """
    if not 0 <= label_smoothing < 1:
        raise UsageError(f"got label_smoothing {label_smoothing}: expected a number from 0 to below 1")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores over `n` images: shares in [0, 1], mean cross-entropy, and the confusion matrix.

    `confusion` counts the images of class i (row) that were taken for class j (column).
    """

    n: int
    loss: float
    top1: float
    top5: float
    confusion: Int64[np.ndarray, "classes classes"]

    @property
    def per_class(self) -> Float64[np.ndarray, " classes"]:
        """Share of each class's images that were recognised; NaN for a class without images."""
        total = self.confusion.sum(1)
        return np.divide(np.diag(self.confusion), total, out=np.full(len(total), np.nan), where=total > 0)


class Score:
    """Gathers `Scores`: `update` for every batch, `compute` at the end.

    A row of logits with a NaN or an infinity counts as wrong, under whatever class it lands in the confusion matrix.
    With fewer than five classes, top-5 is over all of them.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        device = torch.device(device)
        # Apple's devices have no float64.
        self._loss = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)  # images, top-1, top-5
        self._confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]) -> None:
        """Add a batch. An empty one adds nothing."""
        if logits.shape != (len(labels), self.classes):
            raise UsageError(f"got logits of shape {tuple(logits.shape)}, expected ({len(labels)}, {self.classes})")
        if len(labels) == 0:
            return
        logits = logits.to(torch.float32 if self._loss.dtype == torch.float32 else torch.float64)
        self._loss += F.cross_entropy(logits, labels, reduction="sum")
        finite = logits.isfinite().all(1)
        best = logits.topk(min(5, self.classes), dim=1).indices  # (B, 5), largest first
        hits = (best == labels[:, None]) & finite[:, None]
        self._counts[0] += len(labels)
        self._counts[1] += hits[:, 0].sum()
        self._counts[2] += hits.sum()
        self._confusion.scatter_add_(0, labels * self.classes + best[:, 0], torch.ones_like(labels))

    def reduce(self, all_reduce: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by those over all ranks: `all_reduce` adds a tensor up over the ranks and returns it."""
        self._loss, self._counts = all_reduce(self._loss), all_reduce(self._counts)
        self._confusion = all_reduce(self._confusion)

    def compute(self) -> Scores:
        """The scores so far.

        Raises:
            UsageError: no images were added.
        """
        n, top1, top5 = self._counts.tolist()
        if n == 0:
            raise UsageError("got no images to score: expected at least one batch before compute")
        confusion = self._confusion.view(self.classes, self.classes).cpu().numpy().copy()
        return Scores(n, float(self._loss) / n, top1 / n, top5 / n, confusion)
