"""The record of Table 1: what is printed, computed and measured of each of its rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kansciml.analysis.matching import MEASURES
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.minibatch.record import TrainedRecord
from kansciml.experiments.vision.record import ImagesRow, VisionRow
from kansciml.reporting.groups import Group
from kansciml.runs import typed
from kansciml.runs.records import reading

PAPER, FAIR = "paper", "fair"
PROTOCOLS = (PAPER, FAIR)
SCRATCH = "mlp-scratch"
"""Group of the MLPs of protocol fair, where those of protocol paper start from pretrained weights."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one network holds and needs.

    Args:
        kan_hidden: hidden width of its KANs. parameters: those in use.
        flops, mixing_flops: forward, per image, of the whole network and of its MLPs or KANs alone; None if not known.
        step_bytes: peak of forward and backward pass with gradients, of a batch of `batch`. kept_bytes: kept between.
    """

    parameters: int
    batch: int
    step_bytes: int
    kept_bytes: int
    kan_hidden: int | None = None
    flops: float | None = None
    mixing_flops: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table1Row(VisionRow):
    """One training; the protocol is both, with a ``+``, where it serves both."""

    size: str
    protocol: str
    flops: float | None
    step_bytes: float
    kan_hidden: int | None = None


Trainings = Group[Table1Row]


@dataclass(frozen=True, kw_only=True)
class Row(Costs):
    """One row of Table 1, or of the fair protocol, at the printed size.

    Args:
        group, label: of its trainings. dead: parameters that the printed number counts and no forward pass uses.
        printed_parameters, printed_top1, printed_top5: by the paper, accuracies on CIFAR-100 in per cent; NaN of the
            fair protocol, of which nothing is printed.
        trained: its trainings, if there were any; they are no part of the row in the record.
    """

    size: str
    protocol: str
    variant: str
    group: str
    label: str
    dead: int
    printed_parameters: float = math.nan
    printed_top1: float = math.nan
    printed_top5: float = math.nan
    trained: Trainings | None = None

    def to_json(self) -> dict[str, Any]:
        found = typed.write(replace(self, trained=None))
        unset = [name for name, value in found.items() if value is None and name.startswith(("printed", "trained"))]
        return {name: value for name, value in found.items() if name not in unset}

    @property
    def key(self) -> tuple[str, str, str]:
        """The first cells of tables."""
        return self.protocol, self.size, self.label

    @property
    def match(self) -> str | None:
        """``params`` or ``flops``: what a KAN of the fair protocol has as much of as the MLP."""
        return next((by for by in MEASURES if self.group == f"{self.variant}-{by}"), None)


class Table1Record(TrainedRecord[Table1Row, ImagesRow]):
    """A run of table1: its trainings, and the rows of the table."""

    row = Table1Row
    data_row = ImagesRow
    what = "image classifiers"
    command = "kansciml run table1"

    @cached_property
    def published(self) -> tuple[Row, ...]:
        """All rows, the printed ones first. Raises DamagedRecord: the record is none of table1."""
        groups = {(group.first.size, group.name): group for group in self.groups}
        with reading(self.record):
            found = [typed.read(Row, row) for row in self.record.result["published"]]
        found.sort(key=lambda row: row.protocol != PAPER)
        return tuple(replace(row, trained=groups.get((row.size, row.group))) for row in found)

    @cached_property
    def hessian(self) -> HessianRecord | None:
        """What was measured where the trainings end; None in records of before there was that."""
        return HessianRecord.read(self.record) if "models" in self.record.result else None

    @property
    def mlps(self) -> dict[str, Row]:
        """The row of the MLP of each size."""
        return {row.size: row for row in self.published if row.variant == "mlp"}

    @property
    def scratch(self) -> dict[str, Trainings]:
        """MLPs of protocol fair by size, where those of protocol paper are pretrained."""
        return {group.first.size: group for group in self.groups if group.name == SCRATCH}

    @property
    def deviations(self) -> list[str]:
        """In what the trainings differ from the paper's, in words."""
        return self.record.result.get("deviations") or []

    @property
    def caveat(self) -> list[str]:
        """A note on what keeps a run from deciding the paper's claims; none for the paper's own setting."""
        if not self.deviations:
            return []
        return [
            f"Not the paper's setting ({'; '.join(self.deviations)}): a verdict here is on these models and images, and"
            " does not decide the paper's claim."
        ]
