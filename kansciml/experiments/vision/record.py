"""The record of trained image classifiers as groups of runs: what figures, tables and verdicts all read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kansciml.experiments.minibatch.record import TrainedRow
from kansciml.reporting.groups import Group, grouped
from kansciml.reporting.style import VariantStyle, variant_styles
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.typed import read

STYLES = variant_styles(
    ("kan-spline", "kan-rswaf", "kan-spline-params", "kan-spline-flops", "kan-rswaf-params", "kan-rswaf-flops")
)
"""How each kind of KAN is drawn, in the order of tables."""
ORDER = ("mlp", *STYLES)
REFERENCE = "mlp"


@dataclass(frozen=True, kw_only=True)
class VisionRow(TrainedRow):
    """One trained image classifier.

    Args:
        printed, dead: parameters by the paper; None for other configurations.
        mixing_flops: forward, per image, of the MLPs or of the KANs in their place alone.
        top1, top5, loss: over the test images, of the weights of the last step. best_top1: of the best epoch.
        size, protocol, flops, step_bytes: of a run of table1 alone.
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
    size: str | None = None
    protocol: str | None = None
    flops: float | None = None
    step_bytes: float | None = None

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


@dataclass(frozen=True)
class VisionRecord:
    """Groups of runs by task, in the order of the record, and by kind of model, in that of `ORDER`."""

    record: Record
    groups: tuple[VisionGroup, ...]
    titles: Mapping[str, str]

    @classmethod
    def read(cls, record: Record) -> VisionRecord:
        """Group the runs of `record`.

        Raises:
            KansciError: it holds no trained classifiers, or lacks what the schema promises.
        """
        try:
            runs = [row for row in record.result["runs"] if row["status"] in ("finished", "diverged")]
            rows = [read(VisionRow, row) for row in runs]
            titles = {name: data["title"] for name, data in record.result["data"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRecord(
                f"{record.folder} holds no trained image classifiers ({error!r}): run it again"
            ) from error
        if not rows:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        names = dict.fromkeys((*ORDER, *(row.group for row in rows)))
        groups = grouped(rows, lambda row: (row.task, row.group), [*names].index, record.arrays)
        return cls(record, groups, titles)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str) -> dict[str, VisionGroup]:
        """Groups of a task by name."""
        return {group.name: group for group in self.groups if group.task == task}

    def title(self, task: str) -> str:
        """``mixer-nano on CIFAR-10``, or ``mixer-nano (width 64, depth 4) on Digits``."""
        row = next(iter(self.of(task).values())).first
        return f"{row.sized_model} on {self.titles[row.dataset]}"

    @property
    def styles(self) -> dict[str, VariantStyle]:
        """A style for every kind of model."""
        return dict(variant_styles(group.name for group in self.groups))
