"""Groups of training runs that differ in their seed alone: medians, spreads and means over the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from kansciml.runs.tables import format_number


class SeedRow(Protocol):
    """What a record's row on one trained model must have to be grouped by seeds."""

    @property
    def id(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def diverged(self) -> bool: ...

    @property
    def error(self) -> float:
        """What the seeds are ranked by: the lower the better, infinite where the training diverged."""


R = TypeVar("R", bound=SeedRow)


@dataclass(frozen=True)
class Group(Generic[R]):
    """All seeds of one kind of model on one task.

    Args:
        task: what the models are trained on; groups of one task are compared.
        name: kind of model. rows: one per seed. arrays: those of the record, by ``<id>.<curve>``.
    """

    task: str
    name: str
    rows: tuple[R, ...]
    arrays: Mapping[str, np.ndarray]

    @property
    def first(self) -> R:
        """The first seed, for what all seeds share, such as the number of parameters."""
        return self.rows[0]

    @property
    def label(self) -> str:
        return self.first.label

    @property
    def n_diverged(self) -> int:
        return sum(row.diverged for row in self.rows)

    def by_seed(self, of: Callable[[R], float] = lambda row: row.error) -> dict[int, float]:
        """`of` every seed, its error unless told otherwise."""
        return {row.seed: of(row) for row in self.rows}

    def values(self, of: Callable[[R], float | None]) -> list[float]:
        """`of` every seed that did not diverge and has it."""
        found = [of(row) for row in self.rows if not row.diverged]
        return [float(value) for value in found if value is not None and not math.isnan(value)]

    def median(self, of: Callable[[R], float | None]) -> float:
        """Median over the seeds that did not diverge; NaN if all did."""
        found = self.values(of)
        return float(np.median(found)) if found else math.nan

    def spread(self, of: Callable[[R], float | None]) -> tuple[float, float]:
        """Smallest and largest value of the seeds that did not diverge; NaN if all did."""
        found = self.values(of)
        return (min(found), max(found)) if found else (math.nan, math.nan)

    def curves(self, name: str) -> np.ndarray:
        """A curve of every seed, (seeds, epochs), NaN after the end of a shorter one."""
        found = [np.asarray(self.arrays[f"{row.id}.{name}"], dtype=np.float64) for row in self.rows]
        longest = max((len(curve) for curve in found), default=0)
        return np.array([np.pad(curve, (0, longest - len(curve)), constant_values=np.nan) for curve in found])


def grouped(
    rows: Iterable[R],
    key: Callable[[R], tuple[str, str]],
    order: Callable[[str], float],
    arrays: Mapping[str, np.ndarray],
) -> tuple[Group[R], ...]:
    """`rows` by `key`, (task, name): tasks in the order of the rows, the names of each by `order`."""
    found: dict[tuple[str, str], list[R]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    tasks = list(dict.fromkeys(task for task, _ in found))
    keys = sorted(found, key=lambda one: (tasks.index(one[0]), order(one[1])))
    return tuple(Group(*one, tuple(found[one]), arrays) for one in keys)


def diverged_notes(groups: Iterable[Group]) -> list[str]:
    """A line below a table for each group of which seeds diverged."""
    return [
        f"{group.task}, {group.label}: {group.n_diverged} of {len(group.rows)} seeds diverged."
        for group in groups
        if group.n_diverged
    ]


def over(value: float | None, reference: float | None) -> float | None:
    """`value` in units of `reference`; None where either is not known."""
    return value / reference if value is not None and reference else None


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over seeds; NaN where there are too few."""
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def plus_minus(values: Sequence[float]) -> str | None:
    """``83.9 +- 0.12`` for a reader; None for no values."""
    mean, error = mean_error(values)
    if math.isnan(mean):
        return None
    return f"{mean:.2f}" + ("" if math.isnan(error) else f" +- {format_number(error, 2)}")
