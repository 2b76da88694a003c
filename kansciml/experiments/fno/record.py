"""The record of trained neural operators: what the trainings write, and figures, tables and verdicts read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kansciml.experiments.minibatch.record import ORDER, DataRow, TrainedRecord, TrainedRow
from kansciml.reporting.groups import Group

RESIDUALS = {False: "without residual", True: "with residual"}
RESIDUAL = "residual"
"""What labels and groups of networks with residual connections end with."""


@dataclass(frozen=True, kw_only=True)
class SamplesRow(DataRow):
    """The samples in a record; `size`: nodes along a side."""

    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class OperatorRow(TrainedRow):
    """One training of a neural operator in a record.

    Args:
        ends_parameters, ends_flops: of lift and projection; the latter forward, per sample, or None.
        relative_l2: mean over the test samples. relative_l2_at: the same by resolution, as text.
    """

    data: str
    residual: bool
    ends_parameters: int | None = None
    ends_flops: float | None = None
    relative_l2: float | None
    relative_l2_at: Mapping[str, float | None]
    best_relative_l2: float | None = None
    samples_per_s: float | None = None

    @property
    def data_name(self) -> str:
        return self.data

    @property
    def error(self) -> float:
        """Relative L2 error on the test samples; infinite if the training diverged."""
        return math.inf if self.diverged or self.relative_l2 is None else self.relative_l2

    @property
    def base(self) -> str:
        return f"mlp-{RESIDUAL}" if self.residual else "mlp"

    @property
    def look(self) -> str:
        return self.variant

    @property
    def place(self) -> float:
        return ORDER.index(self.variant) + len(ORDER) * self.residual

    @property
    def plain_label(self) -> str:
        return self.label.removesuffix(f", {RESIDUAL}")


OperatorGroup = Group[OperatorRow]


class FnoRecord(TrainedRecord[OperatorRow, SamplesRow]):
    """Groups of neural operators by task, those without residual connections first, and by variant."""

    row = OperatorRow
    data_row = SamplesRow
    what = "neural operators"
    command = "kansciml fno"

    def of_residual(self, task: str, residual: bool) -> list[OperatorGroup]:
        """Groups of a task with, or without, residual connections."""
        return [group for group in self.of(task) if group.first.residual == residual]

    def without_residual(self, group: OperatorGroup) -> OperatorGroup | None:
        """The same kind of network without residual connections; None where there is none, or `group` has none."""
        found = self.of_residual(group.task, False) if group.first.residual else []
        return next((one for one in found if one.first.variant == group.first.variant), None)
