"""Figure 5: Darcy flow by a weight-tied neural operator, with MLPs and with KANs, with and without residual.

Command: ``kansciml run fig5 --preset small``.
Paper: "MLPs outperform KANs" without residual connections; with them "KANs do slightly better". It prints neither
sizes nor numbers; its "weight-tied FNO++" is FNO-WT of the source it cites (Marwah et al. 2023), which has no residual
connections: read as z <- z + block(z).
Expected: a relative L2 error on test samples of about 0.0055 to 0.0065 for the MLPs without residual, by the recipe of
that source (preset ``paper``: 1024 training and 500 test samples, 421 x 421 subsampled to 85 x 85, normalised point by
point, relative L2 loss, learning rate 1e-3 on a cosine, weight decay 1e-4, 500 epochs, batches of 32).
The source has 3 seeds, with which no difference is significant; here there are 12.
Cost on one core: ``smoke`` 7 s; ``small`` (29 x 29, 1024 samples, width 16, 2 iterations, 16 epochs) 2 minutes each of
48 trainings, 2 for the samples: 1.5 hours; ``paper`` is for a GPU. As the
paper prints no sizes, a run smaller than the source's decides too, where MLPs without residual have errors below 0.02.
"""

from __future__ import annotations

from dataclasses import dataclass

from kansciml._errors import check_name, check_names
from kansciml.experiments.fig5.findings import findings
from kansciml.experiments.fno.comparisons import comparisons
from kansciml.experiments.fno.config import FnoRunConfig, OperatorConfig
from kansciml.experiments.fno.experiment import PAPER, SMOKE
from kansciml.experiments.fno.jobs import FnoJob
from kansciml.experiments.fno.jobs import jobs as fno_jobs
from kansciml.experiments.fno.report import curves_by_residual, render, summary, unshown
from kansciml.experiments.fno.runs import OperatorTrainer
from kansciml.experiments.fno.trained import SCORING, trained_networks
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.minibatch.jobs import check_jobs
from kansciml.models.base import VARIANTS
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment
from kansciml.runs.settings import part

RESIDUAL = {"without": (False,), "with": (True,), "both": (False, True)}


@dataclass(frozen=True)
class Fig5Config:
    """Settings of Figure 5: variants of one neural operator; the defaults are the preset ``paper``."""

    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    residual: str = "both"
    """without, with, or both."""
    operator: OperatorConfig = part(
        with_settings(OperatorConfig(), {"seeds": 12, **PAPER}),
        later=("grid_range", "blocks", "min_lr", "schedule", "warmup", "clip", "compile"),
    )

    def __post_init__(self) -> None:
        check_names("variant", self.variants, VARIANTS)
        check_name("residual", self.residual, RESIDUAL)


def jobs(config: Fig5Config) -> list[FnoJob]:
    """One job per kind of network and seed."""
    return [
        job
        for residual in RESIDUAL[config.residual]
        for variant in config.variants
        for job in fno_jobs(FnoRunConfig(VariantChoice(variant), residual, config.operator))
    ]


SMALL = {
    "seeds": 12, "subsample": 15, "n_train": 1024, "n_test": 128, "epochs": 16, "batch_size": 8, "learning_rate": 4e-3,
    "width": 16, "modes": (8, 8), "iterations": 2, "eval_subsamples": (5,),
}  # fmt: skip

EXPERIMENT = Experiment(
    name="fig5",
    title="Darcy flow by a weight-tied neural operator with MLPs and with KANs, with and without residual connections",
    item="Figure 5",
    config=Fig5Config,
    presets={
        "smoke": with_settings(Fig5Config(), {"seeds": 1, "eval_subsamples": (10,), **SMOKE}),
        "small": with_settings(Fig5Config(), SMALL),
        "paper": Fig5Config(),
    },
    costs={"small": "an hour and a half of one core"},
    run=lambda config, context: OperatorTrainer(context).run(jobs(config)).result,
    render=lambda record, folder: render(record, folder, curves_by_residual),
    summary=lambda record: sorted(summary(record), key=lambda table: not table.title.startswith("Claims")),
    check=lambda config: check_jobs(jobs(config)),
    trained=trained_networks,
    scoring=SCORING,
    unshown=unshown,
    findings=findings,
    comparisons=comparisons,
    order=7,
    captions={
        "curves*": "Test error against epoch, without and with residual connections.",
        "prediction_*": "Test sample {}: coefficient, true solution, predictions and their errors.",
    },
)
