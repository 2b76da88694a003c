"""The record of Table 1 as rows: what is printed, computed and measured of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kansciml.reporting.records import DamagedRecord, Record
from kansciml.reporting.tables import format_number
from kansciml.reporting.vision_runs import Group, VisionRecord

SCRATCH = "mlp-scratch"
"""Group of the MLPs of protocol fair, where those of protocol paper start from pretrained weights."""


@dataclass(frozen=True)
class Row:
    """One row of Table 1: what is printed and computed of it, and its trainings, if there were any."""

    published: Mapping[str, Any]
    group: Group | None

    @property
    def key(self) -> tuple[str, str, str]:
        return tuple(self.published[name] for name in ("protocol", "size", "label"))


def rows_of(record: Record) -> list[Row]:
    """All rows, the printed ones first.

    Raises:
        KansciError: the record is no finished run of table1.
    """
    vision = VisionRecord.read(record)
    try:
        groups = {(group.value("size"), group.name): group for group in vision.groups}
        published = sorted(record.result["published"], key=lambda row: row["protocol"] != "paper")
        return [Row(row, groups.get((row["size"], row["group"]))) for row in published]
    except (KeyError, TypeError) as error:
        raise DamagedRecord(f"{record.folder} holds no result of table1 ({error!r}): run it again") from error


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds; NaN where there are too few."""
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def plus_minus(values: Sequence[float]) -> str | None:
    """``83.9 +- 0.12`` for a reader; None for no values."""
    mean, error = mean_error(values)
    if math.isnan(mean):
        return None
    return f"{mean:.2f}" + ("" if math.isnan(error) else f" +- {format_number(error, 2)}")


def caveat(record: Record) -> list[str]:
    """A note on what keeps a run from deciding the paper's claims; none for the paper's own setting."""
    found = record.result.get("deviations") or []
    if not found:
        return []
    return [
        f"Not the paper's setting ({'; '.join(found)}): a verdict here is on these models and images, and does not"
        " decide the paper's claim."
    ]
