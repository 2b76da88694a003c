"""The record of a neural-ODE experiment as groups of runs: what figures, tables and verdicts all read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kansciml.reporting.groups import Group
from kansciml.runs.records import DamagedRecord, Record

ORDER = ("mlp", "mlp-width", "mlp-params", "kan", "kan-width", "kan-params", "kan-unscaled", "kan-tanh")
"""Order of variants in tables and legends; others follow as they appear in the record."""


def in_order(variants: Iterable[str]) -> list[str]:
    """Each variant once, in the order of `ORDER` (on each backend, where there are two), then the others."""
    found = list(dict.fromkeys(variants))

    def place(variant: str) -> int:
        plain = variant.partition("@")[0]
        return ORDER.index(plain) if plain in ORDER else len(ORDER)

    return sorted(found, key=place)


@dataclass(frozen=True)
class Run:
    """One trained model: one system, one variant, one seed."""

    values: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def id(self) -> str:
        return self.values["id"]

    @property
    def label(self) -> str:
        return self.values["label"]

    @property
    def error(self) -> float:
        return self.ranked("train_mse")

    @property
    def diverged(self) -> bool:
        """Stopped on a loss that was not finite, or trained but not solvable when its loss was re-evaluated."""
        return self.values["status"] == "diverged" or self.metric("train_mse") == math.inf

    def metric(self, name: str) -> float:
        """A re-evaluated error; infinite if it is null although the run finished, as its solution blew up.

        NaN for the relative error of a solution that does exist: its data do not vary, and it is undefined.
        """
        value = self.values.get(name)
        absolute = name.replace("_relative", "")
        if value is None and name != absolute and math.isfinite(self.metric(absolute)):
            return math.nan
        return math.inf if value is None or not math.isfinite(value) else float(value)

    @property
    def not_computed(self) -> Mapping[str, str]:
        """Why, for each metric that is null; empty in records that do not say."""
        return self.values.get("not_computed") or {}

    def ranked(self, name: str) -> float:
        """`metric`, but infinite for a run that diverged, whatever its best parameters reached: it ranks worst."""
        value = self.metric(name)
        return math.inf if self.diverged and not math.isnan(value) else value

    def array(self, name: str) -> np.ndarray | None:
        return self.arrays.get(f"{self.id}.{name}")


@dataclass(frozen=True)
class OdeGroup(Group[Run]):
    """All seeds of one variant, `name`, on one system, `task`; runs that were interrupted are left out."""

    @property
    def n_parameters(self) -> int:
        return self.first.values["n_parameters"]

    def losses(self, name: str = "train_mse") -> list[float]:
        """`name` of every seed; infinite where the run diverged."""
        return [run.ranked(name) for run in self.rows]

    def middle(self, name: str = "train_mse") -> float:
        """Median over all seeds, those that diverged counted as infinite; NaN where the metric is undefined."""
        return float(np.median(self.losses(name)))

    @cached_property
    def representative(self) -> Run | None:
        """The seed with the (lower) median training error of those that did not diverge, for pictures."""
        finished = sorted((run for run in self.rows if not run.diverged), key=lambda run: run.error)
        return finished[(len(finished) - 1) // 2] if finished else None


@dataclass(frozen=True)
class OdeSystem:
    """One system of the record, with its truth where it is known."""

    name: str
    values: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def title(self) -> str:
        return self.values["title"]

    @property
    def labels(self) -> list[str]:
        return self.values["labels"]

    @property
    def train_end(self) -> float:
        return self.values["train_end"]

    @property
    def extrapolates(self) -> bool:
        return self.values.get("test_end") is not None

    @property
    def t(self) -> np.ndarray:
        """Times (Td,) of truth and trajectories."""
        return self.arrays[f"{self.name}.t"]

    @property
    def truth(self) -> np.ndarray | None:
        """True states (Td, n); None if unknown."""
        return self.arrays.get(f"{self.name}.truth")

    @property
    def data_t(self) -> np.ndarray:
        return self.arrays[f"{self.name}.data_t"]

    @property
    def data(self) -> np.ndarray:
        return self.arrays[f"{self.name}.data"]

    @property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and states of the truth, or of the data where the truth is unknown."""
        return (self.data_t, self.data) if self.truth is None else (self.t, self.truth)

    @property
    def bodies(self) -> list[tuple[str, int, int]]:
        """Bodies moving in a plane: (number, index of x, index of y) for labels such as x1 ... x7, y1 ... y7."""
        index = {label: i for i, label in enumerate(self.labels)}
        numbers = [match[1] for label in self.labels if (match := re.fullmatch(r"x(\d+)", label))]
        found = [(number, index[f"x{number}"], index[f"y{number}"]) for number in numbers if f"y{number}" in index]
        return found if len(found) >= 2 else []


@dataclass(frozen=True)
class OdeRecord:
    """Groups of runs by system, in the order of the record, and variant, in that of `ORDER`."""

    record: Record
    systems: dict[str, OdeSystem]
    groups: tuple[OdeGroup, ...]
    n_interrupted: int

    @classmethod
    def read(cls, record: Record) -> OdeRecord:
        """Group the runs of `record`.

        Raises:
            KansciError: it holds no finished run, or lacks what the schema promises.
        """
        try:
            systems = {
                name: OdeSystem(name, values, record.arrays) for name, values in record.result["systems"].items()
            }
            runs = [Run(values, record.arrays) for values in record.result["runs"]]
            for run in runs:
                _ = [run.values[name] for name in ("id", "status", "label", "n_parameters", "seed", "train_mse")]
            variants = in_order(run.values["variant"] for run in runs)
            found = {(run.values["system"], run.values["variant"]) for run in runs}
            keys = [(name, variant) for name in systems for variant in variants if (name, variant) in found]
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedRecord(f"{record.folder} holds no neural-ODE result ({error!r}): run it again") from error
        groups = []
        for system, variant in keys:
            own = [run for run in runs if (run.values["system"], run.values["variant"]) == (system, variant)]
            kept = tuple(run for run in own if run.values["status"] != "interrupted")
            if kept:
                groups.append(OdeGroup(system, variant, kept, record.arrays))
        if not groups:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        shown = {group.task for group in groups}
        systems = {name: system for name, system in systems.items() if name in shown}
        n_interrupted = sum(run.values["status"] == "interrupted" for run in runs)
        return cls(record, systems, tuple(groups), n_interrupted)

    @property
    def variants(self) -> list[str]:
        """All variants, in the order of `ORDER`."""
        return in_order(group.name for group in self.groups)

    def of(self, system: str) -> dict[str, OdeGroup]:
        """Groups of `system` by variant."""
        return {group.name: group for group in self.groups if group.task == system}
