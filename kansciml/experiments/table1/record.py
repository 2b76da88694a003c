"""The record of Table 1 as rows: what is printed, computed and measured of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kansciml.experiments.minibatch.record import TrainedRecord
from kansciml.experiments.vision.record import ImagesRow, VisionRow
from kansciml.reporting.groups import Group
from kansciml.runs.records import DamagedRecord, Record

SCRATCH = "mlp-scratch"
"""Group of the MLPs of protocol fair, where those of protocol paper start from pretrained weights."""


@dataclass(frozen=True, kw_only=True)
class Table1Row(VisionRow):
    """What a record says of one training; `flops`: forward, per image; `step_bytes`: of a step, at its peak."""

    size: str
    flops: float | None = None
    step_bytes: float | None = None


TrainedGroup = Group[Table1Row]


class Table1Record(TrainedRecord[Table1Row, ImagesRow]):
    """Groups of the trainings of Table 1 by size and by kind of network."""

    row = Table1Row
    data_row = ImagesRow
    what = "image classifiers"
    command = "kansciml run table1"


@dataclass(frozen=True)
class Row:
    """One row of Table 1: what is printed and computed of it, and its trainings, if there were any."""

    published: Mapping[str, Any]
    group: TrainedGroup | None

    @property
    def key(self) -> tuple[str, str, str]:
        return tuple(self.published[name] for name in ("protocol", "size", "label"))


def rows_of(record: Record) -> list[Row]:
    """All rows, the printed ones first.

    Raises:
        KansciError: the record is no finished run of table1.
    """
    vision = Table1Record.read(record)
    try:
        groups = {(group.first.size, group.name): group for group in vision.groups}
        published = sorted(record.result["published"], key=lambda row: row["protocol"] != "paper")
        return [Row(row, groups.get((row["size"], row["group"]))) for row in published]
    except (KeyError, TypeError) as error:
        raise DamagedRecord(f"{record.folder} holds no result of table1 ({error!r}): run it again") from error


def caveat(record: Record) -> list[str]:
    """A note on what keeps a run from deciding the paper's claims; none for the paper's own setting."""
    found = record.result.get("deviations") or []
    if not found:
        return []
    return [
        f"Not the paper's setting ({'; '.join(found)}): a verdict here is on these models and images, and does not"
        " decide the paper's claim."
    ]
