"""How long a training by Adam and L-BFGS takes, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kansciml.training.flat import FlatTraining, ValueAndGrad, train_flat

BUDGET_S = 0.2
MOST = 100
"""Steps of each optimiser that are tried."""


def step_seconds(value_and_grad: ValueAndGrad, initial: np.ndarray, settings: FlatTraining) -> float:
    """Mean seconds of a step, over as many of Adam and of L-BFGS as take 0.2 s (2 to 100 of each) from `initial` (P,).

    Raises:
        SolveError: the loss does not exist there.
    """
    value_and_grad(initial, None)  # makes things ready
    began = time.perf_counter()
    value_and_grad(initial, None)
    count = max(2, min(MOST, int(BUDGET_S / 2 / max(time.perf_counter() - began, 1e-9))))
    steps = [0]
    short = replace(settings, adam_steps=count, lbfgs_steps=count, curriculum=(), plateau=0.0)
    began = time.perf_counter()
    train_flat(value_and_grad, initial, short, progress=lambda done, *_: steps.append(done))
    return (time.perf_counter() - began) / max(*steps, 1)


def training_seconds(rungs: Sequence[float], settings: FlatTraining) -> float:
    """Seconds of a training that does not end early, from those of a step at each tolerance that it goes to."""
    return settings.adam_steps * rungs[0] + settings.lbfgs_steps * max(rungs)


def wall_seconds(trainings: Sequence[float], workers: int) -> float:
    """Seconds until trainings of so many seconds each are done by `workers` processes, each on a core of its own."""
    return max(max(trainings), sum(trainings) / workers)
