"""The comparisons on equal terms (``kansciml run fair``) as a record holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kansciml._files import to_jsonable
from kansciml.analysis import paired
from kansciml.analysis.paired import REFUTED, SUPPORTED, UNDECIDED, compare, corrected
from kansciml.runs.experiment import Result
from kansciml.runs.records import DamagedRecord, Record, reading
from kansciml.runs.typed import attributes, read, write

PROTOCOLS = {
    "width": "equal width",
    "params": "equal parameters (KAN shrunk)",
    "params-up": "equal parameters (MLP widened)",
    "flops": "equal FLOPs (KAN shrunk)",
    "flops-up": "equal FLOPs (MLP widened)",
    "time": "equal time",
}
"""Titles of the protocols, in the order of tables; only older records have widened MLPs."""
LAYERS = {"spline": "splines", "rswaf": "RSWAF"}
VERDICTS = {SUPPORTED: "KAN better", REFUTED: "MLP better", UNDECIDED: UNDECIDED}
NOTHING = paired.Comparison(UNDECIDED, math.nan, math.nan, math.nan, math.nan, 0, 0, "")


@dataclass(frozen=True)
class FairRun:
    """One training, the same for every kind of task.

    Args:
        flops: forward FLOPs per evaluation or sample, of the MLPs or KANs alone; None where there is no formula.
        steps: done. seconds: spent on them, by the wall clock.
        losses: measures by the name of their `Metric`; None where it diverged.
    """

    id: str
    task: str
    group: str
    label: str
    seed: int
    status: str
    message: str
    parameters: int
    flops: float | None
    steps: int
    seconds: float
    losses: dict[str, float | None]


@dataclass(frozen=True)
class Side:
    """The KANs or the MLPs of a comparison: as in `FairRun`, steps and seconds being medians over seeds."""

    group: str
    label: str
    parameters: int
    flops: float | None
    steps: int
    seconds: float
    n_diverged: int

    @property
    def named(self) -> str:
        """``KAN 2-6-2; 1 diverged``."""
        return self.label + (f"; {self.n_diverged} diverged" if self.n_diverged else "")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """KANs against MLPs on one task by one metric, made equal by one protocol.

    Args:
        kind: of task: ``ode``, ``images`` or ``darcy``. layer: of the KAN. adapted: what was changed to be equal.
        primary: whether the metric is the task's own, or one shown beside it.
        kan_losses, mlp_losses: by seed; None where the training diverged.
        outcome: of the claim that the KAN's are lower: see `judged`.
    """

    task: str
    title: str
    kind: str
    layer: str
    protocol: str
    adapted: str
    metric: str
    metric_title: str
    primary: bool
    kan: Side
    mlp: Side
    seeds: tuple[int, ...]
    kan_losses: tuple[float | None, ...]
    mlp_losses: tuple[float | None, ...]
    outcome: paired.Comparison = field(default=NOTHING, compare=False)

    @property
    def verdict(self) -> str:
        """``"KAN better"``, ``"MLP better"`` or ``"undecided"``, of this comparison by itself."""
        return VERDICTS[self.outcome.verdict]

    @property
    def decided(self) -> bool:
        return self.outcome.verdict != UNDECIDED

    @property
    def confirmed(self) -> bool:
        """Whether the verdict stands after Holm's correction."""
        return self.outcome.corrected != UNDECIDED

    @property
    def ratio(self) -> float:
        """Estimate of the KAN's loss over the MLP's."""
        return self.outcome.effect

    def to_json(self) -> dict[str, object]:
        """What a record holds."""
        told = {"verdict": self.verdict, "ratio": self.ratio, "confirmed": self.confirmed, "reason": self.outcome.why}
        told |= attributes(self.outcome, "low high p_value n_pairs adjusted_p")
        return {name: value for name, value in write(self).items() if name != "outcome"} | to_jsonable(told)


def judged(rows: Sequence[Comparison], alpha: float) -> tuple[Comparison, ...]:
    """The rows with their outcomes.

    Those of primary metrics are one family of Holm's correction, the others a second one: the first is the table that
    answers the question, and what is shown beside it should not weaken it.
    """
    outcomes: dict[int, paired.Comparison] = {}
    for family in ([row for row in rows if row.primary], [row for row in rows if not row.primary]):
        found = [compare(*_by_seed(row), below=1, text="KAN lower", alpha=alpha) for row in family]
        outcomes |= {id(row): one for row, one in zip(family, corrected(found, alpha))}
    return tuple(replace(row, outcome=outcomes[id(row)]) for row in rows)


def _by_seed(row: Comparison) -> tuple[dict[int, float | None], dict[int, float | None]]:
    return dict(zip(row.seeds, row.kan_losses)), dict(zip(row.seeds, row.mlp_losses))


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one training step of both models, and how they were measured.

    Args:
        kan_s, mlp_s: medians over rounds, averaged over the pairs of steps that were given; NaN if there were none.
        rounds, pairs: how many of each. clock: ``process`` (seconds of the processor) or ``wall``.
        task, layer: of the models of equal width that were timed.
    """

    kan_s: float
    mlp_s: float
    rounds: int
    pairs: int
    clock: str
    task: str = ""
    layer: str = ""

    @property
    def factor(self) -> float:
        """KAN / MLP seconds per step; 1 where it is not known."""
        known = 0 < self.kan_s < math.inf and 0 < self.mlp_s < math.inf
        return self.kan_s / self.mlp_s if known else 1.0


@dataclass(frozen=True)
class FairRecord:
    """The comparisons of a run: those of the tasks' own metrics (`rows`), and the `others`."""

    alpha: float
    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    times: tuple[StepTimes, ...]
    runs: tuple[FairRun, ...]

    @classmethod
    def read(cls, record: Record) -> FairRecord:
        """Raises KansciError where the record holds no comparisons."""
        with reading(record):
            found = read(cls, record.result)
            rows = judged(sorted(found.comparisons, key=found._place), found.alpha)
            found = replace(found, comparisons=rows)
        if not found.rows:
            raise DamagedRecord(f"{record.folder} holds no finished run: resume the experiment first")
        return found

    def result(self) -> Result:
        """What `read` reads."""
        times = [write(times) | {"factor": times.factor} for times in self.times]
        rows = [row.to_json() for row in self.comparisons]
        return Result(write(self) | {"comparisons": rows, "times": times, "protocols": self.protocols})

    def _place(self, row: Comparison) -> tuple[int, int, int]:
        return self.tasks.index(row.task), self.layers.index(row.layer), list(PROTOCOLS).index(row.protocol)

    @property
    def rows(self) -> list[Comparison]:
        return [row for row in self.comparisons if row.primary]

    @property
    def others(self) -> list[Comparison]:
        return [row for row in self.comparisons if not row.primary]

    @property
    def protocols(self) -> list[str]:
        """Those that there are, in the order of `PROTOCOLS`."""
        have = {row.protocol for row in self.rows}
        return [protocol for protocol in PROTOCOLS if protocol in have]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(task, layer) of each row of the main table."""
        return list(dict.fromkeys((row.task, row.layer) for row in self.rows))

    def of(self, task: str, layer: str, protocol: str) -> Comparison | None:
        """The comparison, or None."""
        key = task, layer, protocol
        return next((row for row in self.rows if (row.task, row.layer, row.protocol) == key), None)

    def title(self, task: str, layer: str) -> str:
        """``Spiral``, with the layer where there are several."""
        own = next(row.title for row in self.rows if row.task == task)
        return f"{own}, {LAYERS[layer]}" if len(self.layers) > 1 else own
