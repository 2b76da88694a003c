"""Train neural operators on Darcy flow, with MLPs and with KANs as lift and projection, on equal terms.

Command: ``kansciml fno --variant kan-spline --residual``; without flags, a weight-tied FNO with MLPs and with splines
on 256 samples of 43 x 43 points, which are generated first (about half a minute on one core) and kept.
Recipe of preset ``paper``: that of the sources of Figure 5 of Pal & Das (2024), see `kansciml.experiments.fig5`. Its
Adam with a weight decay of 1e-4 is AdamW here, whose decay does not pass through the moments and is weaker.
A network that was trained at one resolution is tested at others too (``--eval-subsamples``), with the pointwise means
and deviations of its training samples interpolated to them.
Cost on one core: ``smoke`` seconds; ``small`` about 20 minutes; ``paper`` is for a GPU.
"""

from __future__ import annotations

from kansciml.experiments.fno.comparisons import comparisons
from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.fno.jobs import jobs
from kansciml.experiments.fno.report import render, summary, unshown
from kansciml.experiments.fno.runs import OperatorTrainer
from kansciml.experiments.fno.trained import SCORING, trained_networks
from kansciml.experiments.minibatch.jobs import check_jobs
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment

PAPER = {
    "subsample": 5, "n_train": 1024, "n_test": 500, "epochs": 500, "batch_size": 32, "learning_rate": 1e-3,
    "weight_decay": 1e-4,
}  # fmt: skip
"""Settings of the sources of Figure 5: 421 x 421 subsampled to 85 x 85."""
SMOKE = {
    "resolution": 141, "subsample": 5, "n_train": 16, "n_test": 8, "epochs": 3, "batch_size": 4, "width": 8,
    "modes": (6, 6), "iterations": 3, "projection": 16,
}  # fmt: skip
"""29 x 29 points, few samples, a small network."""

EXPERIMENT = Experiment(
    name="fno",
    title="Neural operators for Darcy flow with MLPs and with KANs as lift and projection",
    item="Section 4.3",
    config=FnoRunConfig,
    presets={
        "smoke": with_settings(FnoRunConfig(), {"eval_subsamples": (10,), **SMOKE}),
        "small": with_settings(FnoRunConfig(), {"eval_subsamples": (5,), "epochs": 20}),
        "paper": with_settings(FnoRunConfig(), {"eval_subsamples": (10, 2, 1), "seeds": 12, **PAPER}),
    },
    costs={"small": "20 minutes of one core"},
    run=lambda config, context: OperatorTrainer(context).run(jobs(config)).result,
    render=render,
    summary=summary,
    check=lambda config: check_jobs(jobs(config)),
    trained=trained_networks,
    scoring=SCORING,
    unshown=unshown,
    comparisons=comparisons,
)
