"""A part of a problem's data, as one evaluation of the loss works on it. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kansciml._errors import UsageError
from kansciml.backends.problem import OdeProblem
from kansciml.models.inputs import Inputs


@dataclass(frozen=True, eq=False)
class Piece:
    """One initial value problem in the solver's variables: start (n,) at `t0`, save times (T,), inputs, and the name it
    has in messages, if any."""

    start: np.ndarray
    t0: float
    saveat: np.ndarray
    inputs: Inputs | None = None
    name: str = ""


class Part:
    """Some series of a problem, each with its first save points: what one evaluation of the loss is about.

    Attributes:
        problem, picked, counts: the problem, indices of the series (K,), and how many save points of each.
        begins: (K + 1,) of all R save points, one series after the other: where those of a series begin.
        data, weights: (R, n) both, 0 where nothing was measured; weights None: 1 everywhere.
        size: sum of the weights.
    """

    def __init__(self, problem: OdeProblem, picked: Sequence[int], counts: Sequence[int]) -> None:
        self.problem, self.picked, self.counts = problem, list(picked), list(counts)
        self.begins = np.cumsum([0, *counts])
        chosen = [(problem.series[k], rows) for k, rows in zip(picked, counts)]
        self.size = sum(one.measured(rows) for one, rows in chosen)
        data = np.concatenate([one.data[:rows] for one, rows in chosen])
        absent, self.weights = np.isnan(data), None
        if absent.any() or any(one.weights is not None for one, _ in chosen):
            given = [np.ones((rows, data.shape[1])) if (w := one.weights) is None else w[:rows] for one, rows in chosen]
            self.weights = np.where(absent, 0.0, np.concatenate(given))
        self.data = np.where(absent, 0.0, data)
        # A link counts if the series that ends there is picked with all its rows; the start is a parameter in any case.
        place = {k: i for i, (k, rows) in enumerate(zip(picked, counts)) if rows == len(problem.series[k].saveat)}
        before = [place.get(-1 if one.follows is None else one.follows, -1) for one in problem.series]
        self._linked = np.array([i for i, k in enumerate(before) if k >= 0], dtype=np.intp)
        self._rows = np.array([self.begins[k + 1] - 1 for k in before if k >= 0], dtype=np.intp)

    @property
    def linked(self) -> bool:
        """Whether an end is linked to a start."""
        return len(self._linked) > 0

    def pieces(self, starts: np.ndarray) -> list[Piece]:
        """The initial value problems, from the starts (N, n) of all series of the problem."""
        series = self.problem.series
        found = []
        for k, rows in zip(self.picked, self.counts):
            one, name = series[k], series[k].name or f"series {k}" if len(series) > 1 else ""
            found.append(Piece(starts[k], one.t0, one.saveat[:rows], one.inputs, name))
        return found

    def check_measured(self) -> None:
        """Raises UsageError if there is nothing to fit."""
        if self.size == 0 and all(one.follows is None for one in self.problem.series):
            raise UsageError("nothing is measured in the part of the data that was picked: take a larger part")

    def misfit(self, states: np.ndarray) -> tuple[float, np.ndarray]:
        """The documented loss of states (R, n) but for its links, and its gradient."""
        scale, size = self.problem.loss_scale, self.size or 1.0
        residual = (states - self.data) / scale
        weighted = residual if self.weights is None else self.weights * residual
        return float(np.sum(residual * weighted)) / size, weighted * (2.0 / size) / scale

    def links(self, states: np.ndarray, starts: np.ndarray, cotangents: np.ndarray, by_starts: np.ndarray) -> float:
        """The part of the loss that links ends to starts (N, n); its gradient is added to the last two arguments."""
        if not self.linked:
            return 0.0
        scale, continuity = self.problem.loss_scale, self.problem.continuity
        gap = (states[self._rows] - starts[self._linked]) / scale
        pull = continuity * gap * (2.0 / gap.size) / scale
        np.add.at(cotangents, self._rows, pull)
        by_starts[self._linked] -= pull
        return continuity * float(np.mean(gap**2))
