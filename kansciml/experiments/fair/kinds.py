"""What a kind of task offers to be compared on equal terms, and which models are compared under which protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kansciml.experiments.fair.config import FairConfig
from kansciml.experiments.fair.record import StepTimes, Trained
from kansciml.runs.experiment import Result, RunContext

MLP = "mlp"


@dataclass(frozen=True)
class Metric:
    """A measure of a trained model, lower is better. The primary one of a task decides; others are shown beside it."""

    name: str
    title: str
    primary: bool = False


@dataclass(frozen=True)
class Pair:
    """Two groups of runs that are compared.

    Args:
        protocol: what they have in common. layer: of the KAN. kan, mlp: names of the groups.
        adapted: what was changed to make them equal.
    """

    protocol: str
    layer: str
    kan: str
    mlp: str
    adapted: str


class Kind(Protocol):
    """A kind of task: neural ODEs, images, or operators.

    A job is one training; it is of a `task_of(job)` and a `group_of(job)`.
    """

    name: str
    tasks: Sequence[str]
    layers: Sequence[str]

    def title(self, task: str) -> str: ...

    def metrics(self, task: str) -> Sequence[Metric]: ...

    def jobs(self, groups: Callable[[str], Iterable[str]]) -> list[Any]:
        """One job per task, group in `groups(layer)`, and seed. Raises UsageError for whatever is wrong."""

    def stretched(self, job: Any, group: str, factor: float) -> Any:
        """The same training with another name and `factor` times the steps, on a schedule stretched with them."""

    def task_of(self, job: Any) -> str: ...

    def group_of(self, job: Any) -> str: ...

    def train(self, jobs: Sequence[Any], context: RunContext) -> tuple[Result, list[Trained]]: ...

    def step_times(self, kans: Sequence[Any], mlps: Sequence[Any], result: Result, context: RunContext) -> StepTimes:
        """Of both models of a task, by jobs with the same seeds; `result` is that of their training."""


def of_layer(layer: str, match: str = "") -> str:
    """Name of a group of KANs: ``kan-spline``, ``kan-spline-params``."""
    return f"kan-{layer}" + (f"-{match}" if match else "")


def grown(layer: str, match: str) -> str:
    """Name of the group of MLPs that are as large as the KANs of equal width: ``mlp-spline-params``."""
    return f"{MLP}-{layer}-{match}"


def pairs(config: FairConfig, layer: str) -> list[Pair]:
    """What is compared with KANs of `layer`, but for equal time, where the steps' times decide who is adapted."""
    equal = of_layer(layer)
    found = {
        "width": Pair("width", layer, equal, MLP, "nothing: equal hidden widths"),
        "params": Pair("params", layer, of_layer(layer, "params"), MLP, "KAN shrunk"),
        "flops": Pair("flops", layer, of_layer(layer, "flops"), MLP, "KAN shrunk"),
        "params-up": Pair("params-up", layer, equal, grown(layer, "params"), "MLP widened"),
        "flops-up": Pair("flops-up", layer, equal, grown(layer, "flops"), "MLP widened"),
    }
    return [found[protocol] for protocol in config.protocols if protocol in found]


def equal_time(layer: str, factor: float) -> Pair:
    """The pair of equal time: the cheaper model has another group, which is trained longer."""
    kan, mlp = of_layer(layer), MLP
    if factor >= 1:
        return Pair("time", layer, kan, f"{MLP}-{layer}-time", f"MLP trained {factor:.3g} times as long")
    return Pair("time", layer, of_layer(layer, "time"), mlp, f"KAN trained {1 / factor:.3g} times as long")


def groups(config: FairConfig, layer: str) -> list[str]:
    """All groups that the protocols need with KANs of `layer`, each once, without those of equal time."""
    found = [name for pair in pairs(config, layer) for name in (pair.mlp, pair.kan)]
    if "time" in config.protocols:
        found += [MLP, of_layer(layer)]
    return sorted(dict.fromkeys(found), key=lambda name: (name != MLP, name))


def grown_width(size: Callable[[int], float], wanted: float, start: int) -> int:
    """The hidden width from `start` on whose `size`, which grows with it, is nearest to what is wanted."""
    low, high = start, start
    while size(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - wanted))
