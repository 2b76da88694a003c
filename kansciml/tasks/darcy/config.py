"""Settings of a Darcy data set."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from typing import Any

from kansciml._errors import UsageError, unknown_name

SPLITS = ("train", "test")
SOLVERS = ("cg", "lu")
FORMAT = 1
"""Raised whenever the same settings would give other numbers."""


@dataclass(frozen=True)
class DarcyConfig:
    """Darcy flow: -div(a grad u) = f on the unit square, u = 0 on its boundary, a random and piecewise constant.

    Source: Li et al., Fourier neural operator for parametric partial differential equations (2021), section 5.2.

    Raises:
        UsageError: a value out of range; a `subsample` that does not divide resolution - 1 (the valid ones are listed).
    """

    resolution: int = 421
    """Nodes along each side of the grid on which the equation is solved, boundary included."""
    subsample: int = 5
    """Every how many-th node is kept: 5 leaves 85 x 85 of 421 x 421."""
    n_train: int = 1024
    """Training samples."""
    n_test: int = 500
    """Test samples."""
    data_seed: int = 0
    """Seed of all samples; each sample has its own stream of it."""
    low: float = 3.0
    """Coefficient a where the Gaussian random function is negative."""
    high: float = 12.0
    """Coefficient a elsewhere."""
    tau: float = 3.0
    """Inverse length scale of the random function, of covariance (-Laplace + tau^2)^-alpha."""
    alpha: float = 2.0
    """Smoothness of the random function."""
    forcing: float = 1.0
    """Right-hand side f."""
    solver: str = "cg"
    """cg: conjugate gradients, preconditioned by sine transforms, to 1e-12; lu: sparse LU, for extreme contrasts."""

    def __post_init__(self) -> None:
        if self.resolution < 5:
            raise UsageError(f"got resolution {self.resolution}: expected at least 5 nodes along a side")
        check_subsample(self.resolution, self.subsample)
        for name in ("n_train", "n_test", "data_seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"got {name} {getattr(self, name)}: expected 0 or more")
        if not (0 < self.low <= self.high < math.inf):
            raise UsageError(f"got coefficients low {self.low}, high {self.high}: expected 0 < low <= high")
        if not 0 <= self.tau < math.inf:
            raise UsageError(f"got tau {self.tau}: expected 0 or more, such as 3")
        if not 1 < self.alpha < math.inf:
            raise UsageError(f"got alpha {self.alpha}: expected above 1, since a rougher function has no point values")
        if not math.isfinite(self.forcing) or self.forcing == 0:
            raise UsageError(f"got forcing {self.forcing}: expected a number other than 0, such as 1")
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)

    @property
    def size(self) -> int:
        """Nodes along a side of the samples kept, (resolution - 1) / subsample + 1."""
        return (self.resolution - 1) // self.subsample + 1

    def count(self, split: str) -> int:
        """Number of samples of a split, ``"train"`` or ``"test"``."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return self.n_train if split == "train" else self.n_test

    def settings(self) -> dict[str, Any]:
        """All that decides what sample i is: everything but the numbers of samples."""
        names = {"data_seed": "seed"}  # as data sets on disk call it
        kinds = {"int": int, "float": float, "str": str}  # low=3 is the same data set as low=3.0
        return {
            names.get(field.name, field.name): kinds[str(field.type)](getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("n_train", "n_test")
        }

    @property
    def id(self) -> str:
        """Folder name of the data set: sizes, seed, and a hash of `settings`, e.g. ``421to85-seed0-1a2b3c4d``."""
        text = json.dumps({"format": FORMAT, **self.settings()}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.resolution}to{self.size}-seed{self.data_seed}-{digest}"


def check_subsample(resolution: int, factor: int) -> None:
    """Accept the factors that keep the boundary nodes: divisors of resolution - 1.

    Raises:
        UsageError: any other; the message lists the valid ones with the sizes they leave.
    """
    intervals = resolution - 1
    if factor < 1 or intervals % factor:
        valid = [d for d in range(1, intervals // 2 + 1) if intervals % d == 0]
        listed = ", ".join(f"{d} ({intervals // d + 1})" for d in valid[:12]) + (", ..." if len(valid) > 12 else "")
        raise UsageError(
            f"got subsample {factor} of {resolution} nodes: expected a divisor of {intervals}, with the nodes it"
            f" leaves: {listed}"
        )
