"""One training of a neural operator, and the samples it is trained on. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kansciml._errors import UsageError
from kansciml.analysis.matching import mixing_size
from kansciml.experiments.fno.config import FnoRunConfig, SamplesConfig
from kansciml.experiments.fno.record import RESIDUAL, SamplesRow
from kansciml.experiments.minibatch.jobs import TrainingJob, arrays_hash
from kansciml.models.fno import FNOConfig
from kansciml.tasks.darcy.dataset import DarcyData, dataset_folder, generate, load
from kansciml.tasks.darcy.matfile import read_mat
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

MINIMUM_SAMPLES = 32
"""Training samples on which the loss at the minimum is taken, for Hessians."""
SHOWN = 3
"""Test samples, the first ones, whose predictions are kept for pictures."""


def read_split(config: SamplesConfig, name: str) -> DarcyData:
    """Samples of ``train`` or ``test``, from what is on disk.

    Raises:
        UsageError: a file that is not there, cannot be read, or has another resolution or too few samples.
        KansciError: samples that were not generated, or are damaged.
    """
    darcy, n = config.darcy, config.darcy.count(name)
    if config.data is None:
        return load(darcy, config.data_dir, name)
    if name == "train" or config.test_data is not None:
        found = read_mat((name == "test" and config.test_data) or config.data, n, darcy.subsample)
    else:
        both = read_mat(config.data, darcy.n_train + n, darcy.subsample)
        found = DarcyData(both.a[-n:], both.u[-n:], both.source)
    if found.size != darcy.size:
        raise UsageError(
            f"{found.source} has {(found.size - 1) * darcy.subsample + 1} nodes along a side: expected the"
            f" resolution {darcy.resolution}"
        )
    return found


def make(config: SamplesConfig, progress: Any = None, log: Callable[[str], None] | None = None) -> None:
    """Generate what is missing."""
    if config.data is None:
        generate(config.darcy, dataset_folder(config.darcy, config.data_dir), progress=progress, log=log)


@dataclass(frozen=True, eq=False)
class Samples:
    """Both splits at one resolution, with the normalisation of the training samples.

    Args:
        name: of the data set and its resolution. train, test: the samples.
    """

    name: str
    train: DarcyData
    test: DarcyData

    @classmethod
    def load(cls, config: SamplesConfig, progress: Any = None, log: Callable[[str], None] | None = None) -> Samples:
        """Generate or read both splits."""
        make(config, progress, log)
        return cls(config.name, read_split(config, "train"), read_split(config, "test"))

    @cached_property
    def normalisers(self) -> tuple[PointwiseNormaliser, PointwiseNormaliser]:
        """Of a and of u."""
        return PointwiseNormaliser.fit(self.train.a), PointwiseNormaliser.fit(self.train.u)

    @property
    def minimum(self) -> DarcyData:
        """The first training samples, at most `MINIMUM_SAMPLES`: the same for every model and seed."""
        n = MINIMUM_SAMPLES
        return DarcyData(self.train.a[:n], self.train.u[:n], self.train.source)

    @cached_property
    def described(self) -> SamplesRow:
        """For the record: numbers of samples, and hashes of them."""
        size = self.train.size
        return SamplesRow(
            name=self.name,
            title=f"Darcy flow, {size} x {size}",
            size=size,
            n_train=len(self.train),
            n_test=len(self.test),
            n_minimum=len(self.minimum),
            train_hash=samples_hash(self.train),
            test_hash=samples_hash(self.test),
            minimum_hash=samples_hash(self.minimum),
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """For the record: what pictures show, and means and deviations of a and of u, (4, s, s)."""
        of_a, of_u = self.normalisers
        stacked = np.stack([of_a.mean, of_a.std, of_u.mean, of_u.std])
        return {"a": self.test.a[:SHOWN], "u": self.test.u[:SHOWN], "normaliser": stacked}


def samples_hash(data: DarcyData) -> str:
    """Sixteen hexadecimal digits of a and u, in their order."""
    return arrays_hash(data.a, data.u)


@dataclass(frozen=True)
class FnoJob(TrainingJob[FNOConfig, SamplesConfig]):
    """One training of a neural operator."""

    @property
    def trait(self) -> str:
        return RESIDUAL if self.network.residual else ""

    @property
    def group(self) -> str:
        """What the seeds of one kind of network have in common: ``kan-spline-params-residual``."""
        return super().group + (f"-{RESIDUAL}" if self.network.residual else "")

    def same(self) -> FnoJob:
        # files count by the samples that are trained on
        return replace(self, data=replace(self.data, data=None, test_data=None))

    def sizes(self) -> dict[str, Any]:
        """Parameters, those of lift and projection among them, and forward FLOPs of these per sample, or None."""
        with torch.device("meta"):
            network = self.family[0].build(self.network)
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        ends = sum(size for name, size in sizes.items() if name.startswith(("lift.", "projection.")))
        return {
            "parameters": sum(sizes.values()), "ends_parameters": ends, "ends_flops": mixing_size(self.network, "flops")
        }  # fmt: skip


def jobs(config: FnoRunConfig) -> list[FnoJob]:
    """One job per variant and seed, a variant's seeds in a row. Raises UsageError for whatever is wrong."""
    how, networks = config.operator, map(config.network, config.choice.variants)
    return FnoJob.of(how, how.model, how.samples, networks, config.choice.match)
