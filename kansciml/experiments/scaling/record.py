"""Errors of networks of several sizes as a record holds them, and the exponents of power laws fitted to them.

``result["titles"]``: task -> title; ``result["runs"]``: `Point` rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kansciml.analysis.paired import DIFFERENCE, UNDECIDED, Comparison, compare, corrected
from kansciml.runs.experiment import Result
from kansciml.runs.records import Record, finished_rows, reading
from kansciml.runs.typed import write

MODELS = {"kan": "KAN", "mlp": "MLP"}
LEAST_SIZES = 3
"""Sizes from which an exponent is fitted."""


@dataclass(frozen=True)
class Point:
    """One training.

    Args:
        task: function or system. kind: ``function`` or ``system``. model: a key of `MODELS`.
        limit: parameters that it may have. n_parameters: that it has. label: of the network.
        error: root mean square, relative to the standard deviation of the function on fresh points, or to the variation
            of the data on the training span of a system, solved again at tolerance 1e-10; infinite if it diverged.
        ended: how its training did, see `kansciml.training.flat.FlatResult`.
    """

    task: str
    kind: str
    model: str
    limit: int
    n_parameters: int
    label: str
    seed: int
    error: float
    ended: str


@dataclass(frozen=True)
class ScalingRecord:
    """All trainings, and the titles of their tasks."""

    titles: Mapping[str, str]
    points: tuple[Point, ...]

    @classmethod
    def read(cls, record: Record) -> ScalingRecord:
        """Raises DamagedRecord where the record holds no trainings."""
        rows = finished_rows(record, Point)
        with reading(record):
            titles = dict(record.result["titles"])
        return cls(titles, tuple(replace(row, error=math.inf) if math.isnan(row.error) else row for row in rows))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(point.task for point in self.points))

    @property
    def limits(self) -> list[int]:
        """Numbers of parameters that networks may have, from small to large."""
        return sorted({point.limit for point in self.points})

    @property
    def n_seeds(self) -> int:
        return len({point.seed for point in self.points})

    def of(self, task: str, model: str) -> list[Point]:
        """The trainings of one kind of network on a task."""
        return [point for point in self.points if (point.task, point.model) == (task, model)]

    def medians(self, task: str, model: str) -> tuple[np.ndarray, np.ndarray]:
        """Parameters (K,) of each size, and the median error (K,) over seeds, diverged ones counted as infinite."""
        own = self.of(task, model)
        sizes = sorted({point.n_parameters for point in own})
        errors = [np.median([point.error for point in own if point.n_parameters == size]) for size in sizes]
        return np.array(sizes), np.array(errors)

    def exponents(self, task: str, model: str, without: int | None = None) -> dict[int, float]:
        """Seed -> exponent a of the power law error ~ P^-a, least squares on logarithms.

        Minus infinity, the worst, where a training of the seed diverged. A seed with fewer than three sizes is left
        out, and so is one with an error of zero. `without`: the limit of a size to leave out.
        """
        found, least = {}, LEAST_SIZES - (without is not None)
        for seed in sorted({point.seed for point in self.points}):
            own = [one for one in self.of(task, model) if one.seed == seed and one.limit != without]
            if len({point.n_parameters for point in own}) >= least and all(point.error > 0 for point in own):
                size, error = np.log([[point.n_parameters, point.error] for point in own]).T
                found[seed] = -float(np.polyfit(size, error, 1)[0]) if np.isfinite(error).all() else -math.inf
        return found

    def exponent(self, task: str, model: str) -> Comparison:
        """Estimate of the exponent with its interval, by the signed-rank test that it is above 0."""
        own = self.exponents(task, model)
        return compare(own, dict.fromkeys(own, 0.0), above=0, scale=DIFFERENCE, text="error falls with size")

    def faster(self, without: int | None = None) -> dict[str, Comparison]:
        """Task -> the claim that the KAN's exponent is the larger one, corrected for the number of tasks; of all sizes
        but that of the limit `without`."""
        sides = [[self.exponents(task, model, without) for model in MODELS] for task in self.tasks]
        made = [compare(*both, above=0, scale=DIFFERENCE, text="KAN's exponent larger") for both in sides]
        return dict(zip(self.tasks, corrected(made)))

    def without_ends(self) -> dict[str, tuple[Comparison, Comparison]]:
        """Task -> the claim of `faster` without the smallest networks, and without the largest."""
        smallest, largest = (self.faster(limit) for limit in (self.limits[0], self.limits[-1]))
        return {task: (smallest[task], largest[task]) for task in self.tasks}

    def lasting(self) -> dict[str, str]:
        """Task -> the verdict on whose error falls faster, that of a law over all sizes: undecided where it is lost
        with the smallest or with the largest networks left out."""
        ends = self.without_ends()
        verdicts = {
            task: {outcome.corrected, *(one.corrected for one in ends[task])} for task, outcome in self.faster().items()
        }
        return {task: found.pop() if len(found) == 1 else UNDECIDED for task, found in verdicts.items()}

    def lower(self) -> dict[tuple[str, int], Comparison]:
        """(task, limit) -> the claim that of networks of one size the KAN has the lower error, corrected for all."""
        made = {(task, limit): self._lower(task, limit) for task in self.tasks for limit in self.limits}
        return dict(zip(made, corrected(list(made.values()))))

    def largest(self) -> dict[str, Comparison]:
        """Task -> the claim of `lower` on the largest networks alone, corrected for the number of tasks."""
        return dict(zip(self.tasks, corrected([self._lower(task, self.limits[-1]) for task in self.tasks])))

    def _lower(self, task: str, limit: int) -> Comparison:
        sides = [{one.seed: one.error for one in self.of(task, model) if one.limit == limit} for model in MODELS]
        return compare(*sides, below=1, text="KAN lower")


def scaling_result(titles: Mapping[str, str], points: Sequence[Point]) -> Result:
    """What the record holds."""
    return Result({"titles": dict(titles), "runs": [write(point) for point in points]})
