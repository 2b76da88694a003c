"""Figure 2: learning dynamical systems by neural ODEs, KAN against MLP, five systems, several seeds.

Command: ``kansciml run fig2 --preset small``.
Paper: "MLPs converge to a lower final loss compared to KANs in all problems (except FitzHugh-Nagumo where the
difference in final loss is in the order of 1e-10)"; "KANs struggle to fit dynamical systems like the Pleiades and
Spiral ODE problems" (section 4.1). The paper gives neither widths nor spans nor tolerances: these are the literature's.
Every comparison is run twice, at the MLP's hidden width and with no more parameters than the MLP has, and on the spiral
also with the KAN's input left outside its grid.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

from kansciml._errors import UsageError
from kansciml.experiments.fig2.findings import findings
from kansciml.experiments.ode.anytime.comparisons import comparisons
from kansciml.experiments.ode.backends import choices, closing_backends, resolve
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.gates import run_on_backends
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.experiments.ode.record import unshown
from kansciml.experiments.ode.report import render, summary
from kansciml.experiments.ode.scores import SCORING
from kansciml.experiments.ode.trained import trained_fields
from kansciml.experiments.ode.variants import variant_fields
from kansciml.models.field_spec import MODELS
from kansciml.models.hybrid_spec import Spec
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.settings import COUNTS_IF_SET, part
from kansciml.tasks.ode.problem import MATCHES, FieldSizes, make_field
from kansciml.tasks.ode.registry import available_systems, file_fingerprints
from kansciml.tasks.ode.system import System

SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
GRID_RANGE_STUDY = "spiral"
"""System on which the KAN is also run with its input unscaled and squashed by tanh."""
CAP_SHARE = {"pleiades": 0.1}
"""Share of the most iterations of L-BFGS, where models are ten times as large; 30,000 bring no MLP to a plateau."""


@dataclass(frozen=True)
class Fig2Config:
    """Settings of Figure 2: both models of these systems, over a run; the defaults are the preset ``paper``."""

    systems: tuple[str, ...] = SYSTEMS
    """Names of systems, or paths to .py files that define SYSTEM."""
    noise: float = dataclasses.field(default=0.0, metadata=COUNTS_IF_SET)
    """Noise on the training data, in standard deviations of each component (.05: 5 %)."""
    unseen: int = 4
    """Initial states, drawn from the box of each system that has a name, from which errors are measured too."""
    field: FieldSizes = part(FieldSizes())
    run: RunConfig = part(RunConfig.to_plateau(5000, 200_000, 20))

    def __post_init__(self) -> None:
        if not self.systems:
            raise UsageError("got 0 systems: expected at least 1")

    def inputs(self) -> list[str]:
        """What systems' files define: the data that they read count, not only their text."""
        return file_fingerprints(self.systems)

    def fields(self, system: System) -> dict[str, Spec]:
        """Variant name -> field."""
        found = variant_fields(system, MODELS, MATCHES, self.field)
        if system.name == GRID_RANGE_STUDY:
            for variant, scaling in (("kan-unscaled", "none"), ("kan-tanh", "tanh")):
                found[variant] = make_field(system, "kan", match="params", config=self.field, input_scaling=scaling)
        return found


def plan(config: Fig2Config) -> Plan:
    """One job per system, variant and seed."""
    drawn = {name: config.unseen for name in available_systems()}
    sources = [SystemConfig(name, noise=config.noise, test_trajectories=drawn.get(name)) for name in config.systems]
    made = Plan.of(sources, config.fields, config.run, shown=("train",))
    return dataclasses.replace(made, jobs=[_capped(job) for job in made.jobs])


def _capped(job: Job) -> Job:
    """The job, with its system's share of the iterations of L-BFGS."""
    training = job.config.training
    steps = round(training.lbfgs_steps * CAP_SHARE.get(job.system.name, 1.0))
    config = dataclasses.replace(job.config, training=dataclasses.replace(training, lbfgs_steps=steps))
    return dataclasses.replace(job, config=config)


def run(config: Fig2Config, context: RunContext) -> Result:
    with closing_backends():
        return run_on_backends(context.plan, context)


EXPERIMENT = Experiment(
    name="fig2",
    title="Learning dynamical systems by neural ODEs: KAN against MLP",
    item="Figure 2",
    config=Fig2Config,
    presets={
        "smoke": Fig2Config(run=RunConfig.to_plateau(20, 20, 2)),
        "small": Fig2Config(run=RunConfig.to_plateau(1000, 60_000, 12)),
        "paper": Fig2Config(),
    },
    costs={"small": "80 minutes of two cores"},
    run=run,
    render=render,
    summary=summary,
    check=plan,
    choices=choices,
    resolve=resolve,
    scoring=SCORING,
    unshown=unshown,
    trained=lambda record: trained_fields(record, Fig2Config, plan),
    findings=findings,
    comparisons=partial(comparisons, shares=CAP_SHARE),
    order=2,
    captions={
        "loss_curves": "Training loss against iteration, for each system.",
        "final_losses": "Relative error on the training span after training.",
        "anytime": "Best training loss so far against evaluations, processor time and operations: median and quartiles"
        " over seeds, MLP and KAN with as many parameters.",
        "phase_portraits": "Phase portraits: the true orbit and the models', by the seed with the median error.",
        "trajectories_*": "Trajectories of the {} system: truth, training data and models, within the training span and"
        " beyond it.",
        "errors_*": "Errors of the models of the {} system over time, root mean square over components.",
        "fields_*": "Vector fields of the {} system: the true one, and those of the models over their error.",
        "orbits_*": "Orbits of the bodies of the {} system.",
    },
)
