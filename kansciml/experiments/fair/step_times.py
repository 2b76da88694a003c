"""How much longer a training step of one model takes than that of another: measured in turn, once per comparison."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from kansciml._errors import KansciError
from kansciml._files import write_json

Step = Callable[[], object]

ROUNDS = 7
"""Times each step is taken, besides a first one that does not count."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one training step of both models, and how they were measured.

    Args:
        kan_s, mlp_s: medians over rounds, averaged over the pairs of steps that were given; NaN if there were none.
        rounds, pairs: how many of each. clock: ``process`` (seconds of the processor) or ``wall``.
    """

    kan_s: float
    mlp_s: float
    rounds: int
    pairs: int
    clock: str

    @property
    def factor(self) -> float:
        """The KAN's seconds over the MLP's: so many times as many steps the MLP may take; 1 where it is not known."""
        known = 0 < self.kan_s < math.inf and 0 < self.mlp_s < math.inf
        return self.kan_s / self.mlp_s if known else 1.0


def measure(pairs: Sequence[tuple[Step, Step]], rounds: int = ROUNDS, clock: str = "process") -> StepTimes:
    """Time the steps (of a KAN, of an MLP) of each pair, in turn, on one thread.

    On a processor its seconds count, which other programs do not lengthen, and not those that threads spend waiting
    for each other; on a GPU, where the processor only waits, those of the wall clock do, and a step has to wait for
    its end.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(pairs, rounds, clock)
    finally:
        torch.set_num_threads(threads)


def _measured(pairs: Sequence[tuple[Step, Step]], rounds: int, clock: str) -> StepTimes:
    now = time.process_time if clock == "process" else time.perf_counter
    medians = []
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
            values = json.loads(path.read_text())
            found = {name: math.nan if value is None else value for name, value in values.items()}
            return StepTimes(**found)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise KansciError(f"{path} cannot be read ({error}): run again with --force") from error
    times = make()
    write_json(path, asdict(times))
    return times


def stretched(count: int, factor: float) -> int:
    """`count` steps or epochs, `factor` times as many, to the nearest whole one."""
    return max(count, round(count * factor))
