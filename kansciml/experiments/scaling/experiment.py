"""Error against number of parameters: do KANs gain more from size than MLPs do?

Command: ``kansciml run scaling --preset small``.
The KAN paper claims so for functions (Liu et al. 2024, error in proportion to P^-4 for cubic splines); Pal and Das
speak of "the potential for improved parameter efficiency, as shown in small-scale studies" (section 1). Both networks
in sizes over two decades, on functions and on systems learned by neural ODEs; the exponent of a power law is fitted
seed by seed. KANs grow in width, as MLPs do, at one grid: in the KAN paper they grow by their grid, which ``refine``
studies. All sizes have the same budget of iterations, so that an exponent says what size brings within it.
Cost: ``smoke`` 5 s; ``small`` 960 trainings of 0.3 s (60 parameters) to 27 s (6000), an hour of one core with torch;
``paper`` fifteen times as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from kansciml._errors import UsageError, check_names
from kansciml.analysis.regressor_sizes import widest
from kansciml.experiments.functions.jobs import Job, Networks, run_all
from kansciml.experiments.ode.backends import choices, closing_backends, resolve
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.jobs import Plan
from kansciml.experiments.ode.runs import run_jobs
from kansciml.experiments.scaling.comparisons import comparisons
from kansciml.experiments.scaling.findings import findings
from kansciml.experiments.scaling.record import MODELS, Point, scaling_result
from kansciml.experiments.scaling.report import render, summary
from kansciml.models.hybrid_spec import Spec
from kansciml.runs.experiment import BEYOND, Experiment, Result, RunContext
from kansciml.runs.settings import part, seed_range
from kansciml.tasks.functions.registry import TARGETS, get_target
from kansciml.tasks.ode.problem import FieldConfig, field_of
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class ScalingConfig:
    """Settings of the study of size; the defaults are the preset ``paper``."""

    targets: tuple[str, ...] = ("I.16.6", "I.30.3", "jv", "lpmv")
    """Functions to learn, by name."""
    systems: tuple[str, ...] = ("lotka", "fitzhugh", "rigid", "spiral")
    """Systems to learn by neural ODEs, by name."""
    parameters: tuple[int, ...] = (60, 190, 600, 1900, 6000)
    """Parameters that a network may have, one size after the other."""
    networks: Networks = part(Networks())
    n_train: int = 2000
    """Points of a function to train on."""
    n_test: int = 2000
    """Fresh points to test on."""
    function_steps: int = 5000
    """Iterations of a training on a function: a tenth of Adam, then L-BFGS."""
    run: RunConfig = part(RunConfig.to_plateau(1000, 20_000, 12))
    """How neural ODEs are trained; its seeds are those of functions too."""

    def __post_init__(self) -> None:
        if not self.targets and not self.systems:
            raise UsageError("got no functions and no systems: expected at least one of them")
        if self.targets:
            check_names("function", self.targets, TARGETS)
        if self.systems:
            check_names("system", self.systems)
        if self.run.backend == "both":
            raise UsageError("got backend both: scaling takes one, torch, julia or auto")
        if len(self.parameters) < 3 or list(self.parameters) != sorted(set(self.parameters)):
            raise UsageError(f"got parameters {self.parameters}: expected three or more increasing sizes")
        if min(self.n_train, self.n_test) < 2 or self.function_steps < 1:
            raise UsageError(
                f"got n_train {self.n_train}, n_test {self.n_test}, function_steps {self.function_steps}: expected at"
                " least 2 points each and 1 step"
            )

    def fields(self, system: System) -> dict[str, Spec]:
        """``mlp-60`` ... -> field."""
        return {f"{model}-{limit}": self._field(system, model, limit) for model in MODELS for limit in self.parameters}

    def _field(self, system: System, model: str, limit: int) -> Spec:
        def field(hidden: int) -> Spec:
            sizes = FieldConfig((hidden,), self.networks.grid, self.networks.spline_order, self.networks.activation)
            return field_of(system, model, config=sizes)

        widths = widest(system.state_size, 1, lambda widths: field(widths[1]).n_parameters, limit)
        return field(widths[1])


@dataclass(frozen=True)
class Scaling:
    """The trainings of a run: on functions, and those of neural ODEs, if any."""

    functions: list[Job]
    odes: Plan | None


def plan(config: ScalingConfig) -> Scaling:
    """One training per task, network, size and seed. Raises UsageError where no network is small enough."""
    adam = config.function_steps // 10
    training = FlatTraining(adam, lbfgs_steps=config.function_steps - adam, plateau=0.01)
    functions = [
        Job(
            name,
            0.0,
            model,
            str(limit),
            config.networks.regressor(model, get_target(name).inputs, limit, "params"),
            seed,
            training,
            n_train=config.n_train,
            n_test=config.n_test,
        )
        for name, limit, seed, model in product(config.targets, config.parameters, seed_range(config.run), MODELS)
    ]
    sources = [SystemConfig(name) for name in config.systems]
    return Scaling(functions, Plan.of(sources, config.fields, config.run) if sources else None)


def run(config: ScalingConfig, context: RunContext) -> Result:
    trainings: Scaling = context.plan
    points = []
    if trainings.functions:
        for row in run_all(trainings.functions, context).result["runs"]:
            points.append(_point(row, row["target"], row["variant"], row["match"], row["error"]))
    titles = {name: name for name in config.targets}
    if trainings.odes:
        with closing_backends():
            found = run_jobs(trainings.odes, context).result
        titles |= {name: system["title"] for name, system in found["systems"].items()}
        for row in found["runs"]:
            model, limit = row["variant"].split("-")
            squared = row["train_relative_mse"]
            error = None if squared is None or row["status"] != "finished" else math.sqrt(squared)
            points.append(_point(row, row["system"], model, limit, error))
    return scaling_result(titles, points)


def _point(row: Mapping[str, Any], task: str, model: str, limit: str, error: float | None) -> Point:
    own = {name: row[name] for name in ("seed", "label", "n_parameters", "ended")}
    kind = "system" if "system" in row else "function"
    return Point(task=task, kind=kind, model=model, limit=int(limit), error=math.inf if error is None else error, **own)


SMALL = RunConfig.to_plateau(500, 2500, 12)

EXPERIMENT = Experiment(
    name="scaling",
    title="Error against number of parameters over two decades: KANs and MLPs on functions and neural ODEs",
    item=BEYOND,
    config=ScalingConfig,
    presets={
        "smoke": ScalingConfig(
            targets=("jv",), systems=("lotka",), parameters=(40, 120, 400), n_train=200, n_test=200, function_steps=40,
            run=RunConfig.of_steps(15, 25, 2),
        ),
        "small": ScalingConfig(n_train=1000, function_steps=800, run=replace(SMALL, ladder=())),
        "paper": ScalingConfig(),
    },
    costs={"small": "half an hour of two cores"},
    run=run,
    render=render,
    summary=summary,
    check=plan,
    choices=choices,
    resolve=resolve,
    findings=findings,
    comparisons=comparisons,
    order=103,
    captions={
        "scaling": "Error against number of parameters: a mark per seed, medians joined, and exponents of power laws"
        " fitted seed by seed, with their intervals."
    },
)  # fmt: skip
