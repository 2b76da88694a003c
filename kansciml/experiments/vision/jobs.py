"""One training of an image classifier: which network, on which images, how. Nothing is trained here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kansciml._errors import UsageError
from kansciml.analysis.matching import mixing_flops
from kansciml.models.base import VisionConfig
from kansciml.models.registry import find
from kansciml.runs.settings import config_hash
from kansciml.tasks.vision.batches import balanced_subset
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.loop import TrainConfig

MINIMUM_IMAGES = 512
"""Training images on which the loss at the minimum is taken, for Hessians."""


NOT_SIZES = (
    "variant", "image_size", "channels", "classes", "grid", "spline_order", "grid_range", "kan_hidden", "fair",
    "placement", "drop_path",
)  # fmt: skip
"""Fields of a network's configuration that the data set or the variant sets."""


@dataclass(frozen=True)
class VisionJob:
    """One training.

    Args:
        model: name in the registry, such as ``mixer-nano``.
        network: its configuration, with the sizes of the data set.
        dataset: name of the data set.
        seed: of the first weights, the order of the images and their augmentation.
        training: settings of the loop; its seed is replaced by `seed`.
        group: what the seeds of one kind of model have in common; default: the variant.
        augmentation: preset of `kansciml.tasks.vision.augment`.
        label_smoothing: in training.
        subset: number of training images, the same ones for every seed; None: all.
        weights: file of pretrained weights to start from (DeiT alone).
        data_dir: folder of the data set; does not count in comparisons.
    """

    model: str
    network: VisionConfig
    dataset: str
    seed: int
    training: TrainConfig
    group: str = ""
    augmentation: str = "light"
    label_smoothing: float = 0.0
    subset: int | None = None
    weights: Path | None = None
    data_dir: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.network.variant)
        object.__setattr__(self, "training", replace(self.training, seed=self.seed))

    @property
    def task(self) -> str:
        """What is learned with which kind of model: groups of one task are compared."""
        return f"{self.dataset}-{self.model}"

    @property
    def id(self) -> str:
        return f"{self.task}.{self.group}.{self.seed}"

    @property
    def label(self) -> str:
        """For tables: ``KAN, splines (G=5, S=3), equal params``."""
        network = self.network
        if network.kan_layer is None:
            return "MLP"
        kind = f"splines (G={network.kan_grid}, S={network.spline_order})"
        kind = kind if network.kan_layer == "spline" else f"RSWAF (G={network.kan_grid})"
        matched = self.group.removeprefix(network.variant).strip("-")
        return f"KAN, {kind}" + (f", equal {matched}" if matched else "") + (", fair" if network.fair else "")

    @property
    def resized(self) -> dict[str, Any]:
        """Sizes in which the network differs from the model of its name."""
        model, preset = find(self.model)
        own = asdict(model.config(preset))
        values = asdict(self.network)
        return {name: values[name] for name in own if name not in NOT_SIZES and values[name] != own[name]}

    @property
    def steps(self) -> int:
        """Of all epochs together; an incomplete batch at the end of an epoch is left out."""
        images = self.subset or get_dataset(self.dataset).n_train
        return self.training.epochs * (images // self.training.batch_size)

    def identity(self, data: VisionData) -> str:
        """What a checkpoint has to agree with, besides the settings of the loop."""
        return (
            f"{self.id} {config_hash('vision', replace(self, training=TrainConfig()))} {data.described['train_hash']}"
        )

    def build(self, log: Callable[[str], None] | None = None) -> nn.Module:
        """The network with its first weights; `log` is told what became of pretrained ones.

        Raises:
            UsageError: sizes that do not fit, or pretrained weights of another architecture.
        """
        model, _ = find(self.model)
        network = model.build(self.network, torch.Generator().manual_seed(self.seed))
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
        """Parameters, what the paper prints for them, and operations of the MLPs or KANs; null where not known.

        Raises:
            UsageError: sizes that do not fit each other.
        """
        model, preset = find(self.model)
        try:
            parameters = model.count(self.network).active
        except ValueError as error:  # a layer's refusal
            raise error if isinstance(error, UsageError) else UsageError(f"{self.model}: {error}") from None
        published = self.network == model.config(preset, self.network.variant)
        return {
            "parameters": parameters,
            "printed": model.printed.get((preset, self.network.variant)) if published else None,
            "dead": self.network.dead_parameters() if published else None,
            "mixing_flops": mixing_flops(self.network),
        }


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
        """Read both splits, `subset` images of the training split.

        Raises:
            UsageError: unknown data set, files missing or damaged, a subset of too many images.
            KansciError: the download failed.
        """
        dataset = get_dataset(name)
        train, test = (dataset.load(data_dir, split, progress) for split in ("train", "test"))
        return cls(dataset, train if subset is None else _subset(train, subset), test)

    @cached_property
    def minimum(self) -> Images:
        """At most `MINIMUM_IMAGES` training images, as many of every class: the same ones for every model and seed."""
        classes, counts = np.unique(self.train.labels, return_counts=True)
        return _subset(self.train, min(MINIMUM_IMAGES, int(counts.min()) * len(classes)))

    @cached_property
    def described(self) -> dict[str, Any]:
        """For the record: names, numbers, and hashes of pixels and labels."""
        return {
            "name": self.dataset.name,
            "title": self.dataset.title,
            "citation": self.dataset.citation,
            "classes": list(self.dataset.class_names),
            "n_train": len(self.train),
            "n_test": len(self.test),
            "n_minimum": len(self.minimum),
            "train_hash": images_hash(self.train),
            "test_hash": images_hash(self.test),
            "minimum_hash": images_hash(self.minimum),
        }


def images_hash(data: Images) -> str:
    """Sixteen hexadecimal digits of pixels and labels, in their order."""
    digest = hashlib.sha256(repr(data.images.shape).encode())
    digest.update(np.ascontiguousarray(data.images))
    digest.update(np.ascontiguousarray(data.labels))
    return digest.hexdigest()[:16]


def network_values(network: VisionConfig) -> dict[str, Any]:
    """The configuration of a network as a record holds it; `network_of` reads it."""
    return asdict(network)


def network_of(model: str, values: dict[str, Any]) -> VisionConfig:
    """The configuration that `network_values` wrote.

    Raises:
        UsageError: an unknown model, or values of another version.
    """
    family, preset = find(model)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return family.config(preset, **values)


def _subset(data: Images, size: int) -> Images:
    rows = balanced_subset(data.labels, size, seed=0)
    return Images(data.images[rows], data.labels[rows])
