"""The trained models of a finished run: what `kansciml hessian` and other studies of minima are given."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kansciml._errors import KansciError, UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kansciml.reporting.records import Record


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


def trained_models(record: Record) -> list[TrainedModel]:
    """The models of a run, through the ``trained`` of its experiment.

    Raises:
        KansciError: the run is not finished, its experiment trains nothing, or no model came out of it.
        UsageError: an unknown experiment, or data of the user's own that are gone or have changed.
    """
    from kansciml.experiments._registry import get_experiment

    experiment = get_experiment(record.experiment)
    if experiment.trained is None:
        raise KansciError(
            f"{record.folder} is a run of {record.experiment}, which trains no models: choose another run"
        )
    if record.status != "finished":
        raise KansciError(f"the run in {record.folder} is not finished ({record.status}): resume it first")
    found = list(experiment.trained(record))
    if not found:
        raise KansciError(f"no model of the run in {record.folder} ended its training: see its table of losses")
    return found


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
        import torch
        from torch.utils._pytree import tree_leaves, tree_map

        left = self.samples
        single = isinstance(self.batches, (torch.Tensor, tuple, Mapping))
        for batch in [self.batches] if single else self.batches:
            if left <= 0:
                return
            size = next(
                (leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.dim()), 1
            )
            take = min(left, size)
            left -= take
            yield (
                batch
                if take == size
                else tree_map(
                    lambda leaf, n=take: leaf[:n] if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf, batch
                )
            )


def config_of(kind: type, values: Mapping[str, Any]) -> Any:
    """The configuration dataclass of a record: lists become tuples, text becomes a path where one is expected.

    Raises:
        KansciError: fields that the dataclass does not have, as another version may have written.
    """
    unknown = set(values) - {item.name for item in dataclasses.fields(kind)}
    if unknown:
        raise KansciError(
            f"the record's settings {', '.join(sorted(unknown))} are unknown to this version: run it again"
        )
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return config_of(hint, value)
    if isinstance(value, list):
        return tuple(_value(None, item) for item in value)
    if isinstance(value, str) and Path in typing.get_args(hint):
        return Path(value) if str not in typing.get_args(hint) else value
    return value
