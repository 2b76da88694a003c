"""Samples of Darcy flow as trainings of neural operators use them: generated or from files, and normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import UsageError
from kansciml.runs import ranks
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.darcy.dataset import DarcyData, dataset_folder, generate, load
from kansciml.tasks.darcy.matfile import read_mat
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

MINIMUM_SAMPLES = 32
"""Training samples on which the loss at the minimum is taken, for Hessians."""
SHOWN = 3
"""Test samples, the first ones, whose predictions are kept for pictures."""


@dataclass(frozen=True)
class FieldsSpec:
    """Where samples come from.

    Args:
        darcy: how they are generated; of a file its resolution, subsample, and numbers of samples.
        data: released file with the training samples, or None: generated.
        test_data: released file with the test samples, or None: those that follow the training samples in `data`.
        data_dir: folder of generated data sets; does not count in comparisons.
    """

    darcy: DarcyConfig
    data: Path | None = None
    test_data: Path | None = None
    data_dir: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """``darcy43``."""
        return f"darcy{self.darcy.size}"

    def at(self, subsample: int) -> FieldsSpec:
        """The same samples on another grid."""
        return replace(self, darcy=replace(self.darcy, subsample=subsample))

    def for_tests(self) -> FieldsSpec:
        """Without training samples, where they are not needed for themselves: generated ones."""
        return self if self.data is not None else replace(self, darcy=replace(self.darcy, n_train=0))

    def split(self, name: str) -> DarcyData:
        """Samples of ``train`` or ``test``, from what is on disk.

        Raises:
            UsageError: a file that is not there, cannot be read, or has another resolution or too few samples.
            KansciError: samples that were not generated, or are damaged.
        """
        n = self.darcy.count(name)
        if self.data is None:
            return load(self.darcy, self.data_dir, name)
        if name == "train" or self.test_data is not None:
            found = read_mat(self.data if name == "train" else self.test_data, n, self.darcy.subsample)
        else:
            both = read_mat(self.data, self.darcy.n_train + n, self.darcy.subsample)
            found = DarcyData(both.a[-n:], both.u[-n:], both.source)
        if found.size != self.darcy.size:
            raise UsageError(
                f"{found.source} has {(found.size - 1) * self.darcy.subsample + 1} nodes along a side: expected the"
                f" resolution {self.darcy.resolution}"
            )
        return found

    def make(self, progress: Any = None, log: Callable[[str], None] | None = None) -> None:
        """Generate what is missing; the first process does so while the others wait."""
        if self.data is None and ranks.rank() == 0:
            generate(self.darcy, dataset_folder(self.darcy, self.data_dir), progress=progress, log=log)
        ranks.agree(None)


@dataclass(frozen=True, eq=False)
class Fields:
    """Both splits at one resolution, with the normalisation of the training samples.

    Args:
        name: of the data set and its resolution. train, test: the samples.
    """

    name: str
    train: DarcyData
    test: DarcyData

    @classmethod
    def load(cls, spec: FieldsSpec, progress: Any = None, log: Callable[[str], None] | None = None) -> Fields:
        """Generate or read both splits. All processes have to call it.

        Raises:
            UsageError, KansciError: as `FieldsSpec.split`, and `kansciml.tasks.darcy.dataset.generate`.
        """
        spec.make(progress, log)
        return cls(spec.name, spec.split("train"), spec.split("test"))

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
    def described(self) -> dict[str, Any]:
        """For the record: numbers of samples, and hashes of them."""
        size = self.train.size
        return {
            "name": self.name,
            "title": f"Darcy flow, {size} x {size}",
            "size": size,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "n_minimum": len(self.minimum),
            "train_hash": fields_hash(self.train),
            "test_hash": fields_hash(self.test),
            "minimum_hash": fields_hash(self.minimum),
        }

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """For the record: what pictures show, and means and deviations of a and of u, (4, s, s)."""
        of_a, of_u = self.normalisers
        stacked = np.stack([of_a.mean, of_a.std, of_u.mean, of_u.std])
        return {"a": self.test.a[:SHOWN], "u": self.test.u[:SHOWN], "normaliser": stacked}


def normalisers_of(stacked: np.ndarray) -> tuple[PointwiseNormaliser, PointwiseNormaliser]:
    """Those that `Fields.arrays` holds."""
    return PointwiseNormaliser(*stacked[:2]), PointwiseNormaliser(*stacked[2:])


def resampled(normaliser: PointwiseNormaliser, size: int) -> PointwiseNormaliser:
    """The same on a grid of size x size nodes: where nodes coincide equal, between them interpolated bilinearly.

    A network that was trained at one resolution takes its means and deviations to another with it.
    """
    have = normaliser.mean.shape[0] - 1
    if have % (size - 1) == 0:
        step = have // (size - 1)
        return PointwiseNormaliser(normaliser.mean[::step, ::step], normaliser.std[::step, ::step], normaliser.eps)
    place = np.linspace(0, have, size)
    low = np.minimum(place.astype(int), have - 1)
    share = place - low

    def between(values: np.ndarray) -> np.ndarray:
        rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
        return (rows[:, low] * (1 - share) + rows[:, low + 1] * share).astype(values.dtype)

    return PointwiseNormaliser(between(normaliser.mean), between(normaliser.std), normaliser.eps)


def fields_hash(data: DarcyData) -> str:
    """Sixteen hexadecimal digits of a and u, in their order."""
    digest = hashlib.sha256(repr(data.a.shape).encode())
    digest.update(np.ascontiguousarray(data.a))
    digest.update(np.ascontiguousarray(data.u))
    return digest.hexdigest()[:16]
