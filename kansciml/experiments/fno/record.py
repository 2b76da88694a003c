"""The record of trained neural operators as groups of runs: what figures, tables and verdicts all read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kansciml.reporting.groups import Group
from kansciml.reporting.style import VariantStyle, variant_styles
from kansciml.runs.records import DamagedRecord, Record

ORDER = ("mlp", "kan-spline", "kan-rswaf")
RESIDUALS = {False: "without residual", True: "with residual"}


class OperatorGroup(Group):
    """All seeds of one kind of neural operator on one task."""

    @property
    def variant(self) -> str:
        return self.value("variant")

    @property
    def residual(self) -> bool:
        return bool(self.value("residual"))

    @property
    def errors(self) -> list[float]:
        """Relative L2 error of each seed on the test samples; infinite where it diverged."""
        return [math.inf if row["status"] == "diverged" else row["relative_l2"] for row in self.rows]


@dataclass(frozen=True)
class FnoRecord:
    """Groups of runs by task, without residual connections before with, and by variant, in the order of `ORDER`."""

    record: Record
    groups: tuple[OperatorGroup, ...]

    @classmethod
    def read(cls, record: Record) -> FnoRecord:
        """Group the runs of `record`.

        Raises:
            KansciError: it holds no trained neural operators, or lacks what the schema promises.
        """
        try:
            rows = [row for row in record.result["runs"] if row["status"] in ("finished", "diverged")]
            for row in rows:
                row["relative_l2_at"], record.result["data"][row["data"]]["title"]
            names = {row["group"]: (row["residual"], ORDER.index(row["variant"])) for row in rows}
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedRecord(
                f"{record.folder} holds no trained neural operators ({error!r}): run it again"
            ) from error
        tasks = dict.fromkeys(row["task"] for row in rows)
        keys = [(task, name) for task in tasks for name in sorted(names, key=names.__getitem__)]
        own = {key: tuple(row for row in rows if (row["task"], row["group"]) == key) for key in keys}
        groups = tuple(OperatorGroup(*key, found, record.arrays) for key, found in own.items() if found)
        if not groups:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        return cls(record, groups)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str, residual: bool | None = None) -> list[OperatorGroup]:
        """Groups of a task; of those with or without residual connections alone where `residual` says so."""
        return [group for group in self.groups if group.task == task and residual in (None, group.residual)]

    def find(self, task: str, variant: str, residual: bool) -> OperatorGroup | None:
        """The group of a kind of network, or None."""
        return next((group for group in self.of(task, residual) if group.variant == variant), None)

    def residuals(self, task: str) -> list[bool]:
        """Which of without and with residual connections there is."""
        return [residual for residual in RESIDUALS if self.of(task, residual)]

    def title(self, task: str) -> str:
        """``fno-wt (width 16) on Darcy flow, 43 x 43``."""
        group = self.of(task)[0]
        sizes = ", ".join(f"{name.replace('_', ' ')} {_size(value)}" for name, value in group.value("resized").items())
        model = group.value("model") + (f" ({sizes})" if sizes else "")
        return f"{model} on {self.record.result['data'][group.value('data')]['title']}"

    @property
    def styles(self) -> Mapping[str, VariantStyle]:
        """A style for every variant."""
        return variant_styles(group.variant for group in self.groups)


def _size(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
