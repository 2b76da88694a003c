"""The record of Table 1 as rows: what is printed, computed and measured of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.runs.records import DamagedRecord, Record

SCRATCH = "mlp-scratch"
"""Group of the MLPs of protocol fair, where those of protocol paper start from pretrained weights."""


@dataclass(frozen=True)
class Row:
    """One row of Table 1: what is printed and computed of it, and its trainings, if there were any."""

    published: Mapping[str, Any]
    group: VisionGroup | None

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
