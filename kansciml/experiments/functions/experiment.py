"""Where KANs are said to win: formulas and special functions, KANs against MLPs at equal parameters, FLOPs and time.

Command: ``kansciml run functions --preset small``.
Beyond the paper, which says of others that "when FLOPs were controlled, MLPs generally outperformed KANs across tasks,
excluding symbolic formula representation" (section 1, of Yu, Yu and Wang 2024). Here: formulas of the Feynman lectures
and special functions as in the KAN paper (Liu et al. 2024), and rough functions; with and without noise. Networks: KAN;
KAN whose grid is refined in training; MLP; and the MLP with learnable B-splines for activations, by which Yu, Yu and
Wang tell the splines' part from that of the edges. Each is the widest with at most `parameters` parameters, and again,
where it is not the KAN, the widest with at most the KAN's FLOPs (of a KAN that is refined, their mean over its grids).
Equal time: both with equal parameters, when the first of the two has ended, in seconds of the processor.
Full batch, float64, Adam and then L-BFGS to a plateau or a cap; most end at the cap, so that verdicts are of this
budget and not of where trainings would end: the table of shares of the budget says how they move. Noise is met without
early stopping or penalties, by all alike.
Cost: ``smoke`` 15 s on one core; ``small`` 3,864 trainings of 0.6 s (MLP) to 1.5 s (spline MLP), 40 minutes on two
cores; ``paper``, of 10,000 iterations each, 13 times as long (estimated from that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from kansciml._errors import UsageError, check_names
from kansciml.analysis.regressor_sizes import regressor_size
from kansciml.experiments.functions.comparisons import comparisons
from kansciml.experiments.functions.findings import findings
from kansciml.experiments.functions.jobs import Job, Networks, run_all
from kansciml.experiments.functions.record import VARIANTS
from kansciml.experiments.functions.report import render, summary
from kansciml.runs.experiment import BEYOND, Experiment
from kansciml.runs.settings import part, seed_range
from kansciml.tasks.functions.registry import TARGETS, get_target
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class FunctionsConfig:
    """Settings of the comparison on functions; the defaults are the preset ``paper``."""

    targets: tuple[str, ...] = tuple(TARGETS)
    """Functions to learn, by name."""
    noise: tuple[float, ...] = (0.0, 0.05)
    """Noise on the training values, in standard deviations of the function."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Networks: kan, kan-refined, mlp, spline-mlp."""
    parameters: int = 250
    """Parameters that a network may have."""
    networks: Networks = part(Networks())
    n_train: int = 1000
    """Points to train on."""
    n_test: int = 1000
    """Fresh points to test on."""
    seeds: int = 12
    """Number of seeds."""
    first_seed: int = 0
    """The first of those seeds."""
    training: FlatTraining = FlatTraining(adam_steps=1000, lbfgs_steps=9000, plateau=0.01)
    """Adam, then L-BFGS, on all points at a time."""

    def __post_init__(self) -> None:
        check_names("function", self.targets, TARGETS)
        check_names("variant", self.variants, VARIANTS)
        check_names("noise", self.noise)
        if min(self.noise) < 0:
            raise UsageError(f"got noise {min(self.noise)}: expected numbers of at least 0, such as 0.05")
        if min(self.n_train, self.n_test) < 2:
            raise UsageError(f"got n_train {self.n_train}, n_test {self.n_test}: expected at least 2 each")
        if not self.networks.grids or list(self.networks.grids) != sorted(set(self.networks.grids)):
            raise UsageError(f"got grids {self.networks.grids}: expected increasing ones, such as 3 5 10")


def plan(config: FunctionsConfig) -> list[Job]:
    """One job per function, noise, network and seed. Raises UsageError where no network is small enough."""
    jobs = []
    for name in config.targets:
        inputs = get_target(name).inputs
        kan = config.networks.regressor("kan", inputs, config.parameters, "params")
        flops = regressor_size("kan", kan.widths, "flops", kan.grid, kan.spline_order)
        limits: Mapping[str, float] = {"params": config.parameters, "flops": flops}
        for noise, seed, variant, match in product(config.noise, seed_range(config), config.variants, limits):
            if (variant, match) != ("kan", "flops"):
                jobs.append(
                    Job(
                        name,
                        noise,
                        variant,
                        match,
                        config.networks.regressor(variant, inputs, limits[match], match),
                        seed,
                        config.training,
                        config.networks.grids if variant == "kan-refined" else (),
                        config.n_train,
                        config.n_test,
                    )
                )
    return jobs


SHORT = FlatTraining(adam_steps=150, lbfgs_steps=600, plateau=0.01)

EXPERIMENT = Experiment(
    name="functions",
    title="Formulas, special and rough functions: KANs against MLPs at equal parameters, FLOPs and time",
    item=BEYOND,
    config=FunctionsConfig,
    presets={
        "smoke": FunctionsConfig(
            targets=("I.16.6", "jv", "wave"), seeds=2, n_train=200, n_test=200, parameters=120,
            training=FlatTraining(adam_steps=20, lbfgs_steps=60, plateau=0.01),
        ),
        "small": FunctionsConfig(training=SHORT),
        "paper": FunctionsConfig(),
    },
    costs={"small": "40 minutes of two cores"},
    run=lambda config, context: run_all(context.plan, context),
    render=render,
    summary=summary,
    check=plan,
    findings=findings,
    comparisons=comparisons,
    order=101,
    captions={
        "functions": "Error of the KAN over that of the MLP on each function, at equal parameters, FLOPs and time.",
        "functions_models": "The same at equal parameters for each pair of networks: what the splines bring without the"
        " edges, and what refinement of the grid brings.",
    },
)  # fmt: skip
