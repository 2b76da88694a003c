"""A trained neural ODE as a row of a record, and the groups of rows that are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kansciml.reporting.groups import Group
from kansciml.reporting.palette import VariantStyle
from kansciml.runs.records import Record
from kansciml.runs.typed import read, write

CONVERGED, NOISE = "converged", "at the noise floor"
"""How a training ended on a plateau, and where noise of its solver keeps it from lower losses: see `FlatResult`."""

OWN = "lux"
"""The model of a run whose field is a layer of Lux of the user's."""

COMPARISONS = {
    "mlp": "as given",
    "kan": "as given",
    "kan-width": "equal width",
    "kan-params": "equal parameters",
    "kan-flops": "flops",
    "kan-unscaled": "unscaled state",
    "kan-tanh": "tanh of the state",
    "mlp-tuned": "tuned",
    "kan-tuned": "tuned",
}
"""Variant -> what a comparison with it holds equal, in the order of tables and legends; others follow as they come."""
_ORDER = list(COMPARISONS)


def nothing() -> np.ndarray:
    return np.empty(0)


def numbered(name: str, series: int) -> str:
    """Name of an array of one trajectory: those of the first bear no number."""
    return f"{name}.{series}" if series else name


@dataclass(frozen=True)
class Run:
    """One trained model: one system, one variant, one seed, one backend.

    Args:
        variant: a key of `COMPARISONS`, or any other name; in JSON it is the `group`.
        status: ``"finished"``, ``"diverged"`` or ``"interrupted"``. message: why it ended. ended: on a plateau, by its
            cap, or in noise, see `FlatResult`; empty in records of before. rung: of the ladder of tolerances, then.
        train_mse ... unseen_relative_mse: errors re-evaluated at tolerance 1e-10; None where that fails, the truth is
            unknown, there are no such trajectories or, for relative errors, the data are constant in time.
        not_computed: why, for each of those that is None.
        estimates: of the known terms' parameters, by name.
        group: the variant, with the backend where there are two. arrays: by ``<id>.<name>``, others too.
    """

    id: str
    system: str
    variant: str
    label: str
    n_parameters: int
    seed: int
    status: str
    train_mse: float | None
    train_relative_mse: float | None = None
    test_mse: float | None = None
    test_relative_mse: float | None = None
    validation_mse: float | None = None
    validation_relative_mse: float | None = None
    unseen_mse: float | None = None
    unseen_relative_mse: float | None = None
    not_computed: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    backend: str = ""
    method: str = ""
    message: str = ""
    final_loss: float = math.nan
    evaluations: int = 0
    ended: str = ""
    rung: int = 0
    wall_s: float = math.nan
    cpu_s: float = math.nan
    estimates: Mapping[str, float] = field(default_factory=dict)
    group: str = ""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def error(self) -> float:
        return self.ranked("train_mse")

    @property
    def diverged(self) -> bool:
        """Stopped on a loss that was not finite, or trained but not solvable when its loss was re-evaluated."""
        return self.status == "diverged" or self.metric("train_mse") == math.inf

    def metric(self, name: str) -> float:
        """A re-evaluated error; infinite if it is None although the run finished, as its solution blew up.

        NaN for the relative error of a solution that does exist: its data do not vary, and it is undefined.
        """
        value, absolute = getattr(self, name), name.replace("_relative", "")
        if value is None and name != absolute and math.isfinite(self.metric(absolute)):
            return math.nan
        return math.inf if value is None or not math.isfinite(value) else value

    def ranked(self, name: str) -> float:
        """`metric`, but infinite for a run that diverged, whatever its best parameters reached: it ranks worst."""
        value = self.metric(name)
        return math.inf if self.diverged and not math.isnan(value) else value

    def array(self, name: str) -> np.ndarray:
        """One of the arrays; empty if the record lacks it."""
        return self.arrays.get(f"{self.id}.{name}", nothing())

    def loss_at(self, step: int) -> float | None:
        """Training loss after so many steps of the optimiser; None if the record lacks it, or it is none."""
        found = self.array("loss")[self.array("iteration") == step]
        return float(found[0]) if len(found) and math.isfinite(found[0]) and found[0] > 0 else None

    def path(self, series: int = 0) -> np.ndarray:
        """States (Td, n) of one of the system's trajectories at its times; empty if the record lacks them."""
        line = self.array(numbered("line", series))
        return line if len(line) or series else self.array("trajectory")


@dataclass(frozen=True)
class OdeGroup(Group[Run]):
    """All seeds of one variant on one system, `task`, and backend; runs that were interrupted are left out."""

    @property
    def variant(self) -> str:
        return self.first.variant

    @property
    def place(self) -> int:
        """Its place in tables and legends."""
        return _ORDER.index(self.variant) if self.variant in _ORDER else len(_ORDER)

    @property
    def n_parameters(self) -> int:
        return self.first.n_parameters

    @property
    def comparison(self) -> str:
        """What a comparison with it holds equal, e.g. ``"equal parameters"``."""
        return self.said(COMPARISONS.get(self.variant, "as given"))

    def said(self, text: str) -> str:
        """`text`, with the backend where there are two."""
        return text if self.name == self.variant else f"{text}, {self.first.backend}"

    def styled(self, style: VariantStyle) -> VariantStyle:
        """The style of its variant, told apart by backend where there are two."""
        return style if self.name == self.variant else style.on(self.first.backend)

    @property
    def converged(self) -> int | None:
        """How many seeds ended on a plateau; None where the record does not know how they ended."""
        known = any(run.ended for run in self.rows)
        return sum(run.ended == CONVERGED for run in self.rows) if known else None

    @property
    def at_floor(self) -> int:
        """How many seeds ended where no lower loss can be told at the last tolerance of a ladder, the tightest."""
        return sum(run.ended == NOISE and run.rung > 0 for run in self.rows)

    def losses(self, name: str = "train_mse") -> list[float]:
        """`name` of every seed; infinite where the run diverged."""
        return [run.ranked(name) for run in self.rows]

    def middle(self, name: str = "train_mse") -> float:
        """Median over all seeds, those that diverged counted as infinite; NaN where the metric is undefined."""
        return float(np.median(self.losses(name)))

    def range(self, name: str = "train_mse") -> tuple[float, float]:
        """Smallest and largest value of the seeds that did not diverge; NaN if all did."""
        return self.spread(lambda run: run.metric(name))

    @property
    def representative(self) -> Run | None:
        """The seed with the (lower) median training error of those that did not diverge, for pictures."""
        finished = sorted((run for run in self.rows if not run.diverged), key=lambda run: run.error)
        return finished[(len(finished) - 1) // 2] if finished else None


def read_runs(record: Record) -> list[Run]:
    """All runs in the order of the record, also those that were interrupted."""
    rows = [read(Run, values) for values in record.result["runs"]]
    plain = [row.variant.removesuffix(f"@{row.backend}") for row in rows]
    return [replace(row, variant=one, group=row.variant, arrays=record.arrays) for row, one in zip(rows, plain)]


def run_json(run: Run) -> dict[str, Any]:
    """The row of a run."""
    empty = () if run.estimates else ("estimates",)
    return without(write(replace(run, variant=run.group, arrays={})), "group", "arrays", *empty)


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
