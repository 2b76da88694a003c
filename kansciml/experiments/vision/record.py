"""The record of trained image classifiers: what the trainings write, and figures, tables and verdicts read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from kansciml.experiments.minibatch.record import KANS, DataRow, TrainedRecord, TrainedRow
from kansciml.reporting.groups import Group, plus_minus
from kansciml.reporting.palette import variant_styles

STYLES = variant_styles(KANS)
"""How each kind of KAN is drawn, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class ImagesRow(DataRow):
    """The images in a record; hashes are of pixels and labels."""

    citation: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class VisionRow(TrainedRow):
    """One training of an image classifier in a record.

    Args:
        printed, dead: parameters by the paper, and of them those that are never used; None for other configurations.
        mixing_flops: forward, per image, of the MLPs or of the KANs in their place alone.
        top1, top5, loss: over the test images, of the weights of the last step. best_top1: of the best epoch.
        train_accuracy: of the last epoch.
    """

    dataset: str
    top1: float | None
    top5: float | None = None
    loss: float | None = None
    best_top1: float | None = None
    train_accuracy: float | None = None
    n_test: int | None = None
    printed: int | None = None
    dead: int | None = None
    mixing_flops: float | None = None
    images_per_s: float | None = None

    @property
    def data_name(self) -> str:
        return self.dataset

    @property
    def error(self) -> float:
        """Share of the test images that are classified wrongly; infinite if the training diverged."""
        return math.inf if self.diverged or self.top1 is None else 1 - self.top1

    @property
    def percent(self) -> float | None:
        """Top-1 accuracy in percent."""
        return None if self.top1 is None else 100 * self.top1

    @property
    def percent5(self) -> float | None:
        """Top-5 accuracy in percent."""
        return None if self.top5 is None else 100 * self.top5


VisionGroup = Group[VisionRow]


def top1(group: Group[Any]) -> str:
    """``83.9 +- 0.12 %``: mean over the seeds of image classifiers, and its standard error."""
    return f"{plus_minus(group.values(lambda row: row.percent)) or '-'} %"


V = TypeVar("V", bound=VisionRow)
ImagesRecord = TrainedRecord[V, ImagesRow]


class VisionRecord(TrainedRecord[VisionRow, ImagesRow]):
    """Groups of image classifiers by task and by kind of network."""

    row = VisionRow
    data_row = ImagesRow
    what = "image classifiers"
    command = "kansciml vision"
