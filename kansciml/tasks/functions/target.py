"""A function to learn on a box, and its data: random points for training, fresh ones for the error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from kansciml._errors import UsageError, check_seed

KINDS = {"feynman": "Feynman formula", "special": "special function", "rough": "rough function"}
SPREAD_POINTS, SPREAD_SEED = 1 << 14, 20240501
"""Points, drawn once and the same for all, over which a function's mean and standard deviation are taken."""


@dataclass(frozen=True)
class Target:
    """A real function of d variables on a box.

    Args:
        name: as its source numbers or calls it. kind: a key of `KINDS`. formula: in plain text.
        box: lowest and highest value of each variable.
        values: f of the variables, each (n,), as an array (n,).
    """

    name: str
    kind: str
    formula: str
    box: tuple[tuple[float, float], ...]
    values: Callable[..., np.ndarray]

    @property
    def inputs(self) -> int:
        """Number of variables d."""
        return len(self.box)

    def at(self, x: Float64[np.ndarray, "n inputs"]) -> Float64[np.ndarray, " n"]:
        """f at points whose coordinates run over the box as x does over [-1, 1]."""
        low, high = np.array(self.box).T
        return np.asarray(self.values(*(low + (high - low) * (x + 1) / 2).T), dtype=np.float64)

    @functools.cached_property
    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of f over the box."""
        points = np.random.default_rng(SPREAD_SEED).uniform(-1, 1, (SPREAD_POINTS, self.inputs))
        values = self.at(points)
        return float(values.mean()), float(values.std())


@dataclass(frozen=True)
class Sample:
    """Points (n, d) in [-1, 1] and values (n,), less the function's mean and over its standard deviation."""

    x: Float64[np.ndarray, "n inputs"]
    y: Float64[np.ndarray, " n"]


def samples(target: Target, n_train: int, n_test: int, noise: float, seed: int) -> tuple[Sample, Sample]:
    """Data of one training, and fresh points without noise, each with a generator of its own.

    Args:
        noise: standard deviation of the normal noise on the training values, in standard deviations of the function.
        seed: of points and noise. The points do not depend on the noise.

    Raises:
        UsageError: fewer than two points, a negative noise, or a seed that is none.
    """
    if min(n_train, n_test) < 2:
        raise UsageError(f"got {n_train} points to train on and {n_test} to test on: expected at least 2 each")
    if not 0 <= noise < np.inf:
        raise UsageError(f"got noise {noise}: expected a number of at least 0, such as 0.05")
    streams = np.random.SeedSequence(check_seed(seed, "seed")).spawn(3)
    train, test, normal = (np.random.default_rng(stream) for stream in streams)
    mean, deviation = target.spread

    def drawn(generator: np.random.Generator, n: int) -> Sample:
        x = generator.uniform(-1, 1, (n, target.inputs))
        return Sample(x, (target.at(x) - mean) / deviation)

    known, fresh = drawn(train, n_train), drawn(test, n_test)
    return Sample(known.x, known.y + noise * normal.standard_normal(n_train)), fresh
