"""How ``kansciml evaluate RUN`` scores the weights that a run kept: a `Scoring` per kind of experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import UsageError, unknown_name
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What is scored, and on what; a kind of experiment may add its own."""

    data_dir: Path | None = None
    """Folder of the data (default: where the run had them)."""
    model: str | None = None
    """Only models of this id, group (mlp, kan-spline ...), variant or task; default: all."""
    batch_size: int | None = None
    """Samples at once (default: as at the end of training)."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"got batch_size {self.batch_size}: expected at least 1")


@dataclass(frozen=True)
class Scoring:
    """How the models of one kind of experiment are scored.

    Args:
        options: its `ScoringOptions`, a dataclass whose fields become flags.
        score: ``score(record, options, progress)`` gives what --json prints, and the tables.
    """

    options: type[ScoringOptions]
    score: Callable[[Record, Any, Progress], tuple[dict[str, Any], list[Table]]]


def chosen_device(accelerator: str) -> torch.device:
    """The device of this name; ``auto`` takes what there is.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have.
    """
    from kansciml.runs.ranks import device_of
    from kansciml.training._config import ACCELERATORS

    if accelerator not in ACCELERATORS:
        raise unknown_name("accelerator", accelerator, ACCELERATORS)
    device = device_of(accelerator)
    if accelerator not in ("auto", device.type):
        raise UsageError(f"got accelerator {accelerator}, which this machine does not have: expected cpu or auto")
    return device
