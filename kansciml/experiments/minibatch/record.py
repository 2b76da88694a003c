"""Records of trainings on minibatches: their rows, and groups of them over seeds, as reports see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from kansciml.reporting.groups import Group, grouped, over
from kansciml.reporting.judging import shown
from kansciml.reporting.palette import VariantStyle, variant_styles
from kansciml.runs import typed
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.tables import Table

KANS = ("kan-spline", "kan-rswaf", "kan-spline-params", "kan-spline-flops", "kan-rswaf-params", "kan-rswaf-flops")
ORDER = ("mlp", *KANS)
"""Kinds of networks in the order of tables; others follow."""


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """A data set in a record. "Minimum": the training data on which sharpness is measured."""

    name: str = ""
    title: str
    n_train: int | None = None
    n_test: int | None = None
    n_minimum: int | None = None
    train_hash: str = ""
    test_hash: str = ""
    minimum_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """One training of a network in a record.

    Args:
        id: unique in the run. task: data and model; groups of one task are compared.
        resized: sizes other than the model's own. variant: ``mlp``, ``kan-spline`` or ``kan-rswaf``.
        group: what the seeds have in common. label: for tables. status: ``finished`` or ``diverged``.
        parameters: all that are used. train_loss: mean over the last epoch.
        minimum_loss: over the training data on which sharpness is measured. best_epoch: by the test data.
        seconds_per_step: median over the epochs but the first. wall_s: with evaluations. processes: of torchrun.
        network: its configuration. weights: a safetensors file, from the record's folder.
    """

    id: str
    task: str
    model: str
    variant: str
    group: str
    label: str
    seed: int
    status: str
    parameters: int
    epochs: int
    batch_size: int
    precision: str
    processes: int
    resized: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    train_loss: float | None = None
    minimum_loss: float | None = None
    best_epoch: int | None = None
    steps: int = 0
    seconds_per_step: float | None = None
    peak_memory_mb: float | None = None
    wall_s: float | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def data_name(self) -> str:
        """Name of its data in the record."""
        raise NotImplementedError

    @property
    def error(self) -> float:
        """On the test data, by which seeds are ranked; infinite if the training diverged."""
        raise NotImplementedError

    @property
    def base(self) -> str:
        """Name of the group of MLPs that this one is compared with; of the MLPs themselves their own."""
        return "mlp"

    @property
    def look(self) -> str:
        """Key of the style that its curves are drawn in."""
        return self.group

    @property
    def plain_label(self) -> str:
        """The label in legends, shared by all groups of one look."""
        return self.label

    @property
    def place(self) -> float:
        """Position in the order of groups."""
        return ORDER.index(self.group) if self.group in ORDER else len(ORDER)


R = TypeVar("R", bound=TrainedRow)
D = TypeVar("D", bound=DataRow)
Read = TypeVar("Read", bound="TrainedRecord[Any, Any]")


@dataclass(frozen=True)
class TrainedRecord(Generic[R, D]):
    """The trainings of a run that came to an end, in its order, and their data by name."""

    row: ClassVar[type[Any]]
    data_row: ClassVar[type[Any]]
    what: ClassVar[str]
    """What is trained, in words."""
    command: ClassVar[str]
    """The command that trains it."""

    record: Record
    rows: tuple[R, ...]
    data: Mapping[str, D]

    @classmethod
    def read(cls: type[Read], record: Record) -> Read:
        """Raises DamagedRecord where there are none: the run is of another kind, or not finished."""
        why = "" if record.status == "finished" else f" ({record.status})"
        try:
            done = [row for row in record.result.get("runs", ()) if row["status"] in ("finished", "diverged")]
            rows = tuple(typed.read(cls.row, row) for row in done)
            data = {name: typed.read(cls.data_row, one) for name, one in record.result.get("data", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            rows, data, why = (), {}, f" ({error!r})"
        if not rows:
            raise DamagedRecord(
                f"{record.folder} is a run of {record.experiment}{why} without trained {cls.what}:"
                f" expected the folder of a finished run of {cls.command}"
            )
        return cls(record, rows, data)

    @cached_property
    def groups(self) -> tuple[Group[R], ...]:
        """By task, in the order of the record, and by kind of network, in that of `TrainedRow.place`."""
        places = {row.group: row.place for row in self.rows}
        return grouped(self.rows, lambda row: (row.task, row.group), places.__getitem__, self.record.arrays)

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    def of(self, task: str) -> list[Group[R]]:
        """Groups of a task."""
        return [group for group in self.groups if group.task == task]

    def reference(self, group: Group[R]) -> Group[R] | None:
        """The MLPs that `group` is compared with, of MLPs themselves; None where there are none."""
        return next((one for one in self.of(group.task) if one.name == group.first.base), None)

    def pairs(self) -> list[tuple[Group[R], Group[R]]]:
        """Every group of KANs, and the MLPs that it is compared with."""
        found = ((group, self.reference(group)) for group in self.groups)
        return [(group, base) for group, base in found if base is not None and base is not group]

    def data_of(self, group: Group[R]) -> D:
        """The data that a group was trained on."""
        return self.data[group.first.data_name]

    def title(self, task: str, sized: bool = True) -> str:
        """``mixer-nano on CIFAR-10``, or, if `sized`, ``fno-wt (width 16, modes 8 x 8) on Darcy flow, 43 x 43``."""
        group = self.of(task)[0]
        resized = group.first.resized if sized else {}
        sizes = ", ".join(f"{name.replace('_', ' ')} {shown(size)}" for name, size in resized.items())
        return f"{group.first.model}{f' ({sizes})' if sizes else ''} on {self.data_of(group).title}"

    def suffix(self, task: str) -> str:
        """What stems of a task's pictures end with: nothing where there is but one task."""
        return f"_{task}" if len(self.tasks) > 1 else ""

    @cached_property
    def styles(self) -> Mapping[str, VariantStyle]:
        """How the curves of each kind of network are drawn, by `TrainedRow.look`."""
        return variant_styles(group.first.look for group in self.groups)


