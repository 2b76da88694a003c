"""Observed states over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kansciml._errors import UsageError


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States at save points. Arrays become read-only float64.

    Args:
        t: times (T,), strictly increasing, T >= 1.
        states: states (T, n), finite.
        labels: names of the n components; empty means u1, u2, ...
        source: where the numbers come from, for captions, e.g. a file name.

    Raises:
        UsageError: wrong shape, non-finite numbers, unsorted or repeated times.
    """

    t: np.ndarray
    states: np.ndarray
    labels: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        t = np.array(self.t, dtype=np.float64)
        states = np.array(self.states, dtype=np.float64)
        if t.ndim != 1 or states.ndim != 2 or len(t) != len(states) or len(t) == 0 or states.shape[1] == 0:
            raise UsageError(
                f"got times of shape {t.shape} and states of shape {states.shape}: expected (T,) and (T, n), T, n >= 1"
            )
        if not (np.isfinite(t).all() and np.isfinite(states).all()):
            raise UsageError("the trajectory holds a number that is not finite: remove NaN and infinite values")
        if np.any(np.diff(t) <= 0):
            raise UsageError("the times must be strictly increasing: sort them, drop repeats")
        labels = tuple(self.labels) or tuple(f"u{i + 1}" for i in range(states.shape[1]))
        if len(labels) != states.shape[1]:
            raise UsageError(f"got {len(labels)} labels: expected {states.shape[1]}, one per state component")
        t.setflags(write=False)
        states.setflags(write=False)
        object.__setattr__(self, "t", t)
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "labels", labels)

    @property
    def state_size(self) -> int:
        return self.states.shape[1]

    def __len__(self) -> int:
        """Number of save points T."""
        return len(self.t)

    def until(self, end: float) -> Trajectory:
        """The part with t <= end."""
        keep = self.t <= end
        return Trajectory(self.t[keep], self.states[keep], self.labels, self.source)
