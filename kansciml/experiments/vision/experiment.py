"""Train image classifiers with MLPs and with KANs, on equal terms: mixers, ConvMixers, DeiT.

Command: ``kansciml vision --model mixer --variant kan-spline --dataset cifar10``; without flags, an MLP-Mixer and its
spline form on scikit-learn's digits. Sources of the recipes of preset ``paper``: Table 1 and Figure 3 of Pal & Das
(2024) name none; those of the models they build on are used, see `recipe`.
"""

from __future__ import annotations

from typing import Any

from kansciml._errors import UsageError
from kansciml.experiments.vision.config import FIRST_LOOK, FIRST_LOOK_MODEL, VisionRunConfig
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.report import render, summary
from kansciml.experiments.vision.runs import run_jobs
from kansciml.experiments.vision.scores import SCORING
from kansciml.experiments.vision.trained import trained_networks
from kansciml.runs import ranks
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import seed_range
from kansciml.tasks.vision.registry import get_dataset


def jobs(config: VisionRunConfig) -> list[VisionJob]:
    """One job per variant and seed, a variant's seeds in a row. Raises UsageError for whatever is wrong."""
    return [
        VisionJob(
            model=config.network_name,
            network=config.network(variant),
            dataset=config.dataset,
            seed=seed,
            training=config.training(),
            group=variant if variant == "mlp" or config.match == "none" else f"{variant}-{config.match}",
            augmentation=config.augmentation,
            label_smoothing=config.label_smoothing,
            subset=config.subset,
            weights=config.weights,
            data_dir=config.data_dir,
        )
        for variant in config.variants
        for seed in seed_range(config)
    ]


def check(config: VisionRunConfig) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for job in {job.network: job for job in jobs(config)}.values():
        job.sizes()
    processes = ranks.size()
    if config.batch_size % processes:
        raise UsageError(
            f"got batch_size {config.batch_size} on {processes} processes: expected a multiple of {processes}"
        )
    if config.weights is not None:
        jobs(config)[0].build()
    if config.data_dir is not None:
        get_dataset(config.dataset).load(config.data_dir, "test")


def run(config: VisionRunConfig, context: RunContext) -> Result:
    return run_jobs(jobs(config), context)


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
            "warmup": 1.0, "augmentation": "paper", "label_smoothing": 0.1, "clip": None, "seeds": 3,
        }  # fmt: skip
    return {
        "epochs": 100 if dataset.startswith("cifar") else 30, "batch_size": 128, "learning_rate": 1e-3, "min_lr": 1e-6,
        "weight_decay": 5e-3 if model.startswith("conv") else 5e-5, "warmup": 5.0, "augmentation": "mixer",
        "label_smoothing": 0.1, "seeds": 5,
    }  # fmt: skip


def presets(model: str | None = None, dataset: str | None = None) -> dict[str, VisionRunConfig]:
    """``smoke`` (seconds), ``small`` (minutes on 2 cores) and ``paper`` for a model and a data set."""
    first, paper = (dataset or name for name in ("digits", "cifar10"))
    chosen = model or FIRST_LOOK_MODEL
    sizes: dict[str, Any] = {"width": 32, "depth": 2} if chosen.startswith(("mixer", "conv")) else {}
    small = {name: FIRST_LOOK[name] for name in sizes}
    if chosen.startswith("mixer"):
        small = FIRST_LOOK
    return {
        "smoke": VisionRunConfig(chosen, dataset=first, subset=320, epochs=2, batch_size=64, **sizes),
        "small": VisionRunConfig(
            chosen, dataset=first, **small,
            **({"seeds": 5} if first == "digits" else {"subset": 5000, "epochs": 5}),
        ),
        "paper": VisionRunConfig(chosen, dataset=paper, **recipe(chosen, paper)),
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="vision",
    title="Image classifiers with MLPs and with KANs on one data set",
    item="Section 4.2",
    config=VisionRunConfig,
    presets=presets(),
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained_networks,
    scoring=SCORING,
)
