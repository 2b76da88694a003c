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

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kansciml._errors import UsageError, check_names
from kansciml.experiments.fig3.findings import findings
from kansciml.experiments.fig3.report import render, summary
from kansciml.experiments.hessian.measure import HessianSettings, measure
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.vision.config import ClassifierConfig, VisionRunConfig
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.experiment import recipe
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import SCORING, trained_networks
from kansciml.models.base import VARIANTS
from kansciml.models.registry import find
from kansciml.runs import ranks
from kansciml.runs.config_json import excerpt, with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.runs.records import Record
from kansciml.runs.registry import trained_models
from kansciml.runs.settings import part, settings_json
from kansciml.runs.trained import LoadedModel, TrainedModel

NAME = "fig3"
MIXERS = ("mixer", "conv-mixer")
PAPER = with_settings(
    ClassifierConfig(), {**recipe("mixer-nano", "cifar10"), "dataset": "cifar10", "placement": "append", "grid": 5}
)
_Classifier: Any = excerpt(
    PAPER,
    ("placement", "seeds", "first_seed", "dataset", "data_dir", "subset", "epochs", "batch_size", "learning_rate",
     "warmup", "augmentation", "label_smoothing", "width", "depth", "token_hidden", "grid", "spline_order", "precision",
     "accelerator"),
)  # fmt: skip


class ClassifierSettings(_Classifier):
    """How the mixers are trained; weight decay is that of each model's own recipe."""


@dataclass(frozen=True)
class Fig3Config:
    """Settings of Figure 3; the defaults are the preset ``paper``."""

    models: tuple[str, ...] = ("mixer-nano", "conv-mixer-256-8")
    """Mixers and ConvMixers of the registry."""
    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    classifier: ClassifierSettings = part(ClassifierSettings())
    spectra: HessianSettings = HessianSettings(steps=80, probes=5, samples=512)
    """Of the spectra."""

    def __post_init__(self) -> None:
        check_names("model", self.models)
        check_names("variant", self.variants, VARIANTS)
        for model in self.models:
            if find(model)[0].name not in MIXERS:
                raise UsageError(f"got model {model}: expected mixers, such as mixer-nano or conv-mixer-256-8")

    def runs(self) -> list[VisionRunConfig]:
        """The settings of each kind of model."""
        found = []
        for model in self.models:
            own: dict[str, Any] = {"placement": None} if find(model)[0].name == "mixer" else {"token_hidden": None}
            own["weight_decay"] = recipe(model, self.classifier.dataset)["weight_decay"]
            classifier = with_settings(self.classifier.whole(), own)
            found += [VisionRunConfig(model, VariantChoice(one), classifier=classifier) for one in self.variants]
        return found


def jobs(config: Fig3Config) -> list[VisionJob]:
    """One job per model, variant and seed."""
    return [job for one in config.runs() for job in vision_jobs(one)]


def check(config: Fig3Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for one in config.runs():
        check_vision(one)


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
    device, models = device_of(record.config["accelerator"]), trained_networks(record)

    def load(model: TrainedModel) -> LoadedModel:
        loaded = model.load()
        return replace(loaded, module=loaded.module.to(device))  # batches follow their module

    return [replace(one, load=partial(load, one)) for one in models] if device.type == "cuda" else models


NARROW = {
    "models": ("mixer-nano", "conv-mixer-128-4"), "warmup": 1.0, "augmentation": "light", "label_smoothing": 0.0,
    "spectra.steps": 30,
}  # fmt: skip
SMOKE = {
    **NARROW, "seeds": 1, "dataset": "digits", "subset": 320, "epochs": 3, "batch_size": 64, "width": 16, "depth": 1,
    "token_hidden": 16, "spectra.probes": 3, "spectra.deflate": 3, "spectra.samples": 64,
}  # fmt: skip
SMALL = {
    **NARROW, "seeds": 4, "subset": 2000, "epochs": 12, "width": 64, "depth": 2, "token_hidden": 64,
    "spectra.probes": 2, "spectra.deflate": 5, "spectra.samples": 128,
}  # fmt: skip

EXPERIMENT = Experiment(
    name=NAME,
    title="Mixers of images with MLPs and splines: accuracy, parameters, and spectra of their minima",
    item="Figure 3",
    config=Fig3Config,
    presets={
        "smoke": with_settings(Fig3Config(), SMOKE),
        "small": with_settings(Fig3Config(), SMALL),
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
