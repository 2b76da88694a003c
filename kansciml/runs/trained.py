"""The trained models of a finished run: for studies of their minima, and for ``kansciml evaluate RUN``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import KansciError, UsageError, check_name, unknown_name
from kansciml.runs.config_json import config_from_json
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model at its minimum, with what it was trained on.

    Args:
        module: with the trained parameters, in the mode (train or eval) in which the loss is to be taken.
        loss: ``loss(module, batch)``, the mean over the batch's samples, twice differentiable.
        batches: one batch, or an iterable over batches that can be read again and again.
        threads: as many as its operations are large enough for; None: as many as PyTorch has.
    """

    module: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    batches: Any
    threads: int | None = None


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """One model of a run; it is built only when `load` is called, so that a list of models costs nothing.

    Args:
        name: unique within the run, usable as a file name.
        label: for tables, such as ``KAN 2-6-2 (G=5, S=3)``.
        group: what the seeds of one kind of model have in common, such as ``mlp`` or ``kan-width``.
        seed: which of the group.
        load: makes module, loss and batches.
        task: what was learned; models of different tasks are not compared.
        against: the group it is compared with, such as ``mlp``; None for that group itself.
        metrics: numbers of the record that say how well it learned.
        loss: the training loss that the record holds; None if it holds none.
    """

    name: str
    label: str
    group: str
    seed: int
    load: Callable[[], LoadedModel]
    task: str = ""
    against: str | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    loss: float | None = None


def chosen_models(models: Sequence[TrainedModel], names: Sequence[str]) -> list[TrainedModel]:
    """Those whose name, group or task is among `names`, in the order of the run; all for no names.

    Raises:
        UsageError: a name that none has; the message lists those there are.
    """
    for name in names:
        if not any(name in (one.name, one.group, one.task) for one in models):
            groups = dict.fromkeys(one.group for one in models)
            raise unknown_name("model", name, [*groups, *(one.name for one in models)])
    return [one for one in models if not names or set(names) & {one.name, one.group, one.task}]


@dataclass(frozen=True, eq=False)
class FirstSamples:
    """The first `samples` samples of batches, cut from them anew at each reading: nothing is copied beforehand."""

    batches: Any
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"got samples {self.samples}: expected at least 1")

    def __iter__(self) -> Iterator[Any]:
        from kansciml.analysis.hessian._product.batches import batch_size, is_single, part_of

        left = self.samples
        for batch in [self.batches] if is_single(self.batches) else self.batches:
            if left <= 0:
                return
            size = batch_size(batch, strict=False) or 1
            take = min(left, size)
            left -= take
            yield batch if take == size else part_of(batch, 0, take, size)


@dataclass(frozen=True, eq=False)
class InFloat64:
    """Batches with their floating-point tensors in float64, made anew at each reading."""

    batches: Any

    def __iter__(self) -> Iterator[Any]:
        from kansciml.analysis.hessian._product.batches import is_single, mapped

        def wide(leaf: Any) -> Any:
            real = getattr(leaf, "is_floating_point", None)
            return leaf.double() if real is not None and real() else leaf

        for batch in [self.batches] if is_single(self.batches) else self.batches:
            yield mapped(batch, wide)


def config_of(kind: type, values: Mapping[str, Any]) -> Any:
    """The configuration dataclass of a record.

    Raises:
        KansciError: settings that the dataclass does not have or refuses, as another version may have written.
    """
    try:
        return config_from_json(kind, values)
    except UsageError as error:
        raise KansciError(f"the record's settings are unknown to this version ({error}): run it again") from error


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What is scored, and on what; a kind of experiment adds its own."""

    model: str | None = None
    """Only models of this id, group (mlp, kan-spline ...), variant or task; default: all."""


@dataclass(frozen=True, kw_only=True)
class NetworkScoringOptions(ScoringOptions):
    """Of networks trained on minibatches."""

    data_dir: Path | None = None
    """Folder of the data (default: where the run had them)."""
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

    check_name("accelerator", accelerator, ACCELERATORS)
    device = device_of(accelerator)
    if accelerator not in ("auto", device.type):
        raise UsageError(f"got accelerator {accelerator}, which this machine does not have: expected cpu or auto")
    return device
