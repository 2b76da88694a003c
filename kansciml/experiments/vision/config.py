"""Settings of a training of image classifiers, checked where they are made, and the networks they describe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.analysis.matching import MEASURES, matched
from kansciml.models.base import VARIANTS, VisionConfig
from kansciml.models.registry import available_families, find, get_family
from kansciml.runs.settings import COUNTS_IF_SET
from kansciml.tasks.vision.augment import preset as augmentation_preset
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.loop import TrainConfig

SETS = {"both": ("mlp", "kan-spline"), "all": VARIANTS}
SIZES = (
    "patch", "width", "depth", "token_hidden", "channel_hidden", "heads", "kernel", "placement", "kan_hidden",
    "drop_path",
)  # fmt: skip
"""Fields that are passed on to the model where they are given."""
KAN_SIZES = ("grid", "spline_order", "grid_range")
FIRST_LOOK_MODEL = "mixer-nano"
FIRST_LOOK = {"width": 64, "depth": 4, "token_hidden": 128}
"""Its sizes where no model is named: MLP and KAN are trained on digits within a minute, on two cores."""


@dataclass(frozen=True)
class VisionRunConfig:
    """Settings of `kansciml vision`."""

    model: str = ""
    """mixer-nano, mixer-nano-c512, conv-mixer-256-8, conv-mixer-128-4, deit-tiny, deit-small or deit-base; a family's
    name (mixer) means its first (default: a mixer of width 64 and depth 4, for a first look)."""
    variant: str = "both"
    """mlp, kan-spline, kan-rswaf, both (mlp and kan-spline), or all."""
    dataset: str = "digits"
    """digits, mnist, cifar10 or cifar100."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder with the unpacked official files (default: that in KANSCIML_DATA, else the cache, else a download)."""
    subset: int | None = None
    """Train on so many images, the same number of every class (default: all)."""
    seeds: int = 1
    """Number of seeds, one after the other."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 128
    """Images in one step of all devices together."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    min_lr: float = 0.0
    """Learning rate at the end."""
    schedule: str = "cosine"
    """cosine, constant or onecycle."""
    warmup: float = 1.0
    """Epochs in which the learning rate rises."""
    weight_decay: float = 0.05
    """Of AdamW, on weights alone."""
    clip: float | None = 1.0
    """Largest norm of the gradient."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, in training."""
    augmentation: str = "light"
    """none, light (crop, flip), mixer (light, colour, erasing, CutMix) or paper (3-Augment, mixup, CutMix)."""
    ema: float | None = None
    """Decay of an average of the weights that is evaluated and kept instead of the last ones, such as 0.999."""
    weights: Path | None = None
    """Pretrained weights of a DeiT to start from (.safetensors or .pth)."""
    image_size: int | None = None
    """Height and width that images are scaled to (default: their own)."""
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
    kan_hidden: tuple[int, ...] | None = None
    """Hidden width of each kind of KAN."""
    grid: int | None = None
    """Grid intervals of splines (default 5), or points of RSWAF (8)."""
    spline_order: int = 3
    """Order of the splines."""
    grid_range: tuple[float, float] | None = None
    """Interval that the grid covers (default: the layer's)."""
    match: str = "none"
    """Hidden widths of the KANs: none (as published), or params or flops, for as many of them as the MLPs have."""
    fair: bool = False
    """Give KANs the biases and the drop-path that the MLPs have."""
    precision: str = "32"
    """32, bf16-mixed or 64."""
    compile: bool = False
    """Run through torch.compile."""
    channels_last: bool = False
    """Channels-last layout of images and convolutions."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps; several devices: torchrun --nproc-per-node 4 -m kansciml vision ..."""
    tensorboard: bool = field(default=False, compare=False)
    """Write TensorBoard events too."""

    def __post_init__(self) -> None:
        if self.model in available_families():
            family = get_family(self.model)
            object.__setattr__(self, "model", f"{self.model}-{next(iter(family.presets))}")
        find(self.network_name)
        dataset = get_dataset(self.dataset)
        augmentation_preset(self.augmentation, dataset)
        if self.variant not in (*VARIANTS, *SETS):
            raise unknown_name("variant", self.variant, (*VARIANTS, *SETS))
        if self.match not in ("none", *MEASURES):
            raise unknown_name("match", self.match, ("none", *MEASURES))
        if self.match != "none" and self.variant == "mlp":
            raise UsageError(f"got match {self.match} with variant mlp: expected a KAN variant, which is matched to it")
        if self.seeds < 1:
            raise UsageError(f"got seeds {self.seeds}: expected at least 1")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"got label_smoothing {self.label_smoothing}: expected a number from 0 to below 1")
        images = dataset.n_train if self.subset is None else self.subset
        if self.subset is not None and not dataset.classes <= self.subset <= dataset.n_train:
            raise UsageError(f"got subset {self.subset}: expected {dataset.classes} to {dataset.n_train} images")
        if self.batch_size > images:
            raise UsageError(f"got batch_size {self.batch_size}: expected at most the {images} training images")
        self.training()

    @property
    def network_name(self) -> str:
        """Name in the registry of models."""
        return self.model or FIRST_LOOK_MODEL

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants to train, the MLP first."""
        return SETS.get(self.variant, (self.variant,))

    def training(self) -> TrainConfig:
        """Settings of the loop.

        Raises:
            UsageError: a value out of range.
        """
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup,
            schedule=self.schedule,
            min_lr=self.min_lr,
            clip_norm=self.clip,
            ema_decay=self.ema,
            precision=self.precision,
            compile=self.compile,
            channels_last=self.channels_last,
            accelerator=self.accelerator,
            tensorboard=self.tensorboard,
            monitor="top1",
            monitor_mode="max",
            checkpoint_epochs=max(1, self.epochs // 10),  # and every ten minutes, and when interrupted
        )

    def network(self, variant: str) -> VisionConfig:
        """Configuration of the network.

        Raises:
            UsageError: sizes that do not fit, or that this model does not have.
        """
        model, preset = find(self.network_name)
        dataset = get_dataset(self.dataset)
        options: dict[str, Any] = {} if self.model else dict(FIRST_LOOK)
        options |= {name: getattr(self, name) for name in SIZES if getattr(self, name) is not None}
        if variant != "mlp":
            options |= {name: getattr(self, name) for name in KAN_SIZES}
            options["fair"] = self.fair
        size = self.image_size or dataset.size
        data = {"image_size": size, "channels": dataset.channels, "classes": dataset.classes}
        config = model.config(preset, variant, **data, **options)
        return config if variant == "mlp" or self.match == "none" else matched(config, self.match)
