"""Observed states over time, with gaps, weights and inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kansciml._errors import UsageError, unknown_name
from kansciml.models.inputs import INPUT_KINDS, Inputs


@dataclass(frozen=True)
class Clock:
    """How a table tells times: other tables of the same system are read by it.

    Args:
        column: name of the column of times; empty where it has none.
        since: the date and time (ISO 8601, UTC), or time of day, that times count from in seconds; empty: times are the
            numbers that the table holds.
    """

    column: str = ""
    since: str = ""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States at save points, NaN where a component was not measured. Arrays become read-only float64.

    Args:
        t: times (T,), strictly increasing, T >= 1.
        states: states (T, n); NaN: not measured.
        labels: names of the n components; empty means u1, u2, ...
        source: where the numbers come from, for captions, e.g. a file name.
        weights: of each measurement in the training loss, (T, n), not negative; None: one each. A measurement of weight
            0 is shown in pictures and not used otherwise: not for scaling, initial states or errors either.
        inputs: known inputs (T, m) that drive the system, NaN where they were not measured; None: there are none.
        input_labels: names of the m inputs; empty means w1, w2, ...
        input_kind: between measurements an input is ``"linear"`` or ``"held"`` at the one before (default linear).
        name: of this trajectory among others, e.g. its id in a table.
        clock: what its times are, where a table told them otherwise than by numbers.

    Raises:
        UsageError: wrong shape, infinite numbers, no measurement at all, unsorted or repeated times, negative weights,
            inputs that do not cover the times.
    """

    t: np.ndarray
    states: np.ndarray
    labels: tuple[str, ...] = ()
    source: str = ""
    weights: np.ndarray | None = None
    inputs: np.ndarray | None = None
    input_labels: tuple[str, ...] = ()
    input_kind: str = "linear"
    name: str = ""
    clock: Clock = Clock()

    def __post_init__(self) -> None:
        t = np.array(self.t, dtype=np.float64)
        states = np.array(self.states, dtype=np.float64)
        if t.ndim != 1 or states.ndim != 2 or len(t) != len(states) or len(t) == 0 or states.shape[1] == 0:
            raise self.error(
                f"got times of shape {t.shape} and states of shape {states.shape}: expected (T,) and (T, n), T, n >= 1"
            )
        if not np.isfinite(t).all():
            raise self.error("a time is not finite: leave its row out")
        if np.isinf(states).any():
            raise self.error("a state is infinite: expected finite numbers, NaN where a component was not measured")
        if np.isnan(states).all():
            raise self.error("no measurement at all: every state is NaN")
        if np.any(np.diff(t) <= 0):
            raise self.error("the times must be strictly increasing: sort them, drop repeats")
        self._set("t", t)
        self._set("states", states)
        self._set_labels("labels", "u", states.shape[1], "state component")
        if self.weights is not None:
            self._set("weights", self._checked_weights())
        if self.input_kind not in INPUT_KINDS:
            raise unknown_name("input_kind", self.input_kind, INPUT_KINDS)
        if self.inputs is None and self.input_labels:
            raise self.error(f"got input_labels {self.input_labels} without inputs")
        if self.inputs is not None:
            inputs = np.array(self.inputs, dtype=np.float64)
            if inputs.ndim != 2 or len(inputs) != len(t) or inputs.shape[1] == 0:
                raise self.error(f"got inputs of shape {inputs.shape}: expected ({len(t)}, m), m >= 1, a row per time")
            self._set_labels("input_labels", "w", inputs.shape[1], "input")
            self._set("inputs", self._covering(inputs))

    @property
    def state_size(self) -> int:
        return self.states.shape[1]

    @property
    def measured(self) -> np.ndarray:
        """Which entries of `states` were measured and count, (T, n): those of weight 0 do not."""
        return ~np.isnan(self.states) if self.weights is None else self.weights > 0

    def used(self) -> Trajectory:
        """The same without the measurements of weight 0."""
        if self.weights is None or (self.measured | np.isnan(self.states)).all():
            return self
        return replace(self, states=np.where(self.measured, self.states, np.nan))

    @property
    def forcing(self) -> Inputs | None:
        """The inputs as a function of time."""
        return None if self.inputs is None else Inputs(self.t, self.inputs, self.input_kind)

    def __len__(self) -> int:
        """Number of save points T."""
        return len(self.t)

    def at(self, t: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """States (M, n) at times (M,): see `between`."""
        return between(self.t, np.where(self.measured, self.states, np.nan), t, otherwise)

    def until(self, end: float) -> Trajectory:
        """The part with t <= end."""
        keep = self.t <= end
        weights, inputs = (None if part is None else part[keep] for part in (self.weights, self.inputs))
        return replace(self, t=self.t[keep], states=self.states[keep], weights=weights, inputs=inputs)

    def error(self, text: str) -> UsageError:
        """What is wrong with it, by its name."""
        return UsageError(f"trajectory {self.name}: {text}" if self.name else text)

    def _set(self, key: str, value: object) -> None:
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
        object.__setattr__(self, key, value)

    def _set_labels(self, key: str, letter: str, count: int, what: str) -> None:
        labels = tuple(getattr(self, key)) or tuple(f"{letter}{i + 1}" for i in range(count))
        if len(labels) != count:
            raise self.error(f"got {len(labels)} {key.replace('_', ' ')}: expected {count}, one per {what}")
        self._set(key, labels)

    def _checked_weights(self) -> np.ndarray:
        weights = np.array(self.weights, dtype=np.float64)
        if weights.shape != self.states.shape:
            raise self.error(f"got weights of shape {weights.shape}: expected {self.states.shape}, as the states")
        weights[np.isnan(self.states)] = 0.0
        bad = ~np.isfinite(weights) | (weights < 0)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            what = "no number" if np.isnan(weights[row, column]) else f"{weights[row, column]:g}"
            raise self.error(
                f"got {what} as the weight of {self.labels[column]} at time {self.t[row]:g}: expected a number of at"
                " least 0, 0 for a measurement that is not to be used"
            )
        if not weights.any():
            raise self.error("every measurement has weight 0: nothing is left to learn from")
        return weights

    def _covering(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs with the values of gaps between measurements, as their kind has them."""
        rows = np.arange(len(self.t))
        for label, column in zip(self.input_labels, inputs.T):
            known = np.isfinite(column)
            if np.isinf(column).any():
                raise self.error(f"input {label} is infinite: expected finite numbers")
            last = rows[-1] if self.input_kind == "linear" else 0
            if not (known[0] and known[last]):
                span = f"{self.t[known][0]:g} to {self.t[known][-1]:g}" if known.any() else "no time at all"
                raise self.error(
                    f"input {label} is known from {span}, the times run from {self.t[0]:g} to {self.t[-1]:g}: give it"
                    " over all of them, or leave out the rows without it"
                )
            if self.input_kind == "linear":
                column[~known] = np.interp(self.t[~known], self.t[known], column[known])
            else:
                column[:] = column[np.maximum.accumulate(np.where(known, rows, 0))]
        return inputs


def between(t: np.ndarray, states: np.ndarray, at: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """States (M, n) at times (M,), of measurements (T, n) at times (T,), NaN for none.

    Linear between the measurements of a component, outside them the nearest one; where it has none, `otherwise` (n,).
    """
    found = np.tile(np.asarray(otherwise, dtype=np.float64), (len(at), 1))
    for i, column in enumerate(states.T):
        known = ~np.isnan(column)
        if known.any():
            found[:, i] = np.interp(at, t[known], column[known])
    return found
