"""Which models are compared under which protocol, what each kind of task offers for it, and the time of a step."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from kansciml._errors import KansciError
from kansciml._files import write_json
from kansciml.analysis.matching import MEASURES
from kansciml.experiments.fair.config import FairConfig
from kansciml.experiments.fair.record import FairRun, StepTimes
from kansciml.experiments.hessian.measure import threads
from kansciml.runs.experiment import RunContext
from kansciml.runs.typed import read, write

Step = Callable[[], object]

ROUNDS = 7
"""Times each step is taken, besides a first one that does not count."""
J = TypeVar("J")
Arrays = Mapping[str, np.ndarray]


def measure(
    pairs: Sequence[tuple[Step, Step]],
    rounds: int = ROUNDS,
    clock: str = "process",
    elsewhere: Callable[[], float] = lambda: 0.0,
) -> StepTimes:
    """Time the steps (of a KAN, of an MLP) of each pair, in turn, on one thread.

    On a processor its seconds count, which other programs do not lengthen, and not those that threads spend waiting
    for each other; on a GPU, where the processor only waits, those of the wall clock do, and a step has to wait for
    its end. `elsewhere`: processor seconds of another process that works for this one.
    """

    def now() -> float:
        return time.process_time() + elsewhere() if clock == "process" else time.perf_counter()

    medians = []
    with threads(1):
        for steps in pairs:
            seconds = np.empty((rounds + 1, 2))
            for row in seconds:
                for side, step in enumerate(steps):
                    began = now()
                    step()
                    row[side] = now() - began
            medians.append(np.median(seconds[1:], axis=0))
    kan, mlp = np.mean(medians, axis=0).tolist() if medians else (math.nan, math.nan)
    return StepTimes(kan, mlp, rounds, len(medians), clock)


def stored(path: Path, make: Callable[[], StepTimes]) -> StepTimes:
    """What `path` holds, or `make()`, which is then kept there: a resumed run goes on with the steps it began with.

    Raises:
        KansciError: a file that cannot be read.
    """
    if path.exists():
        try:
            return read(StepTimes, json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KansciError(f"{path} cannot be read ({error}): run again with --force") from error
    times = make()
    write_json(path, write(times))
    return times


def stretched(count: int, factor: float) -> int:
    """`count` steps or epochs, `factor` times as many, to the nearest whole one."""
    return max(count, round(count * factor))


class Model(NamedTuple):
    """A model in a comparison: its variant, and which one of that variant (``params``, ``time``), as jobs have it."""

    variant: str
    kind: str = ""

    @property
    def group(self) -> str:
        """Name of its runs: ``kan-spline-params``."""
        return self.variant + (f"-{self.kind}" if self.kind else "")


MLP = Model("mlp")


@dataclass(frozen=True)
class Pair:
    """Two models that are compared.

    Args:
        protocol: what they have in common. layer: of the KAN. adapted: what was changed to make them equal.
    """

    protocol: str
    layer: str
    kan: Model
    mlp: Model
    adapted: str


def kan_of(layer: str, kind: str = "") -> Model:
    """A KAN of one of the layers."""
    return Model(f"kan-{layer}", kind)


def pairs(protocols: Sequence[str], layer: str) -> list[Pair]:
    """What is compared with KANs of `layer`, but for equal time, where the steps' times decide who is adapted."""
    found = {"width": Pair("width", layer, kan_of(layer), MLP, "nothing: equal hidden widths")}
    found |= {by: Pair(by, layer, kan_of(layer, by), MLP, "KAN shrunk") for by in MEASURES}
    return [found[protocol] for protocol in protocols if protocol in found]


def equal_time(layer: str, factor: float) -> Pair:
    """The pair of equal time: the cheaper model is trained longer. `factor`: KAN / MLP seconds per step."""
    if factor >= 1:
        longer = Model(MLP.variant, f"{layer}-time")
        return Pair("time", layer, kan_of(layer), longer, f"MLP trained {factor:.3g} times as long")
    return Pair("time", layer, kan_of(layer, "time"), MLP, f"KAN trained {1 / factor:.3g} times as long")


@dataclass(frozen=True)
class Metric:
    """A measure of a trained model, lower is better; `of` takes it from the row of a training.

    The primary one of a task decides; others are shown beside it.
    """

    name: str
    title: str
    of: Callable[[Any], float | None]
    primary: bool = False


class Domain(ABC, Generic[J]):
    """Tasks of one kind and their trainings; a job is one training.

    Args:
        name: of the kind of task, in the record. layers: KAN layers that it has.
        titles, metrics: by the name of each task.
    """

    def __init__(
        self,
        config: FairConfig,
        name: str,
        layers: Sequence[str],
        titles: Mapping[str, str],
        metrics: Mapping[str, Sequence[Metric]],
    ) -> None:
        self.config, self.name, self.titles, self.metrics = config, name, titles, metrics
        self.layers = [layer for layer in config.layers if layer in layers]

    def jobs(self) -> dict[tuple[str, Model], list[J]]:
        """The trainings of each task and model, one per seed, but for the longer ones of equal time."""
        protocols = self.config.protocols
        kans = {pair.kan for layer in self.layers for pair in pairs(protocols, layer)}
        kans |= {kan_of(layer) for layer in self.layers if "time" in protocols}
        return {(task, model): self.seeds_of(task, model) for task in self.titles for model in (MLP, *sorted(kans))}

    @abstractmethod
    def seeds_of(self, task: str, model: Model) -> list[J]:
        """The trainings of a model on a task, one per seed."""

    @abstractmethod
    def stretched(self, job: J, model: Model, factor: float) -> J:
        """The training as that of `model`, with `factor` times the steps on a schedule stretched with them."""

    @abstractmethod
    def train(self, jobs: Sequence[J], context: RunContext) -> tuple[list[FairRun], Arrays]:
        """The finished trainings, and the arrays of their record."""

    @abstractmethod
    def step_times(self, kans: Sequence[J], mlps: Sequence[J], arrays: Arrays, context: RunContext) -> StepTimes:
        """Of both models of a task, by jobs with the same seeds; `arrays` are those of their training."""
