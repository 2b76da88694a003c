"""Grid refinement and L-BFGS: what the paper leaves out, on functions and at equal cost.

Command: ``kansciml run refine --preset small``.
Paper, section 5.1, on what it did not do: others "progressively refine the grid to improve the fitting of the model",
but "the parameter growth w.r.t. a finer grid prohibitively increases the parameter count"; and "we don't consider
optimizers like L-BFGS in our experiments (except for Neural ODEs)".
KANs of one width on fixed grids, the same KAN refined from the coarsest grid to the finest (its function is kept, the
coefficients refitted), and an MLP with as many parameters as the KAN on the grid `middle`; each by Adam alone, and by
L-BFGS after a tenth of Adam. Errors are compared when both have cost as much, in FLOPs and in seconds of the processor.
So are neural ODEs of a system, by their training errors.
Cost: ``smoke`` 5 s on one core; ``small`` 720 trainings of 1 to 2 s, some 20 minutes on two
cores; ``paper`` ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from kansciml._errors import UsageError, check_names
from kansciml.analysis.regressor_sizes import regressor_size, widest
from kansciml.experiments.functions.jobs import Job, target_row, train_job
from kansciml.experiments.functions.record import functions_result
from kansciml.experiments.refine.comparisons import comparisons
from kansciml.experiments.refine.findings import findings
from kansciml.experiments.refine.record import OPTIMISERS
from kansciml.experiments.refine.report import render, summary
from kansciml.experiments.refine.systems import SystemJob, described, train_system
from kansciml.models.field_spec import FieldSpec
from kansciml.models.regressors.regressor import Regressor
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.pool import run_kept
from kansciml.runs.settings import seed_range
from kansciml.tasks.functions.registry import TARGETS, get_target
from kansciml.tasks.ode.problem import FieldSizes, make_field
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.training.flat import FlatTraining

N = TypeVar("N")


@dataclass(frozen=True)
class RefineConfig:
    """Settings of the study of refinement; the defaults are the preset ``paper``."""

    targets: tuple[str, ...] = ("I.16.6", "I.30.3", "jv", "wave")
    """Functions to learn, by name."""
    systems: tuple[str, ...] = ("lotka",)
    """Systems to learn by neural ODEs on torch, by name."""
    grids: tuple[int, ...] = (3, 5, 10, 20)
    """Grid intervals, each fixed, and all of them in turn."""
    middle: int = 5
    """The grid on which the KAN has as many parameters as the MLP."""
    hidden: int = 5
    """Width of the KANs' hidden layer."""
    spline_order: int = 3
    """Order S of the splines."""
    hidden_layers: int = 2
    """Hidden layers of the MLP."""
    steps: int = 10_000
    """Iterations of a training."""
    learning_rate: float = 1e-2
    """First learning rate of Adam."""
    n_train: int = 1000
    """Points to train on."""
    n_test: int = 1000
    """Fresh points to test on."""
    seeds: int = 12
    """Number of seeds."""
    first_seed: int = 0
    """The first of those seeds."""

    def __post_init__(self) -> None:
        if self.targets or not self.systems:
            check_names("function", self.targets, TARGETS)
        if self.systems:
            check_names("system", self.systems, available_systems())
        if len(self.grids) < 2 or list(self.grids) != sorted(set(self.grids)) or self.middle not in self.grids:
            raise UsageError(
                f"got grids {self.grids}, middle {self.middle}: expected two or more increasing grids, middle one of"
                " them, such as 3 5 10 20 and 5"
            )
        for name in ("hidden", "steps", "hidden_layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}: expected at least 1")
        if min(self.n_train, self.n_test) < 2:
            raise UsageError(f"got n_train {self.n_train}, n_test {self.n_test}: expected at least 2 each")

    def training(self, optimiser: str) -> FlatTraining:
        """Of the optimiser's steps."""
        adam = self.steps if optimiser == "adam" else self.steps // 10
        return FlatTraining(adam, self.learning_rate, self.learning_rate / 100, lbfgs_steps=self.steps - adam)

    def networks(self, inputs: int) -> dict[str, tuple[Regressor, tuple[int, ...]]]:
        """Variant -> the network as it begins, and the grids that it is trained on in turn."""
        widths = (inputs, self.hidden, 1)
        limit = regressor_size("kan", widths, "params", self.middle, self.spline_order)
        mlp = widest(inputs, self.hidden_layers, lambda own: regressor_size("mlp", own, "params"), limit)
        return self._each(lambda grid: Regressor("kan", widths, grid=grid, spline_order=self.spline_order)) | {
            "mlp": (Regressor("mlp", mlp), ())
        }

    def fields(self, name: str) -> dict[str, tuple[FieldSpec, tuple[int, ...]]]:
        """The same for a system; its MLP has one hidden layer, as those of Figure 2 have."""
        system = get_system(name)

        def kan(grid: int) -> FieldSpec:
            return make_field(system, "kan", config=FieldSizes((self.hidden,), grid, self.spline_order))

        def mlp(hidden: int) -> FieldSpec:
            return make_field(system, "mlp", config=FieldSizes((hidden,)))

        limit = kan(self.middle).n_parameters
        widths = widest(system.state_size, 1, lambda own: mlp(own[1]).n_parameters, limit)
        return self._each(kan) | {"mlp": (mlp(widths[1]), ())}

    def _each(self, kan: Callable[[int], N]) -> dict[str, tuple[N, tuple[int, ...]]]:
        """The KAN that is refined, and those on fixed grids."""
        fixed = {f"fixed-{grid}": (kan(grid), ()) for grid in self.grids}
        return {"refined": (kan(self.grids[0]), self.grids), **fixed}


def plan(config: RefineConfig) -> dict[str, Job | SystemJob]:
    """One job, by its id, per function or system, network, optimiser and seed."""
    jobs: list[Job | SystemJob] = []
    for optimiser, seed in product(OPTIMISERS, seed_range(config)):
        training = config.training(optimiser)
        points = config.n_train, config.n_test
        for name in config.targets:
            for variant, (network, grids) in config.networks(get_target(name).inputs).items():
                jobs.append(Job(name, 0.0, variant, optimiser, network, seed, training, grids, *points))
        for name in config.systems:
            for variant, (field, grids) in config.fields(name).items():
                jobs.append(SystemJob(name, variant, optimiser, field, seed, training, grids))
    return {job.id: job for job in jobs}


def train_any(job: Job | SystemJob) -> dict[str, Any]:
    """A `Run` in JSON types."""
    return train_job(job) if isinstance(job, Job) else train_system(job)


def run(config: RefineConfig, context: RunContext) -> Result:
    targets = [target_row(name) for name in config.targets] + [described(name) for name in config.systems]
    return functions_result(targets, list(run_kept(train_any, context.plan, context).values()))


EXPERIMENT = Experiment(
    name="refine",
    title="Refinement of the grid against fixed grids, and L-BFGS against Adam, at equal cost",
    item="Section 5.1",
    config=RefineConfig,
    presets={
        "smoke": RefineConfig(targets=("jv",), grids=(3, 6), middle=3, steps=40, n_train=200, n_test=200, seeds=2),
        "small": RefineConfig(steps=1000),
        "paper": RefineConfig(),
    },
    costs={"small": "twenty minutes of two cores"},
    run=run,
    render=render,
    summary=summary,
    check=plan,
    findings=findings,
    comparisons=comparisons,
    order=102,
    captions={
        "refine": "Error against the operations that training took, median over seeds: KANs on fixed grids, one whose"
        " grid is refined, and an MLP; by L-BFGS above, by Adam below."
    },
)
