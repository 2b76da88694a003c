"""The record of trained neural operators as groups of runs: what figures, tables and verdicts all read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kansciml.experiments.minibatch.record import TrainedRow
from kansciml.reporting.groups import Group, grouped
from kansciml.reporting.style import VariantStyle, variant_styles
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.typed import read

ORDER = ("mlp", "kan-spline", "kan-rswaf")
RESIDUALS = {False: "without residual", True: "with residual"}


@dataclass(frozen=True, kw_only=True)
class OperatorRow(TrainedRow):
    """One trained neural operator.

    Args:
        data: name of its data set. ends_parameters: of lift and projection.
        relative_l2: mean over the test samples, of the weights of the last step. relative_l2_at: by resolution.
    """

    data: str
    residual: bool
    relative_l2: float | None
    relative_l2_at: Mapping[str, float | None]
    best_relative_l2: float | None = None
    ends_parameters: int | None = None
    samples_per_s: float | None = None

    @property
    def error(self) -> float:
        """Relative L2 error on the test samples; infinite if the training diverged."""
        return math.inf if self.diverged or self.relative_l2 is None else self.relative_l2


OperatorGroup = Group[OperatorRow]


@dataclass(frozen=True)
class FnoRecord:
    """Groups of runs by task, without residual connections before with, and by variant, in the order of `ORDER`."""

    record: Record
    groups: tuple[OperatorGroup, ...]
    data: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, record: Record) -> FnoRecord:
        """Group the runs of `record`.

        Raises:
            KansciError: it holds no trained neural operators, or lacks what the schema promises.
        """
        try:
            runs = [row for row in record.result["runs"] if row["status"] in ("finished", "diverged")]
            rows = [read(OperatorRow, row) for row in runs]
            data = record.result["data"]
            _ = [data[row.data]["title"] for row in rows]
            places = {row.group: ORDER.index(row.variant) + len(ORDER) * row.residual for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRecord(
                f"{record.folder} holds no trained neural operators ({error!r}): run it again"
            ) from error
        if not rows:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        groups = grouped(rows, lambda row: (row.task, row.group), places.__getitem__, record.arrays)
        return cls(record, groups, data)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str, residual: bool | None = None) -> list[OperatorGroup]:
        """Groups of a task; of those with or without residual connections alone where `residual` says so."""
        return [group for group in self.groups if group.task == task and residual in (None, group.first.residual)]

    def find(self, task: str, variant: str, residual: bool) -> OperatorGroup | None:
        """The group of a kind of network, or None."""
        return next((group for group in self.of(task, residual) if group.first.variant == variant), None)

    def residuals(self, task: str) -> list[bool]:
        """Which of without and with residual connections there is."""
        return [residual for residual in RESIDUALS if self.of(task, residual)]

    def title(self, task: str) -> str:
        """``fno-wt (width 16) on Darcy flow, 43 x 43``."""
        row = self.of(task)[0].first
        return f"{row.sized_model} on {self.data[row.data]['title']}"

    @property
    def styles(self) -> Mapping[str, VariantStyle]:
        """A style for every variant."""
        return variant_styles(group.first.variant for group in self.groups)
