"""Trains KAN and MLP neural ODEs on one system: the main job of the package.

Command: ``kansciml ode --system lotka`` (or ``--system path/to/file.py``, or ``--data file.csv``). A layer of Lux of
the user's is trained too with ``--backend julia --field my_field.jl``: see `kansciml.models.lux_field`.
Expected on Lotka-Volterra, training MSE at tolerance 1e-10: MLP 2-50-2 at most 4e-5, KAN with at most 260 parameters at
most 1e-5 (KAN-ODEs, Koenig et al. 2024, report 4.1e-5 and 8.3e-7 after 1e5 epochs of Adam).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kansciml._errors import UsageError, unknown_name
from kansciml.backends.select import read_by
from kansciml.experiments.ode.anytime.comparisons import comparisons
from kansciml.experiments.ode.backends import choices, closing_backends, resolve, shared_backend
from kansciml.experiments.ode.config import OwnField, RunConfig, SystemConfig
from kansciml.experiments.ode.gates import run_on_backends
from kansciml.experiments.ode.jobs import Plan
from kansciml.experiments.ode.record import unshown
from kansciml.experiments.ode.report import render, summary
from kansciml.experiments.ode.scores import SCORING
from kansciml.experiments.ode.trained import trained_fields
from kansciml.experiments.ode.variants import own_field, variant_fields
from kansciml.models.field_spec import MODELS
from kansciml.models.hybrid_spec import Spec
from kansciml.models.lux_field import LuxField
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import part
from kansciml.tasks.ode.problem import MATCHES, FieldConfig
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.tasks.ode.system import System


@dataclass(frozen=True)
class OdeConfig:
    """Settings of `kansciml ode`: these models of one system, over a run."""

    system: SystemConfig = part(SystemConfig())
    model: str = "both"
    """mlp, kan, both, or none (--field alone)."""
    match: str = "both"
    """KAN at the MLP's hidden width (width), with at most its parameters (params), both of these, or with at most its
    operations per evaluation (flops)."""
    field: FieldConfig = part(FieldConfig())
    run: RunConfig = part(RunConfig())
    own: OwnField = part(OwnField())

    def __post_init__(self) -> None:
        kinds = ("model", self.model, (*MODELS, "both", "none")), ("match", self.match, (*MATCHES, "flops", "both"))
        for kind, value, valid in kinds:
            if value not in valid:
                raise unknown_name(kind, value, valid)
        if self.own.field is None and self.model == "none":
            raise UsageError("got model none without --field: expected mlp, kan, or both")
        if self.own.field is not None and self.run.backend in ("torch", "both"):
            told = f"got field {self.own.field} with backend {self.run.backend}"
            raise UsageError(f"{told}: a layer of Lux is trained in Julia, take backend julia")

    def inputs(self) -> list[str]:
        """What a system's file defines: the data that it reads count, not only its text."""
        return file_fingerprints([self.system.source])

    def fields(self, system: System) -> dict[str, Spec | LuxField]:
        """Variant name -> field."""
        models = MODELS if self.model == "both" else (self.model,)
        matches = MATCHES if self.match == "both" else (self.match,)
        own = own_field(system, self.own.field)
        return {**variant_fields(system, models, matches, self.field), **own}


def plan(config: OdeConfig) -> Plan:
    """One job per variant, seed and backend. Raises UsageError for whatever is wrong with the request."""
    return Plan.of([config.system], config.fields, config.run)


def run(config: OdeConfig, context: RunContext) -> Result:
    if config.run.backend == "both":
        context.log("backend: torch and julia")
    with closing_backends():
        return run_on_backends(context.plan, context)


def resolve_and_read(config: OdeConfig, log: Callable[[str], None]) -> OdeConfig:
    """`resolve`; a file that defines no layer is told before anything is trained."""
    config = resolve(config, log)
    if config.own.field is not None:
        for field in own_field(config.system.resolve(), config.own.field).values():
            read_by(shared_backend("julia", config.run.sensealg, log), field)
    return config


EXPERIMENT = Experiment(
    name="ode",
    title="Neural ODE: KAN against MLP on one system or on your own data",
    item="Section 4.1",
    config=OdeConfig,
    presets={
        "smoke": OdeConfig(run=RunConfig.of_steps(30, 20, 2)),
        "small": OdeConfig(run=RunConfig.of_steps(1000, 1000, 5)),
        "paper": OdeConfig(run=RunConfig.of_steps(5000, 20000, 5)),
    },
    costs={"small": "half a minute of two cores, of Lotka-Volterra"},
    run=run,
    render=render,
    summary=summary,
    check=plan,
    choices=choices,
    resolve=resolve_and_read,
    scoring=SCORING,
    unshown=unshown,
    comparisons=comparisons,
    trained=lambda record: trained_fields(record, OdeConfig, plan),
)
