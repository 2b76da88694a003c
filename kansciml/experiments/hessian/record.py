"""The record of measured Hessians: a row per model, a row per measure of two groups compared, and the spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kansciml._files import to_jsonable
from kansciml.analysis.hessian import Sharpness, SharpnessVerdict, compare_sharpness
from kansciml.runs.experiment import Result
from kansciml.runs.records import Record, reading
from kansciml.runs.typed import read


@dataclass(frozen=True)
class MeasuredModel:
    """One model of a run with its measures.

    Args:
        name: unique within the run. run: hash of that run's configuration. task, group, label, seed, against, metrics,
            recorded_loss: see `kansciml.runs.trained.TrainedModel`.
        sharpness: the measures; the spectra behind them are arrays.
        fingerprint: of parameters, data and loss. memory_bytes: planned, of each of the `processes`.
    """

    name: str
    run: str
    task: str
    group: str
    label: str
    seed: int
    n_parameters: int
    sharpness: Sharpness
    against: str | None = None
    recorded_loss: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    fingerprint: str = ""
    memory_bytes: int = 0
    processes: int = 1
    wall_s: float = math.nan

    def to_json(self) -> dict[str, Any]:
        return to_jsonable({**vars(self), "sharpness": self.sharpness.to_json()})


@dataclass(frozen=True)
class GroupVerdict:
    """One measure of a group of models against that of another group of the same task."""

    task: str
    group: str
    label: str
    against: str
    against_label: str
    outcome: SharpnessVerdict

    def to_json(self) -> dict[str, Any]:
        row = vars(self).copy()
        own = row.pop("outcome")
        told = vars(own) | {"verdict": own.verdict, "corrected": own.corrected}
        return to_jsonable(row | vars(told.pop("outcome")) | told)


def verdicts(models: Sequence[MeasuredModel]) -> tuple[GroupVerdict, ...]:
    """For each group with one to be compared with, in the same task: one verdict per measure."""
    groups: dict[tuple[str, str | None], list[MeasuredModel]] = {}
    for one in models:
        groups.setdefault((one.task, one.group), []).append(one)
    found: list[GroupVerdict] = []
    for own in groups.values():
        first = own[0]
        others = groups.get((first.task, first.against), [])
        if others:
            outcomes = compare_sharpness(*({one.seed: one.sharpness for one in side} for side in (own, others)))
            names = (first.task, first.group, first.label, others[0].group, others[0].label)
            found += [GroupVerdict(*names, outcome) for outcome in outcomes]
    return tuple(found)


@dataclass(frozen=True)
class HessianRecord:
    """What was measured: models, and for each the arrays of its spectra; verdicts follow from the models.

    Args:
        arrays: ``<run>.<model>.<spectrum>.<array>``, as `Sharpness.arrays` names the last two.
    """

    models: tuple[MeasuredModel, ...]
    arrays: Mapping[str, np.ndarray] = field(repr=False)

    @cached_property
    def verdicts(self) -> tuple[GroupVerdict, ...]:
        """See `verdicts`."""
        return verdicts(self.models)

    @classmethod
    def read(cls, record: Record) -> HessianRecord:
        """Read ``result["models"]`` and the arrays of a record.

        Raises:
            DamagedRecord: it has none.
        """
        with reading(record):
            models = tuple(read(MeasuredModel, row) for row in record.result["models"])
        return cls(models, record.arrays)

    def to_result(self) -> Result:
        """What `read` reads."""
        rows = {"models": [one.to_json() for one in self.models], "verdicts": [one.to_json() for one in self.verdicts]}
        return Result(rows, dict(self.arrays))

    def spectrum(self, model: MeasuredModel, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Nodes and weights of a model's spectrum, (probes, nodes) each; weights sum to 1. None if not measured."""
        prefix = f"{model.run}.{model.name}.{name}"
        known = self.arrays.get(f"{prefix}.eigenvalues")
        if known is not None:
            return known[None], np.full((1, len(known)), 1 / len(known))
        nodes = self.arrays.get(f"{prefix}.nodes")
        if nodes is None:
            return None
        locked, size = self.arrays[f"{prefix}.locked"], model.n_parameters
        rest = self.arrays[f"{prefix}.weights"] * (size - len(locked)) / size
        nodes = np.concatenate([nodes, np.broadcast_to(locked, (len(nodes), len(locked)))], axis=1)
        return nodes, np.concatenate([rest, np.full((len(nodes), len(locked)), 1 / size)], axis=1)
