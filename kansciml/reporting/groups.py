"""Runs of several seeds as a report sees them: one group, its medians, spreads and means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kansciml.runs.tables import format_number


@dataclass(frozen=True)
class Group:
    """All seeds of one kind of model on one task.

    Args:
        task, name: which. rows: of the record, by seed. arrays: those of the record.
    """

    task: str
    name: str
    rows: tuple[Mapping[str, Any], ...]
    arrays: Mapping[str, np.ndarray]

    @property
    def label(self) -> str:
        return self.rows[0]["label"]

    @property
    def n_diverged(self) -> int:
        return sum(row["status"] == "diverged" for row in self.rows)

    def value(self, name: str) -> Any:
        """What all seeds share, such as the number of parameters."""
        return self.rows[0].get(name)

    def values(self, name: str) -> list[float]:
        """`name` of every seed that did not diverge and has it."""
        found = [row.get(name) for row in self.rows if row["status"] != "diverged"]
        return [float(value) for value in found if value is not None]

    def median(self, name: str) -> float:
        """Median over the seeds that did not diverge; NaN if all did."""
        return float(np.median(self.values(name))) if self.values(name) else math.nan

    def spread(self, name: str) -> tuple[float, float]:
        """Smallest and largest value of the seeds that did not diverge; NaN if all did."""
        found = self.values(name)
        return (min(found), max(found)) if found else (math.nan, math.nan)

    @property
    def errors(self) -> list[float]:
        """Share of the test images that each seed got wrong; infinite where it diverged."""
        return [math.inf if row["status"] == "diverged" else 1 - row["top1"] for row in self.rows]

    def curves(self, name: str) -> np.ndarray:
        """A curve of every seed (seeds, epochs), NaN after the end of a shorter one."""
        found = [np.asarray(self.arrays[f"{row['id']}.{name}"], dtype=np.float64) for row in self.rows]
        longest = max((len(curve) for curve in found), default=0)
        return np.array([np.pad(curve, (0, longest - len(curve)), constant_values=np.nan) for curve in found])


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
