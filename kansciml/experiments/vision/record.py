"""The record of trained image classifiers as groups of runs: what figures, tables and verdicts all read."""

from __future__ import annotations

from dataclasses import dataclass

from kansciml.reporting.groups import Group
from kansciml.reporting.style import VariantStyle, variant_styles
from kansciml.runs.records import DamagedRecord, Record

STYLES = variant_styles(
    ("kan-spline", "kan-rswaf", "kan-spline-params", "kan-spline-flops", "kan-rswaf-params", "kan-rswaf-flops")
)
"""How each kind of KAN is drawn, in the order of tables."""
ORDER = ("mlp", *STYLES)
REFERENCE = "mlp"


@dataclass(frozen=True)
class VisionRecord:
    """Groups of runs by task, in the order of the record, and by kind of model, in that of `ORDER`."""

    record: Record
    groups: tuple[Group, ...]

    @classmethod
    def read(cls, record: Record) -> VisionRecord:
        """Group the runs of `record`.

        Raises:
            KansciError: it holds no trained classifiers, or lacks what the schema promises.
        """
        try:
            rows = [row for row in record.result["runs"] if row["status"] in ("finished", "diverged")]
            names = list(dict.fromkeys(row["group"] for row in rows))
            names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
            keys = [(task, name) for task in dict.fromkeys(row["task"] for row in rows) for name in names]
            own = {key: tuple(row for row in rows if (row["task"], row["group"]) == key) for key in keys}
            record.result["data"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRecord(
                f"{record.folder} holds no trained image classifiers ({error!r}): run it again"
            ) from error
        groups = tuple(Group(*key, found, record.arrays) for key, found in own.items() if found)
        if not groups:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        return cls(record, groups)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str) -> dict[str, Group]:
        """Groups of a task by name."""
        return {group.name: group for group in self.groups if group.task == task}

    def title(self, task: str) -> str:
        """``mixer-nano on CIFAR-10``, or ``mixer-nano (width 64, depth 4) on Digits``."""
        group = next(iter(self.of(task).values()))
        sizes = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (group.value("resized") or {}).items())
        model = group.value("model") + (f" ({sizes})" if sizes else "")
        return f"{model} on {self.record.result['data'][group.value('dataset')]['title']}"

    @property
    def styles(self) -> dict[str, VariantStyle]:
        """A style for every kind of model."""
        return dict(variant_styles(group.name for group in self.groups))
