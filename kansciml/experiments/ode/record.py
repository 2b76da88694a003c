"""Writes the record of a neural-ODE experiment (Figure 2, ``kansciml ode``), and reads it as groups of runs.

``result["runs"]``: `Run` rows; ``result["systems"]``: `OdeSystem` by name, with their `OdeSeries`; on two backends
``result["gates"]``: `Gate` rows, and variants are named ``variant@backend``. Arrays per run: ``<id>.iteration``,
``.loss``, ``.phase`` (0 Adam, 1 L-BFGS), all (K,), ``.params`` (P,), ``.trajectory`` (Td, n) at the times of the
system, ``.line`` (L, n) of the first trajectory and ``.line.1`` of the next, NaN after a blow-up, and ``.slopes``
(G, G, 2) on the system's plane; per system: ``<system>.t`` (Td,), ``.truth`` (Td, n, absent if unknown); ``.line_t``
(L,), dense, ``.line_truth`` (L, n), ``.data_t`` (T,) and ``.data`` (T, n, NaN where not measured) of the first
trajectory, ``.line_t.1`` and so on of the next; for two components, ``.plane`` (G, G, 2) and its true ``.slopes``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kansciml.reporting.groups import Group, grouped
from kansciml.reporting.style import VariantStyle
from kansciml.runs.experiment import Result
from kansciml.runs.records import DamagedRecord, Record, reading
from kansciml.runs.typed import read, write

COMPARISONS = {
    "mlp": "as given",
    "kan": "as given",
    "kan-width": "equal width",
    "kan-params": "equal parameters",
    "kan-flops": "flops",
    "kan-unscaled": "unscaled state",
    "kan-tanh": "tanh of the state",
}
"""Variant -> what a comparison with it holds equal, in the order of tables and legends; others follow as they come."""
_ORDER = list(COMPARISONS)


def _nothing() -> np.ndarray:
    return np.empty(0)


def numbered(name: str, series: int) -> str:
    """Name of an array of one trajectory: those of the first bear no number."""
    return f"{name}.{series}" if series else name


@dataclass(frozen=True)
class Run:
    """One trained model: one system, one variant, one seed, one backend.

    Args:
        variant: a key of `COMPARISONS`, or any other name; in JSON it is the `group`.
        status: ``"finished"``, ``"diverged"`` or ``"interrupted"``. message: why it ended.
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
    wall_s: float = math.nan
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
        return self.arrays.get(f"{self.id}.{name}", _nothing())

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


ROLES = {"train": "", "validation": "validation", "unseen": "unseen initial state"}
"""What a trajectory is for, and what pictures say of it."""
SERIES_ARRAYS = {"t": "line_t", "truth": "line_truth", "data_t": "data_t", "data": "data"}
"""Attribute of a trajectory, and name of its array."""


