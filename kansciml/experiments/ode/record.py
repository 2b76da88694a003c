"""Writes the record of a neural-ODE experiment (Figure 2, ``kansciml ode``), and reads it as groups of runs.

``result["runs"]``: `Run` rows; ``result["systems"]``: `OdeSystem` by name, with their `OdeSeries`; on two backends
``result["gates"]``: `Gate` rows, and variants are named ``variant@backend``. Arrays per run: ``<id>.iteration``,
``.loss``, ``.phase`` (0 Adam, 1 L-BFGS), ``.rung`` of the ladder, ``.evaluations``, ``.cpu_s`` and ``.flops`` until
then, all (K,), some rows of a long training; ``.params`` (P,), ``.trajectory`` (Td, n) at the times of the system,
``.line`` (L, n) of the first trajectory and ``.line.1`` of the next, NaN after a blow-up, and ``.slopes`` (G, G, 2) on
the system's plane. Per system: ``<system>.t`` (Td,), ``.truth`` (Td, n, absent if unknown); ``.line_t`` (L,), dense,
``.line_truth`` (L, n), ``.data_t`` (T,), ``.data`` and, of weight 0, ``.unused`` (T, n, NaN: none) of the first
trajectory, ``.line_t.1`` and so on of the next; of two components, ``.plane`` (G, G, 2) and its true ``.slopes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from kansciml.experiments.ode.run_rows import OdeGroup, Run, nothing, numbered, read_runs, run_json, without
from kansciml.reporting.groups import grouped
from kansciml.runs.experiment import Result
from kansciml.runs.records import DamagedRecord, Record, reading
from kansciml.runs.typed import read, write

ROLES = {"train": "", "validation": "validation", "unseen": "unseen initial state"}
"""What a trajectory is for, and what pictures say of it."""
CURVES = {"line", "slopes", "trajectory"}
"""Names of a run's arrays that pictures alone take, of one seed of each group."""
LARGE = 10_000
"""Most parameters of a network that are packed: as many as have all their eigenvalues computed."""
SERIES_ARRAYS = {"t": "line_t", "truth": "line_truth", "data_t": "data_t", "data": "data", "unused": "unused"}
"""Attribute of a trajectory, and name of its array."""


@dataclass(frozen=True, eq=False)
class OdeSeries:
    """One trajectory of a system.

    Args:
        train_end: last time that is trained on. name: among others. role: a key of `ROLES`.
        t: times (Td,) of truth and models, dense. truth: true states (Td, n); None if unknown.
        data_t, data: times (T,) and measured states (T, n). unused: those of weight 0; None if there are none.
    """

    train_end: float
    name: str = ""
    role: str = "train"
    t: np.ndarray = field(default_factory=nothing)
    truth: np.ndarray | None = None
    data_t: np.ndarray = field(default_factory=nothing)
    data: np.ndarray = field(default_factory=nothing)
    unused: np.ndarray | None = None

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
    time_label: str = "t"
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
        """What trajectories are for whose errors were measured, also of those that are not among `series`."""
        runs = [run for group in self.groups for run in group.rows]
        unseen = any(run.unseen_mse is not None or "unseen_mse" in run.not_computed for run in runs)
        return {one.role for one in self.series} | ({"unseen"} if unseen else set())

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


def unshown(record: Record) -> set[str]:
    """Names of arrays that a packed record does without.

    They are curves of seeds that stand for no group, which no picture draws, and parameters of more than `LARGE`.
    """
    drawn = {run.id for group in OdeRecord.read(record).groups if (run := group.representative) is not None}
    found: set[str] = set()
    for run in read_runs(record):
        double = {"trajectory"} if len(run.array("line")) else set()
        parts = (double if run.id in drawn else CURVES) | ({"params"} if run.n_parameters > LARGE else set())
        own = [name.removeprefix(run.id) for name in record.arrays if name.startswith(f"{run.id}.")]
        found |= {run.id + name for name in own if not parts.isdisjoint(name.split("."))}
    return found


def _read_series(record: Record, system: OdeSystem) -> tuple[OdeSeries, ...]:
    """The trajectories with their arrays; records of one trajectory do not list it."""
    found = []
    for k, one in enumerate(system.series or (OdeSeries(system.train_end),)):
        names = {key: f"{system.name}.{numbered(name, k)}" for key, name in SERIES_ARRAYS.items()}
        if names["t"] not in record.arrays:  # records of earlier versions
            names |= {key: f"{system.name}.{key}" for key in ("t", "truth")}
        t, data_t, data = (record.arrays[names[key]] for key in ("t", "data_t", "data"))
        truth, unused = (record.arrays.get(names[key]) for key in ("truth", "unused"))
        found.append(replace(one, t=t, truth=truth, data_t=data_t, data=data, unused=unused))
    return tuple(found)


def ode_result(systems: Sequence[OdeSystem], runs: Sequence[Run]) -> Result:
    """What the record holds."""
    described = {}
    arrays: dict[str, np.ndarray | None] = {}
    for one in systems:
        series = [without(write(part), *SERIES_ARRAYS) for part in one.series]
        bare = replace(one, groups=(), series=(), t=None, truth=None, plane=None, slopes=None)
        own = ("t", "truth", "plane", "slopes")
        default = ["time_label"] * (one.time_label == OdeSystem.time_label)
        described[one.name] = without(write(bare), "name", "groups", *own, *default) | {"series": series}
        arrays |= {f"{one.name}.{name}": getattr(one, name) for name in own}
        for k, part in enumerate(one.series):
            arrays |= {f"{one.name}.{numbered(name, k)}": getattr(part, key) for key, name in SERIES_ARRAYS.items()}
    for run in runs:
        arrays |= run.arrays
    known = {name: array for name, array in arrays.items() if array is not None}
    return Result({"systems": described, "runs": [run_json(run) for run in runs]}, known)
