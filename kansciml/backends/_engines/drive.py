"""The inputs of many pieces side by side, as integrators read them.

Between two knots an input is a straight line, base + slope (t - knot), of slope 0 where it is held. Integrators stay
within one such interval during a step, so that an input that jumps is read from the left at the step's end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int

from kansciml.backends.base import Piece

Intervals = Int[np.ndarray, " B"]
"""Indices into the knots of all pieces, one piece after the other, each followed by a knot at infinity."""


class Drive:
    """The inputs of pieces; of none, if the field has no inputs."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        driven = [(one.t0, one.inputs) for one in pieces if one.inputs is not None]
        self.present = bool(driven)
        if not driven:
            self.first = np.zeros(len(pieces), dtype=np.intp)
            return
        assert len(driven) == len(pieces)
        knots: list[np.ndarray] = []
        base: list[np.ndarray] = []
        slope: list[np.ndarray] = []
        for _, inputs in driven:
            rise = np.diff(inputs.values, axis=0) / np.diff(inputs.t)[:, None] * (inputs.kind == "linear")
            knots += [inputs.t, np.array([np.inf])]
            base += [inputs.values, inputs.values[-1:]]
            slope += [rise, np.zeros((2, inputs.size))]
        self.knots, self.base, self.slope = np.concatenate(knots), np.concatenate(base), np.concatenate(slope)
        self.held = np.array([inputs.kind == "held" for _, inputs in driven])
        offset = np.cumsum([0, *(len(inputs.t) + 1 for _, inputs in driven)])[:-1]
        self.first = offset + [np.searchsorted(inputs.t, t0, side="right") - 1 for t0, inputs in driven]

    def until(self, interval: Intervals) -> Float64[np.ndarray, " B"]:
        """Where the intervals end."""
        return self.knots[interval + 1] if self.present else np.full(len(interval), np.inf)

    def jumps(self, piece: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        """Whether the inputs of pieces jump at their knots."""
        return self.held[piece] if self.present else np.zeros(len(piece), dtype=bool)

    def __call__(self, t: Float64[np.ndarray, " B"], interval: Intervals) -> Float64[np.ndarray, "B m"] | None:
        """w at times in intervals."""
        if not self.present:
            return None
        return self.base[interval] + self.slope[interval] * (t - self.knots[interval])[:, None]