def cost_table(
    record: TrainedRecord[R, Any],
    unit: str,
    per_s: Callable[[R], float | None],
    columns: tuple[str, ...] = (),
    further: Callable[[R, R | None], tuple[object, ...]] = lambda own, base: (),
    note: str = "",
) -> Table:
    """What each kind of network costs, and in units of the MLPs that it is compared with.

    Args:
        unit: what is counted `per_s`. columns: further ones, whose values `further(row, row of the MLPs)` gives.
        note: on them.
    """
    rows = []
    for group in record.groups:
        base, own = record.reference(group), group.first
        step = group.median(lambda row: row.seconds_per_step)
        mlp = base.first if base else None
        row = [record.title(group.task), group.label, own.parameters]
        row += [over(own.parameters, mlp.parameters if mlp else None), *further(own, mlp)]
        row += [group.median(per_s), 1e3 * step]
        row += [over(step, base.median(lambda row: row.seconds_per_step) if base else None)]
        rows.append([*row, group.median(lambda row: row.peak_memory_mb), group.median(lambda row: row.wall_s)])
    shared, machine = record.groups[0].first, record.record.machine
    notes = [
        f"{note}{unit}/s and time of a step (forward, backward, AdamW): median over epochs but the first. Peak memory:"
        " of a GPU, by tensors; on a CPU of the process so far, with all runs before. Wall: with evaluations.",
        f"{shared.processes} process(es), batches of {shared.batch_size}, precision {shared.precision},"
        f" {machine.get('device', 'unknown device')}, {machine.get('threads')} threads.",
    ]
    named = ["Task", "Model", "Parameters", "over MLP", *columns, f"{unit}/s", "ms/step", "time over MLP", "Peak (MB)"]
    return Table("Cost of training", [*named, "Wall (s)"], rows, notes)
