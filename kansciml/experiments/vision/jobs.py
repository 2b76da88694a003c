"""One training of an image classifier, and the images it is trained on. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kansciml._errors import UsageError
from kansciml.analysis.matching import mixing_size
from kansciml.experiments.minibatch.jobs import TrainingJob, arrays_hash
from kansciml.experiments.vision.config import ImagesConfig, VisionRunConfig
from kansciml.experiments.vision.record import ImagesRow
from kansciml.models.base import VisionConfig
from kansciml.tasks.vision.batches import balanced_subset
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.registry import get_dataset

MINIMUM_IMAGES = 512
"""Training images on which the loss at the minimum is taken, for Hessians."""


@dataclass(frozen=True)
class VisionJob(TrainingJob[VisionConfig, ImagesConfig]):
    """One training of an image classifier; `weights`: file of pretrained weights to start from (DeiT alone)."""

    weights: Path | None = None

    @property
    def trait(self) -> str:
        return "fair" if self.network.fair else ""

    def build(self, log: Callable[[str], None] | None = None) -> nn.Module:
        """As elsewhere. UsageError also for pretrained weights of another architecture."""
        network = super().build()
        if self.weights is not None:
            from kansciml.models.deit import Deit
            from kansciml.models.deit_weights import load_deit_weights

            if not isinstance(network, Deit):
                raise UsageError(f"got weights {self.weights} for {self.model}: expected a deit model with them")
            found = load_deit_weights(network, self.weights)
            if log is not None:
                log(f"{self.weights}: {found.text()}")
        return network

    def sizes(self) -> dict[str, Any]:
        """Parameters, what the paper prints for them, and operations of the MLPs or KANs; None where not known."""
        model, preset = self.family
        try:
            parameters = model.count(self.network).active
        except ValueError as error:  # a layer's refusal
            raise error if isinstance(error, UsageError) else UsageError(f"{self.model}: {error}") from None
        published = self.network == model.config(preset, self.network.variant)
        return {
            "parameters": parameters,
            "printed": model.printed.get((preset, self.network.variant)) if published else None,
            "dead": self.network.dead_parameters() if published else None,
            "mixing_flops": mixing_size(self.network, "flops"),
        }


def jobs(config: VisionRunConfig) -> list[VisionJob]:
    """One job per variant and seed, a variant's seeds in a row. Raises UsageError for whatever is wrong."""
    how, networks = config.classifier, map(config.network, config.choice.variants)
    return VisionJob.of(how, config.network_name, how.images, networks, config.choice.match, weights=config.weights)


@dataclass(frozen=True, eq=False)
class VisionData:
    """Images of a data set as a job uses them."""

    dataset: Dataset
    train: Images
    test: Images

    @classmethod
    def load(
        cls, name: str, data_dir: Path | None = None, subset: int | None = None, progress: Any = None
    ) -> VisionData:
        """Read both splits, `subset` images of the training split."""
        dataset = get_dataset(name)
        train, test = (dataset.load(data_dir, split, progress) for split in ("train", "test"))
        return cls(dataset, train if subset is None else _subset(train, subset), test)

    @cached_property
    def minimum(self) -> Images:
        """At most `MINIMUM_IMAGES` training images, as many of every class: the same ones for every model and seed."""
        classes, counts = np.unique(self.train.labels, return_counts=True)
        return _subset(self.train, min(MINIMUM_IMAGES, int(counts.min()) * len(classes)))

    @cached_property
    def described(self) -> ImagesRow:
        """For the record: names, numbers, and hashes of pixels and labels."""
        return ImagesRow(
            name=self.dataset.name,
            title=self.dataset.title,
            citation=self.dataset.citation,
            classes=tuple(self.dataset.class_names),
            n_train=len(self.train),
            n_test=len(self.test),
            n_minimum=len(self.minimum),
            train_hash=images_hash(self.train),
            test_hash=images_hash(self.test),
            minimum_hash=images_hash(self.minimum),
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """For the record: none."""
        return {}


def images_hash(data: Images) -> str:
    """Sixteen hexadecimal digits of pixels and labels, in their order."""
    return arrays_hash(data.images, data.labels)


def _subset(data: Images, size: int) -> Images:
    rows = balanced_subset(data.labels, size, seed=0)
    return Images(data.images[rows], data.labels[rows])
