"""Interleaved timing: on a machine that others use too, only ratios from one run can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    budget_s: float = 60.0,
    after_call: Callable[[str], None] = lambda name: None,
) -> dict[str, np.ndarray]:
    """Wall seconds of every call in every round, (rounds,) per name; each is called once before, uncounted.

    Args:
        calls: what to time, by name. They run in turn, round by round, so that all see the same drift.
        rounds: wanted rounds; fewer (at least 3) once `budget_s` is spent.
        after_call: called with the name after each call, e.g. to move a progress bar.
    """
    for name, call in calls.items():
        call()
        after_call(name)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    start = time.monotonic()
    for done in range(rounds):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
            after_call(name)
    return {name: np.array(values) for name, values in seconds.items()}
