"""Interleaved timing: on a machine that others use too, only ratios from one run can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    budget_s: float = 60.0,
    slow_s: float = 2.0,
    after_call: Callable[[str], None] = lambda name: None,
) -> dict[str, np.ndarray]:
    """Wall seconds of every call in every round, (rounds,) per name; each is called once before, uncounted.

    Args:
        calls: what to time, by name. They run in turn, round by round, so that all see the same drift.
        rounds: wanted rounds; fewer (at least 3) once `budget_s` is spent.
        budget_s: seconds for all rounds.
        slow_s: a call that takes longer than this is not repeated: its first time is its only one.
        after_call: called with the name after each call, e.g. to move a progress bar.
    """

    def timed(name: str) -> float:
        began = time.perf_counter()
        calls[name]()
        taken = time.perf_counter() - began
        after_call(name)
        return taken

    warm_up = {name: timed(name) for name in calls}
    seconds = {name: [taken] if taken > slow_s else [] for name, taken in warm_up.items()}
    repeated = [name for name, taken in warm_up.items() if taken <= slow_s]
    start = time.monotonic()
    for done in range(rounds):
        if done >= 3 and time.monotonic() - start > budget_s:
            break
        for name in repeated:
            seconds[name].append(timed(name))
    return {name: np.array(values) for name, values in seconds.items()}
