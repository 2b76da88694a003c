"""Figure 3: mixers of images with MLPs and with splines: accuracy, parameters, and Hessian spectra where they end.

Command: ``kansciml run fig3 --preset small``.
Paper: "KAN variants converge to sharp minima (large number of positive eigenvalues) [while] MLP variants converge to
smooth minima. Additionally KANs use significantly large number of parameters compared to MLP while attaining a lower
final accuracy". It gives no sizes, and no numbers but pictures: models and recipes are those of the sources it points
to (`kansciml.models.mixer`, `kansciml.models.conv_mixer`, `kansciml.experiments.vision.experiment.recipe`).
Expected, exactly: MLP-Mixer 673,418 parameters with MLPs, 6,565,514 with splines; ConvMixer 594,186, and 5,837,066
(splines appended) or 5,310,730 (in place of the 1x1 convolutions). Published for MLPs: mixer 90.8 %, ConvMixer 94 %.
Each spectrum is that of the mean cross-entropy over the same training images for all models, without augmentation or
smoothing, in the precision of the training; errors are those of the probes and of the seeds. ``kansciml hessian`` on
the run's folder measures the same models with other settings.
Cost: ``smoke`` 15 s on one core; ``small`` (2000 images of CIFAR-10, narrower models) 50 minutes, of which the
spectra take more than half; ``paper`` is for a GPU, where the spectra are measured too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.experiments.fig3.findings import findings
from kansciml.experiments.fig3.report import render, summary
from kansciml.experiments.hessian.measure import HessianSettings, measure
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.experiment import recipe
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.scores import SCORING
from kansciml.experiments.vision.trained import trained_networks
from kansciml.models.base import VARIANTS
from kansciml.models.registry import find
from kansciml.runs import ranks
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.runs.records import Record
from kansciml.runs.registry import trained_models
from kansciml.runs.settings import COUNTS_IF_SET, settings_json
from kansciml.runs.trained import LoadedModel, TrainedModel

NAME = "fig3"
MIXERS = ("mixer", "conv-mixer")


@dataclass(frozen=True)
class Fig3Config:
    """Settings of Figure 3; the defaults are the preset ``paper``."""

    models: tuple[str, ...] = ("mixer-nano", "conv-mixer-256-8")
    """Mixers and ConvMixers of the registry."""
    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    placement: str = "append"
    """KANs of ConvMixers: append (after the 1x1 convolutions), replace, or head."""
    seeds: int = 5
    """Number of seeds, one after the other. Fewer than 4 decide nothing."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    dataset: str = "cifar10"
    """digits, mnist, cifar10 or cifar100."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder with the unpacked official files (default: that in KANSCIML_DATA, else the cache, else a download)."""
    subset: int | None = None
    """Train on so many images, the same number of every class (default: all)."""
    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    warmup: float = 5.0
    """Epochs in which the learning rate rises."""
    augmentation: str = "mixer"
    """none, light (crop, flip), mixer (light, colour, erasing, CutMix) or paper (3-Augment, mixup, CutMix)."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes, in training."""
    width: int | None = None
    """Features per patch (default: the model's)."""
    depth: int | None = None
    """Number of blocks (default: the model's)."""
    token_hidden: int | None = None
    """Hidden width over patches, of mixers (default: the model's)."""
    grid: int = 5
    """Grid intervals of splines."""
    spline_order: int = 3
    """Order of the splines."""
    precision: str = "32"
    """32, bf16-mixed or 64; spectra are measured in 64 there, else in 32."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""
    spectra: HessianSettings = HessianSettings(steps=80, probes=5, samples=512)
    """Of the spectra."""

    def __post_init__(self) -> None:
        for name, given in (("models", self.models), ("variants", self.variants)):
            if not given or len(set(given)) < len(given):
                raise UsageError(f"got {name} {given}: expected one or more different names")
        for variant in self.variants:
            if variant not in VARIANTS:
                raise unknown_name("variant", variant, VARIANTS)
        for model in self.models:
            if find(model)[0].name not in MIXERS:
                raise UsageError(f"got model {model}: expected mixers, such as mixer-nano or conv-mixer-256-8")

    def classifier(self, model: str, variant: str) -> VisionRunConfig:
        """The settings of one kind of model, for `kansciml.experiments.vision.experiment.jobs`."""
        same = (
            "seeds", "first_seed", "dataset", "data_dir", "subset", "epochs", "batch_size", "learning_rate", "warmup",
            "augmentation", "label_smoothing", "width", "depth", "grid", "spline_order", "precision", "accelerator",
        )  # fmt: skip
        options: dict[str, Any] = {name: getattr(self, name) for name in same}
        options |= {name: recipe(model, self.dataset)[name] for name in ("weight_decay", "min_lr")}
        if find(model)[0].name == "conv-mixer":
            options["placement"] = self.placement
        else:
            options["token_hidden"] = self.token_hidden
        return with_settings(VisionRunConfig(model), {"variant": variant, **options})


def jobs(config: Fig3Config) -> list[VisionJob]:
    """One job per model, variant and seed."""
    pairs = [(model, variant) for model in config.models for variant in config.variants]
    return [job for pair in pairs for job in vision_jobs(config.classifier(*pair))]


def check(config: Fig3Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for model in config.models:
        for variant in config.variants:
            check_vision(config.classifier(model, variant))


def run(config: Fig3Config, context: RunContext) -> Result:
    result = ImageTrainer(context).run(jobs(config)).result
    own = ranks.agree(result.result)
    record = Record(context.folder, NAME, settings_json(config), context.folder.name, "finished", result=own)
    measured = measure(
        trained_models(record), config.spectra, context, context.checkpoints / "spectra", record.config_hash
    )
    spectra = measured.to_result()
    return Result(own | spectra.result, result.arrays | spectra.arrays)


def trained(record: Record) -> list[TrainedModel]:
    """The networks of a run, for `kansciml hessian`; on the GPU where they were trained on one."""
    return [_on(device_of(record.config["accelerator"]), model) for model in trained_networks(record)]


def _on(device: Any, model: TrainedModel) -> TrainedModel:
    def load() -> LoadedModel:
        loaded = model.load()
        return replace(loaded, module=loaded.module.to(device))  # batches follow their module

    return replace(model, load=load) if device.type == "cuda" else model


EXPERIMENT = Experiment(
    name=NAME,
    title="Mixers of images with MLPs and splines: accuracy, parameters, and spectra of their minima",
    item="Figure 3",
    config=Fig3Config,
    presets={
        "smoke": Fig3Config(
            models=("mixer-nano", "conv-mixer-128-4"),
            seeds=1,
            dataset="digits",
            subset=320,
            epochs=3,
            batch_size=64,
            warmup=1.0,
            augmentation="light",
            label_smoothing=0.0,
            width=16,
            depth=1,
            token_hidden=16,
            spectra=HessianSettings(steps=30, probes=3, deflate=3, samples=64),
        ),
        "small": Fig3Config(
            models=("mixer-nano", "conv-mixer-128-4"),
            seeds=4,
            subset=2000,
            epochs=12,
            warmup=1.0,
            augmentation="light",
            label_smoothing=0.0,
            width=64,
            depth=2,
            token_hidden=64,
            spectra=HessianSettings(steps=30, probes=2, deflate=5, samples=128),
        ),
        "paper": Fig3Config(),
    },
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained,
    scoring=SCORING,
    findings=findings,
    order=3,
    captions={
        "figure3": "Accuracy in training, and densities of the Hessian's eigenvalues where the trainings end.",
        **CAPTIONS,
    },
)
