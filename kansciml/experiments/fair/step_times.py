"""How much longer a training step of one model takes than that of another: measured in turn, once per comparison."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from kansciml._errors import KansciError
from kansciml._files import write_json
from kansciml.experiments.fair.record import StepTimes
from kansciml.runs.typed import read, write

Step = Callable[[], object]

ROUNDS = 7
"""Times each step is taken, besides a first one that does not count."""


def measure(pairs: Sequence[tuple[Step, Step]], rounds: int = ROUNDS, clock: str = "process") -> StepTimes:
    """Time the steps (of a KAN, of an MLP) of each pair, in turn, on one thread.

    On a processor its seconds count, which other programs do not lengthen, and not those that threads spend waiting
    for each other; on a GPU, where the processor only waits, those of the wall clock do, and a step has to wait for
    its end.
    """
    now = time.process_time if clock == "process" else time.perf_counter
    threads, medians = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for steps in pairs:
            seconds = np.empty((rounds + 1, 2))
            for row in seconds:
                for side, step in enumerate(steps):
                    began = now()
                    step()
                    row[side] = now() - began
            medians.append(np.median(seconds[1:], axis=0))
    finally:
        torch.set_num_threads(threads)
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