@dataclass(frozen=True, eq=False)
class OdeSeries:
    """One trajectory of a system.

    Args:
        train_end: last time that is trained on. name: among others. role: a key of `ROLES`.
        t: times (Td,) of truth and models, dense. truth: true states (Td, n); None if unknown.
        data_t, data: times (T,) and measured states (T, n).
    """

    train_end: float
    name: str = ""
    role: str = "train"
    t: np.ndarray = field(default_factory=_nothing)
    truth: np.ndarray | None = None
    data_t: np.ndarray = field(default_factory=_nothing)
    data: np.ndarray = field(default_factory=_nothing)

    @property
    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and states of the truth, or of the data where the truth is unknown."""
        return (self.data_t, self.data) if self.truth is None else (self.t, self.truth)

    @property
    def end(self) -> float:
        """Last time of models and data."""
        return float(max(self.t[-1], self.reference[0][-1]))


@dataclass(frozen=True, eq=False)
class OdeSystem:
    """One system (see `kansciml.tasks.ode.system.System`) with its trajectories and its groups of runs.

    Args:
        series: the trajectories, the first of those that are trained on first.
        t: times (Td,) at which models are recorded. truth: true states (Td, n) then; None if unknown.
        plane: states (G, G, 2) of a system of two components, at which fields are compared. slopes: the true ones.
    """

    title: str
    labels: tuple[str, ...]
    train_end: float
    n: int = 0
    test_end: float | None = None
    phase_plane: tuple[int, int] | None = None
    loss_scale: tuple[float, ...] = ()
    name: str = ""
    log_time: bool = False
    groups: tuple[OdeGroup, ...] = ()
    series: tuple[OdeSeries, ...] = ()
    t: np.ndarray | None = None
    truth: np.ndarray | None = None
    plane: np.ndarray | None = None
    slopes: np.ndarray | None = None

    @property
    def first(self) -> OdeSeries:
        """The trajectory that is shown where there is room for one."""
        return self.series[0]

    @property
    def roles(self) -> set[str]:
        """What its trajectories are for."""
        return {one.role for one in self.series}

    @property
    def bodies(self) -> list[tuple[str, int, int]]:
        """Bodies moving in a plane: (number, index of x, index of y) for labels such as x1 ... x7, y1 ... y7."""
        index = {label: i for i, label in enumerate(self.labels)}
        numbers = [match[1] for label in self.labels if (match := re.fullmatch(r"x(\d+)", label))]
        found = [(number, index[f"x{number}"], index[f"y{number}"]) for number in numbers if f"y{number}" in index]
        return found if len(found) >= 2 else []


@dataclass(frozen=True)
class Gate:
    """One of the six gates between two backends: see `kansciml.crosscheck.Gate`."""

    model: str
    number: int
    quantity: str
    measured: float
    allowed: float
    passed: bool
    system: str = ""


@dataclass(frozen=True)
class OdeRecord:
    """Systems in the order of the record, each with its groups in that of `COMPARISONS`."""

    systems: tuple[OdeSystem, ...]
    gates: tuple[Gate, ...]
    n_interrupted: int

    @classmethod
    def read(cls, record: Record) -> OdeRecord:
        """Group the runs of `record`.

        Raises:
            DamagedRecord: it holds no finished run, or lacks what others have.
        """
        with reading(record):
            runs = read_runs(record)
            done = [run for run in runs if run.status != "interrupted"]
            found = grouped(done, lambda run: (run.system, run.group), lambda name: 0, record.arrays)
            groups = sorted((OdeGroup(**vars(group)) for group in found), key=lambda group: group.place)
            systems = []
            for name, values in record.result["systems"].items():
                own = tuple(group for group in groups if group.task == name)
                if own:
                    plane, slopes = (record.arrays.get(f"{name}.{key}") for key in ("plane", "slopes"))
                    system = replace(read(OdeSystem, values), name=name, groups=own, plane=plane, slopes=slopes)
                    systems.append(replace(system, series=_read_series(record, system)))
            gates = tuple(read(Gate, row) for row in record.result.get("gates", []))
        if not systems:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        return cls(tuple(systems), gates, len(runs) - len(done))

    @property
    def groups(self) -> tuple[OdeGroup, ...]:
        """Those of all systems."""
        return tuple(group for system in self.systems for group in system.groups)


def _read_series(record: Record, system: OdeSystem) -> tuple[OdeSeries, ...]:
    """The trajectories with their arrays; records of one trajectory do not list it."""
    found = []
    for k, one in enumerate(system.series or (OdeSeries(system.train_end),)):
        names = {key: f"{system.name}.{numbered(name, k)}" for key, name in SERIES_ARRAYS.items()}
        if names["t"] not in record.arrays:  # records of earlier versions
            names |= {key: f"{system.name}.{key}" for key in ("t", "truth")}
        t, data_t, data = (record.arrays[names[key]] for key in ("t", "data_t", "data"))
        found.append(replace(one, t=t, truth=record.arrays.get(names["truth"]), data_t=data_t, data=data))
    return tuple(found)


def read_runs(record: Record) -> list[Run]:
    """All runs in the order of the record, also those that were interrupted."""
    rows = [read(Run, values) for values in record.result["runs"]]
    plain = [row.variant.removesuffix(f"@{row.backend}") for row in rows]
    return [replace(row, variant=one, group=row.variant, arrays=record.arrays) for row, one in zip(rows, plain)]


def run_json(run: Run) -> dict[str, Any]:
    """The row of a run."""
    empty = () if run.estimates else ("estimates",)
    return _without(write(replace(run, variant=run.group, arrays={})), "group", "arrays", *empty)


def ode_result(systems: Sequence[OdeSystem], runs: Sequence[Run]) -> Result:
    """What the record holds."""
    described = {}
    arrays: dict[str, np.ndarray | None] = {}
    for one in systems:
        series = [_without(write(part), *SERIES_ARRAYS) for part in one.series]
        bare = replace(one, groups=(), series=(), t=None, truth=None, plane=None, slopes=None)
        own = ("t", "truth", "plane", "slopes")
        described[one.name] = _without(write(bare), "name", "groups", *own) | {"series": series}
        arrays |= {f"{one.name}.{name}": getattr(one, name) for name in own}
        for k, part in enumerate(one.series):
            arrays |= {f"{one.name}.{numbered(name, k)}": getattr(part, key) for key, name in SERIES_ARRAYS.items()}
    for run in runs:
        arrays |= run.arrays
    known = {name: array for name, array in arrays.items() if array is not None}
    return Result({"systems": described, "runs": [run_json(run) for run in runs]}, known)


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
