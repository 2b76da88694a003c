"""MNIST by an MLP-Mixer with MLPs and with splines: accuracy, parameters, and spectra where the trainings end.

Command: ``kansciml run mnist --preset small``.
Paper (footnote 3): "we don't report the MNIST results in this manuscript, however, we have similar observations to
CIFAR-10 when using MLP-Mixer": sharper minima, more parameters and a lower accuracy of the KANs. It gives no sizes and
no numbers: model and recipe are those of Figure 3, with 30 epochs (`kansciml.experiments.vision.experiment.recipe`).
Cost: ``smoke`` (scikit-learn's digits, nothing is downloaded) 20 s on one core; ``small`` (4000 images, mixers
below 10,000 parameters with all their eigenvalues, 12 seeds) twelve minutes; ``paper`` is for a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from kansciml._errors import check_names
from kansciml.experiments.hessian.measure import HessianSettings, with_spectra
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.mnist.findings import MODEL, findings
from kansciml.experiments.mnist.report import render, summary
from kansciml.experiments.vision.comparisons import comparisons
from kansciml.experiments.vision.config import ClassifierConfig, VisionRunConfig
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.experiment import recipe
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import SCORING, trained_where
from kansciml.models.base import VARIANTS
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import part

NAME = "mnist"


@dataclass(frozen=True)
class MnistConfig:
    """Settings of the mixers on MNIST; the defaults are the preset ``paper``."""

    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    classifier: ClassifierConfig = part(
        with_settings(ClassifierConfig(), {**recipe(MODEL, "mnist"), "dataset": "mnist"})
    )
    spectra: HessianSettings = HessianSettings(steps=80, probes=5, samples=512)
    """Of the spectra."""

    def __post_init__(self) -> None:
        check_names("variant", self.variants, VARIANTS)

    def runs(self) -> list[VisionRunConfig]:
        """The settings of each kind of model."""
        return [VisionRunConfig(MODEL, VariantChoice(one), classifier=self.classifier) for one in self.variants]


def jobs(config: MnistConfig) -> list[VisionJob]:
    """One job per variant and seed."""
    return [job for one in config.runs() for job in vision_jobs(one)]


def check(config: MnistConfig) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for one in config.runs():
        check_vision(one)


def run(config: MnistConfig, context: RunContext) -> Result:
    trained = ImageTrainer(context).run(jobs(config)).result
    return with_spectra(NAME, config, trained, config.spectra, context)


NARROW = {"warmup": 1.0, "augmentation": "light", "label_smoothing": 0.0, "spectra.steps": 30}
SMOKE = {
    **NARROW, "seeds": 1, "dataset": "digits", "subset": 320, "epochs": 3, "batch_size": 64, "width": 16, "depth": 1,
    "token_hidden": 16, "spectra.probes": 3, "spectra.deflate": 3, "spectra.samples": 64, "spectra.exact": "never",
}  # fmt: skip
SMALL = {
    **NARROW, "subset": 4000, "patch": 7, "width": 8, "depth": 1, "token_hidden": 6, "channel_hidden": 6,
    "augmentation": "none", "learning_rate": 5e-3, "epochs": 20, "batch_size": 50, "spectra.samples": 128,
}  # fmt: skip

EXPERIMENT = Experiment(
    name=NAME,
    title="An MLP-Mixer on MNIST with MLPs and splines: accuracy, parameters, and spectra of its minima",
    item="Footnote 3",
    config=MnistConfig,
    presets={
        "smoke": with_settings(MnistConfig(), SMOKE),
        "small": with_settings(MnistConfig(), SMALL),
        "paper": MnistConfig(),
    },
    costs={"small": "twelve minutes of one core"},
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained_where,
    scoring=SCORING,
    findings=findings,
    comparisons=comparisons,
    order=3,
    captions={"spectra": "Densities of the Hessian's eigenvalues where the trainings end.", **CAPTIONS},
)
