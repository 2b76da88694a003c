"""Trained networks of any run on minibatches, from the weights it kept: for evaluation, and studies of their minima."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.minibatch.jobs import network_of
from kansciml.experiments.minibatch.record import TrainedRow
from kansciml.models.registry import find
from kansciml.runs.records import Record
from kansciml.runs.trained import LoadedModel, TrainedModel
from kansciml.runs.typed import attributes
from kansciml.training._checkpoint import load_tensors

R = TypeVar("R", bound=TrainedRow)


def chosen_rows(rows: Sequence[R], name: str | None) -> list[R]:
    """Rows of trained models of this id, group, variant, model or task; all for None.

    Raises:
        UsageError: there is none; the message lists what there is.
    """
    found = [row for row in rows if name in (None, row.id, row.group, row.variant, row.model, row.task)]
    if not found:
        valid = dict.fromkeys([row.group for row in rows] + [row.id for row in rows])
        raise UsageError(f"unknown model {name!r} of this run: expected one of {', '.join(valid)}")
    return found


SCORED = "id task group label seed parameters"
"""What ``kansciml evaluate --json`` says of a network beside its scores."""


def load_network(record: Record, row: TrainedRow, **changed: Any) -> nn.Module:
    """The network of a row with its final weights (the averaged ones, where there was an average), in eval mode.

    `changed`: fields of its configuration. KansciError if its weights are gone, damaged, or another version's.
    """
    path = Path(record.folder) / row.weights
    if not path.is_file():
        raise KansciError(f"{path} is missing: restore it, or train again with --force")
    network = find(row.model, kind=None)[0].build(network_of(row.model, {**row.network, **changed}))
    if row.precision == "64":
        network.double()
    try:
        network.load_state_dict(load_tensors(path).tensors)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise KansciError(f"{path} belongs to another version of {row.model} ({reason}): train it again") from error
    return network.eval()


def trained_models(rows: Sequence[R], load: Callable[[R], LoadedModel], metrics: str) -> list[TrainedModel]:
    """The networks whose training ended, for `kansciml hessian`; KANs are compared with the MLPs of their task.

    Args:
        load: makes module, loss and batches. metrics: names of columns that say how well a network learned.
    """
    groups = {(row.task, row.group) for row in rows}

    def model(row: R) -> TrainedModel:
        against = row.base if row.group != row.base and (row.task, row.base) in groups else None
        return TrainedModel(
            name=row.id,
            **attributes(row, "label group seed task"),
            load=lambda: load(row),
            against=against,
            metrics=attributes(row, metrics),
            loss=row.minimum_loss,
        )

    return [model(row) for row in rows if not row.diverged]
