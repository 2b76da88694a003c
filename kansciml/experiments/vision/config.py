"""Settings of a training of image classifiers, checked where they are made, and the networks they describe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError
from kansciml.experiments.minibatch.config import MinibatchConfig, VariantChoice
from kansciml.models.base import VisionConfig
from kansciml.models.registry import available_families, find, get_family
from kansciml.runs.settings import part
from kansciml.tasks.vision.augment import preset as augmentation_preset
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.loop import TrainConfig

FIRST_LOOK_MODEL = "mixer-nano"
FIRST_LOOK = {"width": 64, "depth": 4, "token_hidden": 128}
"""Its sizes where no model is named: MLP and KAN are trained on digits within a minute, on two cores."""


@dataclass(frozen=True)
class ImagesConfig:
    """The images of a training, and how they are presented."""

    dataset: str = "digits"
    """digits, mnist, cifar10 or cifar100."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder with the unpacked official files (default: that in KANSCIML_DATA, else the cache, else a download)."""
    subset: int | None = None
    """Train on so many images, the same number of every class (default: all)."""
    image_size: int | None = None
    """Height and width that images are scaled to (default: their own)."""
    augmentation: str = "light"
    """none, light (crop, flip), mixer (light, colour, erasing, CutMix) or paper (3-Augment, mixup, CutMix)."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in training."""

    def __post_init__(self) -> None:
        dataset = get_dataset(self.dataset)
        augmentation_preset(self.augmentation, dataset)
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"got label_smoothing {self.label_smoothing}: expected a number from 0 to below 1")
        if self.subset is not None and not dataset.classes <= self.subset <= dataset.n_train:
            raise UsageError(f"got subset {self.subset}: expected {dataset.classes} to {dataset.n_train} images")

    @property
    def name(self) -> str:
        """That of the data set."""
        return self.dataset

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return self.subset or get_dataset(self.dataset).n_train


@dataclass(frozen=True)
class ClassifierSizes:
    """Sizes and options of image classifiers; those that are not given are the model's."""

    patch: int | None = None
    """Height and width of a patch."""
    width: int | None = None
    """Features per patch."""
    depth: int | None = None
    """Number of blocks."""
    token_hidden: int | None = None
    """Hidden width over patches, of mixers."""
    channel_hidden: int | None = None
    """Hidden width over features, of mixers."""
    heads: int | None = None
    """Heads of the attention, of DeiT."""
    kernel: int | None = None
    """Size of the depthwise convolutions, of ConvMixers."""
    drop_path: float | None = None
    """Largest rate of stochastic depth."""
    placement: str | None = None
    """KANs of ConvMixers: append (after the 1x1 convolutions), replace, or head."""


@dataclass(frozen=True)
class ClassifierConfig(MinibatchConfig):
    """How image classifiers are trained, whichever they are."""

    training: TrainConfig = part(TrainConfig(epochs=20, warmup=1.0))
    images: ImagesConfig = part(ImagesConfig())
    sizes: ClassifierSizes = part(ClassifierSizes())

    def __post_init__(self) -> None:
        self.check_batch(self.images.n_train, "images")

    def network(self, model: str, variant: str, match: str = "none", **options: Any) -> VisionConfig:
        """Configuration of a network for the images, with further `options`.

        Raises:
            UsageError: sizes that do not fit, or that this model does not have, or cannot be matched.
        """
        dataset = get_dataset(self.images.dataset)
        size = dataset.size if self.images.image_size is None else self.images.image_size
        data = {"image_size": size, "channels": dataset.channels, "classes": dataset.classes}
        sizes = {name: value for name, value in vars(self.sizes).items() if value is not None}
        return self.build_config(model, "vision", variant, match, {**data, **options, **sizes})


@dataclass(frozen=True)
class VisionRunConfig:
    """Settings of `kansciml vision`."""

    model: str = ""
    """mixer-nano, mixer-nano-c512, conv-mixer-256-8, conv-mixer-128-4, deit-tiny, deit-small or deit-base; a family's
    name (mixer) means its first (default: a mixer of width 64 and depth 4, for a first look)."""
    choice: VariantChoice = part(VariantChoice())
    fair: bool = False
    """Give KANs the biases and the drop-path that the MLPs have."""
    weights: Path | None = None
    """Pretrained weights of a DeiT to start from (.safetensors or .pth)."""
    classifier: ClassifierConfig = part(ClassifierConfig())

    def __post_init__(self) -> None:
        if self.model in available_families():
            family = get_family(self.model)
            object.__setattr__(self, "model", f"{self.model}-{next(iter(family.presets))}")
        find(self.network_name)

    @property
    def network_name(self) -> str:
        """Name in the registry of models."""
        return self.model or FIRST_LOOK_MODEL

    def network(self, variant: str) -> VisionConfig:
        """Configuration of the network. Raises UsageError: sizes that do not fit, or that this model does not have."""
        options = ({} if self.model else FIRST_LOOK) | ({} if variant == "mlp" else {"fair": self.fair})
        return self.classifier.network(self.network_name, variant, self.choice.match, **options)
