"""Train image classifiers with MLPs and with KANs, on equal terms: mixers, ConvMixers, DeiT.

Command: ``kansciml vision --model mixer --variant kan-spline --dataset cifar10``; without flags, an MLP-Mixer and its
spline form on scikit-learn's digits. Sources of the recipes of preset ``paper``: Table 1 and Figure 3 of Pal & Das
(2024) name none; those of the models they build on are used, see `recipe`.
"""

from __future__ import annotations

from typing import Any

from kansciml.experiments.minibatch.jobs import check_jobs
from kansciml.experiments.vision.comparisons import comparisons
from kansciml.experiments.vision.config import FIRST_LOOK, FIRST_LOOK_MODEL, VisionRunConfig
from kansciml.experiments.vision.jobs import jobs
from kansciml.experiments.vision.report import render, summary
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import SCORING, trained_networks
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment
from kansciml.tasks.vision.registry import get_dataset


def check(config: VisionRunConfig) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    check_jobs(jobs(config))
    if config.weights is not None:
        jobs(config)[0].build()
    images = config.classifier.images
    if images.data_dir is not None:
        get_dataset(images.dataset).load(images.data_dir, "test")


def recipe(model: str, dataset: str) -> dict[str, Any]:
    """Settings of the sources, for preset ``paper``.

    DeiT: those of the code that the paper names for Table 1 (224 pixels, batches of 144, 300 epochs, 5e-4, weight decay
    0.05, one epoch of warm-up, 3-Augment, mixup, CutMix), label smoothing 0.1 (Touvron et al. 2021, Table 9).
    Mixers and ConvMixers (Figure 3): 100 epochs in batches of 128, 1e-3, CutMix, label smoothing 0.1, and five epochs
    of warm-up, as small CIFAR mixers are usually trained; weight decay 5e-5 for mixers, 5e-3 for ConvMixers.
    """
    if model.startswith("deit"):
        return {
            "image_size": 224, "batch_size": 144, "epochs": 300, "learning_rate": 5e-4, "weight_decay": 0.05,
            "warmup": 1.0, "augmentation": "paper", "label_smoothing": 0.1, "clip": None, "seeds": 12,
        }  # fmt: skip
    return {
        "epochs": 100 if dataset.startswith("cifar") else 30, "batch_size": 128, "learning_rate": 1e-3, "min_lr": 1e-6,
        "weight_decay": 5e-3 if model.startswith("conv") else 5e-5, "warmup": 5.0, "augmentation": "mixer",
        "label_smoothing": 0.1, "seeds": 12,
    }  # fmt: skip


def presets(model: str | None = None, dataset: str | None = None) -> dict[str, VisionRunConfig]:
    """``smoke`` (seconds), ``small`` (minutes on 2 cores) and ``paper`` for a model and a data set."""
    first, paper = (dataset or name for name in ("digits", "cifar10"))
    chosen = model or FIRST_LOOK_MODEL
    sizes: dict[str, Any] = {"width": 32, "depth": 2} if chosen.startswith(("mixer", "conv")) else {}
    small = {name: FIRST_LOOK[name] for name in sizes}
    if chosen.startswith("mixer"):
        small = FIRST_LOOK
    settings: dict[str, dict[str, Any]] = {
        "smoke": {"dataset": first, "subset": 320, "epochs": 2, "batch_size": 64, **sizes},
        "small": {"dataset": first, **({"seeds": 12} if first == "digits" else {"subset": 5000, "epochs": 5}), **small},
        "paper": {"dataset": paper, **recipe(chosen, paper)},
    }
    return {name: with_settings(VisionRunConfig(chosen), own) for name, own in settings.items()}


EXPERIMENT = Experiment(
    name="vision",
    title="Image classifiers with MLPs and with KANs on one data set",
    item="Section 4.2",
    config=VisionRunConfig,
    presets=presets(),
    costs={"small": "a minute, of the digits"},
    run=lambda config, context: ImageTrainer(context).run(jobs(config)).result,
    render=render,
    summary=summary,
    check=check,
    trained=trained_networks,
    scoring=SCORING,
    comparisons=comparisons,
)
