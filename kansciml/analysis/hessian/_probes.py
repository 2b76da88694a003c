"""Probe vectors, each drawn from its own seed, their Lanczos runs, and estimates over them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..._errors import KansciError, UsageError
from ._saved import load, save
from ._sharing import Sharing
from .lanczos import lanczos
from .symmetric import SymmetricOperator

WAITING = -1.0  # in place of a probe's number of steps


@dataclass(frozen=True)
class Estimate:
    """A number estimated from random probes.

    Args:
        value: mean over the probes.
        standard_error: standard deviation over the probes (ddof = 1) / sqrt(probes); NaN with a single probe.
            value +- standard_error covers the truth in 68 % of cases with many probes, 66 % with 10 and 63 % with 5
            (Student's t). Of counts and masses it includes what the quadrature leaves open (`Spectrum.count_above`).
        probes: how many.
        lower, upper: for counts and masses, the means over the probes of sharp bounds on what the quadrature cannot
            resolve: half their difference bounds the error that only more steps reduce. Else both are `value`.
    """

    value: float
    standard_error: float
    probes: int
    lower: float = math.nan
    upper: float = math.nan

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            if math.isnan(getattr(self, name)):
                object.__setattr__(self, name, self.value)

    @classmethod
    def over(cls, samples: np.ndarray) -> Estimate:
        """Of one number per probe."""
        mean, error = over_probes(samples)
        return cls(float(mean), float(error), len(samples))

    @property
    def sampling_error(self) -> float:
        """The part of the standard error that more probes reduce."""
        return math.sqrt(max(self.standard_error**2 - (self.upper - self.lower) ** 2 / 4, 0.0))

    def scaled(self, factor: float) -> Estimate:
        """The estimate of `factor` > 0 times the number."""
        names = ("value", "standard_error", "lower", "upper")
        return dataclasses.replace(self, **{name: factor * getattr(self, name) for name in names})

    def below(self, whole: float) -> Estimate:
        """The estimate of `whole` less the number."""
        return Estimate(whole - self.value, self.standard_error, self.probes, whole - self.upper, whole - self.lower)


def over_probes(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis."""
    mean = samples.mean(0)
    if len(samples) == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, samples.std(0, ddof=1) / math.sqrt(len(samples))


def rademacher(rng: np.random.Generator, operator: SymmetricOperator, *columns: int) -> Tensor:
    """Independent signs (n, *columns) on the operator's device, in its dtype."""
    signs = torch.from_numpy(rng.integers(0, 2, (operator.size, *columns), dtype=np.int8))
    return signs.to(operator.device).to(operator.dtype).mul_(2).sub_(1)


def check_counts(seed: int, **counts: int) -> None:
    """Refuses a seed below 0, and another count below 1."""
    if seed < 0:
        raise UsageError(f"got seed {seed}: expected an integer of at least 0")
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"got {name} = {count}: expected at least 1")


def run_probes(
    operator: SymmetricOperator,
    *,
    steps: int,
    probes: int,
    seed: int,
    deflate: int,
    basis: str,
    folder: Path | None,
    locked: Tensor | None,
    checkpoint: Path | None,
    progress: Callable[[int, int], None] | None,
    fingerprint: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lanczos from every probe: alpha (probes, steps), beta (probes, steps), numbers of steps made (probes,).

    With torch.distributed initialised, and an operator that is not itself distributed, the processes take the probes
    that are not saved yet in turn; after each round all have all, and the first saves and reports.
    """
    sharing = Sharing(operator)
    settings: dict[str, int | str] = {"format": 1, "fingerprint": fingerprint, "size": operator.size}
    settings |= {"steps": steps, "seed": seed, "deflate": deflate}
    table = np.full((probes, 2 * steps + 1), WAITING)  # alpha, beta, length
    saved = None if checkpoint is None else sharing.from_first(lambda: load(checkpoint, settings, "table"))
    if saved is not None:
        if saved.shape[1] != table.shape[1]:
            raise KansciError(f"{checkpoint} is not a saved spectrum: remove it, or name another checkpoint")
        table = np.concatenate([saved, table[len(saved) :]])
    todo = [index for index in range(probes) if table[index, -1] == WAITING]

    def one(index: int) -> np.ndarray:
        start = rademacher(np.random.default_rng([seed, index]), operator)
        found = lanczos(operator, start, steps, basis=basis, folder=folder, locked=locked)
        length, row = len(found.alpha), np.zeros(2 * steps + 1)
        row[:length], row[steps : steps + length], row[-1] = found.alpha, found.beta, length
        return row

    done = probes - len(todo)
    if progress is not None and sharing.leads:
        progress(done, probes)
    for batch, rows in sharing.in_turns(todo, one, "a probe"):
        table[batch] = rows
        done += len(batch)
        if checkpoint is not None and sharing.leads:
            save(checkpoint, settings, "table", table)
        if progress is not None and sharing.leads:
            progress(done, probes)
    table = table[:probes]
    return table[:, :steps], table[:, steps:-1], table[:, -1].astype(np.int64)
