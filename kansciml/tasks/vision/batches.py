"""Batches of a data set that lies on the device as uint8: the same ones after a resume, split over ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from kansciml._errors import UsageError
from kansciml.tasks.vision.augment import Augmentation
from kansciml.tasks.vision.augmenter import Augmenter, Inputs, Labels, Targets
from kansciml.tasks.vision.dataset import Dataset, Images

ORDER, AUGMENT, SUBSET = 1, 2, 3
"""First word of the spawn keys of a seed, so that no two uses of it draw the same numbers."""


class Batch(NamedTuple):
    """Normalised inputs, targets (labels, or distributions over the classes where images are mixed), and labels."""

    inputs: Inputs
    targets: Targets
    labels: Labels


class Batches:
    """A split of a data set on a device, drawn in epochs.

    The order of an epoch depends on (seed, epoch) alone, and the augmentation of a batch on (seed, epoch, step, rank):
    a resumed run sees the batches it would have seen, in whatever order epochs are asked for. Every rank cuts the same
    global batch into `world_size` consecutive slices and takes its own.

    Args:
        data: the images, see `Dataset.load`.
        dataset: what they are.
        batch_size: images in a *global* batch, over all ranks.
        device: where the images are kept and the batches are made.
        seed: at least 0.
        shuffle: a new order every epoch; False: that of the files, for tests.
        drop_last: leave out the incomplete batch at the end of an epoch.
        augmentation: default: none.
        image_size: height and width of the inputs; None: those of the data set.
        rank, world_size: which slice is taken, of how many. A slice of an incomplete batch may be empty.

    Raises:
        UsageError: a value out of range.
    """

    def __init__(
        self,
        data: Images,
        dataset: Dataset,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
        image_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if seed < 0:
            raise UsageError(f"got seed {seed}: expected 0 or more")
        if not 0 <= rank < world_size:
            raise UsageError(f"got rank {rank} of world_size {world_size}: expected 0 to world_size - 1")
        if batch_size < 1 or batch_size % world_size:
            raise UsageError(
                f"got batch_size {batch_size} over {world_size} ranks: expected a positive multiple of {world_size}"
            )
        if len(data) == 0 or (drop_last and batch_size > len(data)):
            raise UsageError(
                f"got batch_size {batch_size} for {len(data)} images: an epoch would have no batch:"
                f" choose at most {len(data)}"
            )
        self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self._augmenter = Augmenter(augmentation or Augmentation(), dataset, image_size)

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 0), from `start_step` on."""
        order = self.order(epoch)
        for step in range(start_step, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            rows = batch.tensor_split(self.world_size)[self.rank].to(self.labels.device)
            labels = self.labels.index_select(0, rows)
            seed = _seed(self.seed, AUGMENT, epoch, step, self.rank)
            inputs, targets = self._augmenter(self.images.index_select(0, rows), labels, seed)
            yield Batch(inputs, targets, labels)

    def order(self, epoch: int) -> Int64[Tensor, " n"]:
        """Indices of the images in the order of an epoch, on the CPU."""
        if not self.shuffle:
            return torch.arange(len(self.labels))
        generator = torch.Generator().manual_seed(_seed(self.seed, ORDER, epoch))
        return torch.randperm(len(self.labels), generator=generator)


def balanced_subset(labels: Int64[np.ndarray, " n"], size: int, seed: int) -> Int64[np.ndarray, " {size}"]:
    """Increasing indices of `size` images drawn at random: size / classes of every class, rounded down or up.

    From one seed, a smaller subset is part of every larger one.

    Raises:
        UsageError: more images than there are, of all or of one class; fewer than one per class.
    """
    classes, counts = np.unique(labels, return_counts=True)
    share, rest = divmod(size, len(classes))
    wanted = share + (np.arange(len(classes)) < rest)
    if share < 1 or np.any(wanted > counts):
        raise UsageError(
            f"got subset {size} of {len(labels)} images in {len(classes)} classes: expected {len(classes)} to"
            f" {len(classes) * counts.min()}"
        )
    rng = np.random.default_rng(_seed(seed, SUBSET))
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, wanted)]
    return np.sort(np.concatenate(chosen))


def _seed(seed: int, *key: int) -> int:
    """A 63-bit seed from the run's seed and what it is for."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 1)
