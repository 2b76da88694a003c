"""What rows of trained image classifiers and of trained operators have in common, one row per training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kansciml.runs.records import Record


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """One training of a network on a task.

    Args:
        task: data and model; groups of one task are compared. resized: sizes other than the model's own.
        variant: ``mlp``, ``kan-spline`` or ``kan-rswaf``. group: what the seeds have in common. label: for legends.
        status: ``"finished"`` or ``"diverged"``. parameters: all that are used.
        train_loss: of the last epoch. minimum_loss: on the training samples on which sharpness is measured.
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
    steps: int | None = None
    seconds_per_step: float | None = None
    peak_memory_mb: float | None = None
    wall_s: float | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def sized_model(self) -> str:
        """``mixer-nano``, or ``mixer-nano (width 64, depth 4)``."""
        sizes = [f"{name.replace('_', ' ')} {_size(value)}" for name, value in (self.resized or {}).items()]
        return self.model + (f" ({', '.join(sizes)})" if sizes else "")


def cost_note(row: TrainedRow, record: Record) -> str:
    """What the costs of a record's trainings were measured on, from the first of them."""
    return (
        f"{row.processes} process(es), batches of {row.batch_size}, precision {row.precision},"
        f" {record.machine.get('device', 'unknown device')}, {record.machine.get('threads')} threads."
    )


def _size(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
