"""Inputs w(t) of a vector field, measured at knots: interpolated linearly, or held. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kansciml._errors import UsageError, unknown_name

INPUT_KINDS = ("linear", "held")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs w(t) of a field, also called forcing or controls, known from their first to their last knot.

    Args:
        t: knots (L,), strictly increasing, L >= 1.
        values: inputs at the knots (L, m), finite.
        kind: ``"linear"``: straight between knots; ``"held"``: the value of the last knot at or before t.

    Raises:
        UsageError: wrong shape, non-finite numbers, unsorted or repeated knots, unknown kind.
    """

    t: np.ndarray
    values: np.ndarray
    kind: str = "linear"

    def __post_init__(self) -> None:
        for name in ("t", "values"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        t, values = self.t, self.values
        if t.ndim != 1 or values.ndim != 2 or len(t) != len(values) or values.size == 0:
            raise UsageError(
                f"got knots of shape {t.shape} and inputs of shape {values.shape}: expected (L,) and (L, m), L, m >= 1"
            )
        if not (np.isfinite(t).all() and np.isfinite(values).all()):
            raise UsageError("the inputs hold a number that is not finite: fill gaps of inputs before training")
        if np.any(np.diff(t) <= 0):
            raise UsageError("the knots of inputs must be strictly increasing: sort them, drop repeats")
        if self.kind not in INPUT_KINDS:
            raise unknown_name("kind of inputs", self.kind, INPUT_KINDS)

    @property
    def size(self) -> int:
        """Number of inputs m."""
        return self.values.shape[1]

    def check_cover(self, begin: float, end: float, of: str = "") -> None:
        """Refuse times that these inputs do not cover; `of` names them in the message.

        Raises:
            UsageError: then.
        """
        if self.t[0] > begin or self.t[-1] < end:
            raise UsageError(
                f"the inputs{of} are known from {self.t[0]:.9g} to {self.t[-1]:.9g}: expected all of {begin:.9g} to"
                f" {end:.9g}"
            )

    def __call__(self, t: Float[np.ndarray, "*batch"] | float) -> Float[np.ndarray, "*batch inputs"]:
        """w at times; beyond the first and last knot those of that knot, where a solver's last stage may look."""
        at = np.asarray(t, dtype=np.float64)
        if self.kind == "held":
            return self.values[np.maximum(np.searchsorted(self.t, at, side="right") - 1, 0)]
        return np.stack([np.interp(at, self.t, column) for column in self.values.T], axis=-1)
