"""Figure 5: Darcy flow by a weight-tied neural operator, with MLPs and with KANs, with and without residual.

Command: ``kansciml run fig5 --preset small``.
Paper: "MLPs outperform KANs" without residual connections; with them "KANs do slightly better". It prints neither
sizes nor numbers; its "weight-tied FNO++" is FNO-WT of the source it cites (Marwah et al. 2023), which has no residual
connections: read as z <- z + block(z).
Expected: a relative L2 error on test samples of about 0.0055 to 0.0065 for the MLPs without residual, by the recipe of
that source (preset ``paper``: 1024 training and 500 test samples, 421 x 421 subsampled to 85 x 85, normalised point by
point, relative L2 loss, learning rate 1e-3 on a cosine, weight decay 1e-4, 500 epochs, batches of 32).
The source has 3 seeds, with which no difference is significant; here there are 5.
Cost on one core: ``smoke`` 7 s, ``small`` (43 x 43, width 16, 12 epochs) about half an hour; ``paper`` is for a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.experiments.fig5.findings import findings
from kansciml.experiments.fig5.report import render, summary
from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.fno.data import FieldsSpec
from kansciml.experiments.fno.experiment import SMOKE
from kansciml.experiments.fno.experiment import check as check_fno
from kansciml.experiments.fno.experiment import jobs as fno_jobs
from kansciml.experiments.fno.jobs import FnoJob
from kansciml.experiments.fno.runs import run_jobs
from kansciml.experiments.fno.scores import SCORING
from kansciml.experiments.fno.trained import trained_networks
from kansciml.models.base import VARIANTS
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import COUNTS_IF_SET

RESIDUAL = {"without": (False,), "with": (True,), "both": (False, True)}
OWN = ("variants", "residual")
"""Fields that `FnoRunConfig` does not have in this form."""


@dataclass(frozen=True)
class Fig5Config:
    """Settings of Figure 5; the defaults are the preset ``paper``."""

    variants: tuple[str, ...] = ("mlp", "kan-spline")
    """mlp, kan-spline, kan-rswaf."""
    residual: str = "both"
    """without, with, or both."""
    seeds: int = 5
    """Number of seeds, one after the other. Fewer than 4 decide nothing."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    model: str = "fno-wt"
    """fno-wt (weight-tied), fno-injection, fno-plain or fno-original."""
    data: Path | None = None
    """Released MATLAB file of training samples (default: samples are generated)."""
    test_data: Path | None = None
    """Released MATLAB file of test samples (default: those of --data that follow the training samples)."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder of generated data sets (default: as kansciml darcy has it, the user's cache)."""
    resolution: int = 421
    """Nodes along each side of the grid on which the equation is solved, or of the file."""
    subsample: int = 5
    """Every how many-th node is trained on: of 421, 5 leaves 85, 10 leaves 43, 15 leaves 29."""
    eval_subsamples: tuple[int, ...] = ()
    """Other subsamples at which the trained networks are tested too: 2 tests at 211 of 421."""
    n_train: int = 1024
    """Training samples."""
    n_test: int = 500
    """Test samples."""
    data_seed: int = 0
    """Seed of generated samples."""
    epochs: int = 500
    """Passes over the training samples."""
    batch_size: int = 32
    """Samples in one step of all devices together."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Of AdamW, on weights alone."""
    width: int | None = None
    """Features per point (default: the model's, 32)."""
    modes: tuple[int, int] | None = None
    """Fourier modes along each side (default: the model's, 12 12)."""
    iterations: int | None = None
    """Times the blocks are applied (default: the model's, 12 of fno-wt)."""
    projection: int | None = None
    """Hidden width of the projection (default: the model's, 128)."""
    kan_hidden: tuple[int, ...] | None = None
    """Hidden width of the projection's KAN (default: that of the MLP)."""
    grid: int | None = None
    """Grid intervals of splines (default 5), or points of RSWAF (8)."""
    spline_order: int = 3
    """Order of the splines."""
    recompute: bool = False
    """Keep only the state between the iterations, and compute the rest again for the backward pass: less memory."""
    precision: str = "32"
    """32, bf16-mixed or 64."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise UsageError(f"got variants {self.variants}: expected one or more different names")
        for variant in self.variants:
            if variant not in VARIANTS:
                raise unknown_name("variant", variant, VARIANTS)
        if self.residual not in RESIDUAL:
            raise unknown_name("residual", self.residual, RESIDUAL)
        self.operators()

    def operators(self) -> list[FnoRunConfig]:
        """The settings of each kind of network, for `kansciml.experiments.fno.experiment.jobs`."""
        same: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in OWN}
        return [
            FnoRunConfig(variant=variant, residual=residual, **same)
            for residual in RESIDUAL[self.residual]
            for variant in self.variants
        ]

    def fields(self) -> FieldsSpec:
        """The samples, of all networks the same."""
        return self.operators()[0].fields()


def jobs(config: Fig5Config) -> list[FnoJob]:
    """One job per kind of network and seed."""
    return [job for one in config.operators() for job in fno_jobs(one)]


def check(config: Fig5Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for one in config.operators():
        check_fno(one)


def run(config: Fig5Config, context: RunContext) -> Result:
    return run_jobs(jobs(config), context)


EXPERIMENT = Experiment(
    name="fig5",
    title="Darcy flow by a weight-tied neural operator with MLPs and with KANs, with and without residual connections",
    item="Figure 5",
    config=Fig5Config,
    presets={
        "smoke": Fig5Config(seeds=1, eval_subsamples=(10,), **SMOKE),
        "small": Fig5Config(
            seeds=4,
            subsample=10,
            n_train=256,
            n_test=64,
            epochs=12,
            batch_size=8,
            width=16,
            modes=(8, 8),
            eval_subsamples=(5,),
        ),
        "paper": Fig5Config(),
    },
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained_networks,
    scoring=SCORING,
    findings=findings,
)
