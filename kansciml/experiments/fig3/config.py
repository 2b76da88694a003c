"""Settings of Figure 3, and its trainings: mixers with MLPs and KANs, their placements, sizes and batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from kansciml._errors import UsageError, check_names
from kansciml.experiments.hessian.measure import HessianSettings
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.vision.config import ClassifierConfig, VisionRunConfig
from kansciml.experiments.vision.experiment import recipe
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.models.base import VARIANTS, VisionConfig
from kansciml.models.conv_mixer import PLACEMENTS
from kansciml.models.registry import find
from kansciml.runs.config_json import excerpt, with_settings
from kansciml.runs.settings import COUNTS_IF_SET, part, seed_range

MIXERS = ("mixer", "conv-mixer")
SCALED = ("width", "token_hidden", "channel_hidden")
"""Sizes that a narrower mixer has less of, all in proportion."""
TOLERANCE = 0.1
"""Largest relative difference of two numbers of parameters that still count as equal."""
PAPER = with_settings(
    ClassifierConfig(), {**recipe("mixer-nano", "cifar10"), "dataset": "cifar10", "placement": "append", "grid": 5}
)
_Classifier: Any = excerpt(
    PAPER,
    ("placement", "seeds", "first_seed", "dataset", "data_dir", "subset", "image_size", "epochs", "batch_size",
     "learning_rate", "warmup", "augmentation", "label_smoothing", "patch", "width", "depth", "token_hidden",
     "channel_hidden", "kernel", "grid", "spline_order", "precision", "accelerator"),
)  # fmt: skip
LATER = ("image_size", "patch", "channel_hidden", "kernel")
"""Settings that runs of earlier versions did not have."""


class ClassifierSettings(_Classifier):
    """How the mixers are trained; weight decay is that of each model's own recipe."""


@dataclass(frozen=True)
class Fig3Config:
    """Settings of Figure 3; the defaults are the preset ``paper``."""

    models: tuple[str, ...] = ("mixer-nano", "conv-mixer-256-8")
    """Mixers and ConvMixers of the registry."""
    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    classifier: ClassifierSettings = part(ClassifierSettings(), later=LATER)
    placements: tuple[str, ...] = field(default=(), metadata=COUNTS_IF_SET)
    """Further placements of the ConvMixers' KANs beside `placement`, with batches of `batch_size` alone."""
    narrow: bool = field(default=False, metadata=COUNTS_IF_SET)
    """Train KANs with the MLPs' number of parameters too: all widths are smaller, in proportion."""
    large_batch: int | None = field(default=None, metadata=COUNTS_IF_SET)
    """Train all but the further placements with batches of this size too (section 2.2); the learning rate grows with
    the square root of the size."""
    large_epochs: int | None = field(default=None, metadata=COUNTS_IF_SET)
    """Epochs with large batches (default: as many)."""
    spectra: HessianSettings = HessianSettings(steps=80, probes=5, samples=512)
    """Of the spectra."""

    def __post_init__(self) -> None:
        check_names("model", self.models)
        check_names("variant", self.variants, VARIANTS)
        if self.placements:
            check_names("placement", (self.classifier.placement, *self.placements), PLACEMENTS)
        for model in self.models:
            if find(model)[0].name not in MIXERS:
                raise UsageError(f"got model {model}: expected mixers, such as mixer-nano or conv-mixer-256-8")
        for name, least in (("large_batch", self.classifier.batch_size + 1), ("large_epochs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"got {name} {value}: expected at least {least}")

    def runs(self) -> list[VisionRunConfig]:
        """The settings of each kind of model, without placements, narrower ones and large batches."""
        return [
            VisionRunConfig(model, VariantChoice(one), classifier=self.classifier_of(model))
            for model in self.models
            for one in self.variants
        ]

    def classifier_of(self, model: str, large: bool = False) -> ClassifierConfig:
        """How a model is trained."""
        settings, convolves = self.classifier, find(model)[0].name != "mixer"
        own: dict[str, Any] = {"weight_decay": recipe(model, settings.dataset)["weight_decay"]}
        own |= {"token_hidden": None, "channel_hidden": None} if convolves else {"placement": None, "kernel": None}
        if large and self.large_batch is not None:
            rate = settings.learning_rate * math.sqrt(self.large_batch / settings.batch_size)
            own |= {
                "batch_size": self.large_batch,
                "epochs": self.large_epochs or settings.epochs,
                "learning_rate": rate,
            }
        return with_settings(settings.whole(), own)


@dataclass(frozen=True)
class MixerJob(VisionJob):
    """One training of Figure 3; `batches`: the run has several sizes of them, which are tasks of their own.

    `kind`: ``params`` of a narrower KAN, or a further placement.
    """

    batches: bool = field(default=False, metadata=COUNTS_IF_SET)

    @property
    def task(self) -> str:
        return super().task + (f"-batch{self.training.batch_size}" if self.batches else "")

    @property
    def trait(self) -> str:
        return self.kind if self.kind in PLACEMENTS else super().trait


def jobs(config: Fig3Config) -> list[MixerJob]:
    """One job per model, size of batches, kind and seed.

    Raises:
        UsageError: sizes that do not fit, or no narrower KAN of about the MLP's number of parameters.
    """
    found = []
    for model in config.models:
        for large in (False, True) if config.large_batch is not None else (False,):
            how = config.classifier_of(model, large)
            for kind, network in _networks(config, model, how, large):
                found += [
                    MixerJob(
                        model, network, how.images, seed, how.training, kind, batches=config.large_batch is not None
                    )
                    for seed in seed_range(how)
                ]
    return found


def _networks(config: Fig3Config, model: str, how: ClassifierConfig, large: bool) -> list[tuple[str, VisionConfig]]:
    """Kinds of networks of a model, and their configurations."""
    found = []
    for variant in config.variants:
        whole = VisionRunConfig(model, VariantChoice(variant), classifier=how).network(variant)
        found.append(("", whole))
        if variant == "mlp":
            continue
        if config.narrow:
            mlp = VisionRunConfig(model, VariantChoice("mlp"), classifier=how).network("mlp")
            found.append(("params", narrowed(model, whole, find(model)[0].count(mlp).active)))
        if not large and find(model)[0].name == "conv-mixer" and variant == "kan-spline":
            elsewhere = [with_settings(how, {"placement": one}) for one in config.placements]
            found += [(one.sizes.placement or "", one.network(model, variant)) for one in elsewhere]
    return found


def narrowed(model: str, network: VisionConfig, parameters: int) -> VisionConfig:
    """The network with all widths smaller, in proportion, so that it has nearest to so many parameters.

    Raises:
        UsageError: none comes within 10 %.
    """
    family, sizes = find(model)[0], {name: getattr(network, name, None) for name in SCALED}
    best, off = network, math.inf
    for width in range(1, network.width + 1):
        share = width / network.width
        smaller = {name: max(1, round(share * size)) for name, size in sizes.items() if size is not None}
        one = replace(network, **smaller)
        difference = abs(family.count(one).active / parameters - 1)
        if difference < off:
            best, off = one, difference
    if off > TOLERANCE:
        raise UsageError(
            f"no width gives {model} with {network.variant} about {parameters} parameters ({100 * off:.0f} % off at"
            " best): choose larger models, or leave narrow out"
        )
    return best
