"""How a problem is fitted: initial states, windows, minibatches, and what is added to the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kansciml._errors import UsageError
from kansciml.backends.base import Subset


@dataclass(frozen=True)
class Part:
    """What one step of the optimiser fits: a part of the data (None: all), at which of the weights of links."""

    subset: Subset | None
    level: int


@dataclass(frozen=True)
class FitConfig:
    """How trajectories are fitted."""

    learn_u0: bool = False
    """Learn the initial states too, from a first guess in the data; else they are the first rows."""
    shooting: int = 0
    """Multiple shooting: rows of data in each window that trajectories are cut into, neighbours sharing one."""
    continuity: tuple[float, ...] = (1.0,)
    """Weight in the loss of the gaps between windows; several, growing: one after the other in equal parts of Adam."""
    batch_trajectories: int = 0
    """Trajectories, or windows, that one Adam step fits, drawn at random (0: all). L-BFGS always fits all."""
    component_weights: tuple[float, ...] = ()
    """Weight of each component in the loss; none: 1 each."""
    l1: float = 0.0
    """Weight in the loss of the sum of the norms of a KAN's edges, or of the magnitudes of an MLP's weights."""
    entropy: float = 0.0
    """Weight in the loss of the entropy of a KAN's edges, which favours few of them."""

    def __post_init__(self) -> None:
        if self.shooting < 0 or self.shooting == 1:
            raise UsageError(f"got shooting {self.shooting}: expected at least 2 rows in a window, or 0 for no windows")
        if not self.continuity or not all(0 < weight < math.inf for weight in self.continuity):
            raise UsageError(f"got continuity {self.continuity}: expected positive weights, such as 1, or 1 10 100")
        if any(b < a for a, b in zip(self.continuity[:-1], self.continuity[1:])):
            raise UsageError(f"got continuity {self.continuity}: expected weights that do not fall, such as 1 10 100")
        if self.continuity != FitConfig.continuity and not self.shooting:
            raise UsageError(f"got continuity {self.continuity} without shooting: there are no windows to link")
        if self.batch_trajectories < 0:
            raise UsageError(f"got batch_trajectories {self.batch_trajectories}: expected at least 1, or 0 for all")
        for name, weights in (
            ("component_weights", self.component_weights),
            ("l1 and entropy", (self.l1, self.entropy)),
        ):
            if not all(0 <= weight < math.inf for weight in weights):
                raise UsageError(f"got {name} {weights}: expected numbers of at least 0")
        if self.component_weights and not any(self.component_weights):
            raise UsageError(f"got component_weights {self.component_weights}: expected one that is not 0")

    def part(self, step: int, steps: int, share: float, count: int, seed: int) -> Part | None:
        """What step `step` of `steps` of Adam fits of `count` series, by number alone; None: all, as L-BFGS does.

        Each epoch takes the series in another order, drawn with the seed; its last batch may be smaller.

        Args:
            share: of the save points of each series.
        """
        series: tuple[int, ...] | None = None
        if size := self.batch_size(count):
            epoch, place = divmod(step, math.ceil(count / size))
            order = np.random.default_rng([seed, epoch]).permutation(count)
            series = tuple(sorted(order[place * size : (place + 1) * size].tolist()))
        level = min(step * len(self.continuity) // max(steps, 1), len(self.continuity) - 1)
        if series is None and share >= 1 and level == len(self.continuity) - 1:
            return None
        return Part(Subset(series, share), level)

    def check_with(self, curriculum: Sequence[float]) -> None:
        """Refuse a growing horizon together with windows.

        Raises:
            UsageError: then.
        """
        if self.shooting and curriculum:
            raise UsageError(
                f"got shooting {self.shooting} and curriculum {tuple(curriculum)}: windows are short already, so choose"
                " one of the two"
            )

    def all_every(self, count: int) -> int:
        """Adam steps after which the loss over all of `count` series is to be computed: ten epochs; 0: each step is."""
        size = self.batch_size(count)
        return 10 * math.ceil(count / size) if size else 0

    def batch_size(self, count: int) -> int:
        """Series in a batch of `count`; 0: all."""
        return self.batch_trajectories if self.batch_trajectories < count else 0
