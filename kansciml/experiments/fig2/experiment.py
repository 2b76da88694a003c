"""Figure 2: learning dynamical systems by neural ODEs, KAN against MLP, five systems, several seeds.

Command: ``kansciml run fig2 --preset small``.
Paper: "MLPs converge to a lower final loss compared to KANs in all problems (except FitzHugh-Nagumo where the
difference in final loss is in the order of 1e-10)"; "KANs struggle to fit dynamical systems like the Pleiades and
Spiral ODE problems" (section 4.1). The paper gives neither widths nor spans nor tolerances: these are the literature's.
Every comparison is run twice, at the MLP's hidden width and with no more parameters than the MLP has, and on the spiral
also with the KAN's input left outside its grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kansciml._errors import UsageError, unknown_name
from kansciml.backends.base import MAX_STEPS
from kansciml.backends.select import BACKENDS, check_methods
from kansciml.experiments.fig2.findings import findings
from kansciml.experiments.ode.report import render, summary
from kansciml.experiments.ode.runs import Job, run_jobs, variant_fields
from kansciml.experiments.ode.trained import trained_fields
from kansciml.models.field_spec import MODELS, FieldSpec
from kansciml.ode import get_system, make_field
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import Record
from kansciml.runs.settings import COUNTS_IF_SET, seed_range
from kansciml.runs.trained import TrainedModel, config_of
from kansciml.tasks.ode.problem import MATCHES
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining

SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
GRID_RANGE_STUDY = "spiral"
"""System on which the KAN is also run with its input unscaled and squashed by tanh."""


@dataclass(frozen=True)
class Fig2Config:
    """Settings of Figure 2; the defaults are the preset ``paper``."""

    systems: tuple[str, ...] = SYSTEMS
    """Names of systems, or paths to .py files that define SYSTEM."""
    seeds: int = 10
    """Number of seeds, one after the other."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    backend: str = "torch"
    """torch, julia, or auto (Julia if it starts)."""
    gradient: str | None = None
    """Gradient of the torch backend: replay (default), backprop, adjoint."""
    sensealg: str | None = None
    """Sensitivity algorithm of the Julia backend (default: the fastest measured)."""
    hidden: tuple[int, ...] = ()
    """Hidden widths; none: each system's own (50)."""
    grid: int = 5
    """Grid intervals G of each spline."""
    spline_order: int = 3
    """Order S of each spline."""
    rtol: float = 1e-7
    """Relative tolerance of the solver in training."""
    atol: float = 1e-7
    """Absolute tolerance of the solver in training."""
    max_steps: int = field(default=MAX_STEPS, metadata=COUNTS_IF_SET)
    """Steps of one solve before it is given up, in training and when its errors are computed."""
    training: FlatTraining = FlatTraining(adam_steps=5000, final_learning_rate=1e-3, lbfgs_steps=20000)
    """Adam, then L-BFGS."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise unknown_name("backend", self.backend, BACKENDS)
        if self.seeds < 1 or not self.systems:
            raise UsageError(f"got {self.seeds} seeds and {len(self.systems)} systems: expected at least 1 of each")
        if self.max_steps < 1:
            raise UsageError(f"got max_steps {self.max_steps}: expected at least 1")
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}: expected a number between 0 and 1, such as 1e-7")
        check_methods(self.gradient, self.sensealg)

    def inputs(self) -> list[str]:
        """What systems' files define: the data that they read count, not only their text."""
        return file_fingerprints(self.systems)

    def fields(self, system: System) -> dict[str, FieldSpec]:
        """Variant name -> field."""
        options = {"hidden": self.hidden, "grid": self.grid, "spline_order": self.spline_order}
        found = variant_fields(system, MODELS, MATCHES, **options)
        if system.name == GRID_RANGE_STUDY:
            for variant, scaling in (("kan-unscaled", "none"), ("kan-tanh", "tanh")):
                found[variant] = make_field(system, "kan", match="params", input_scaling=scaling, **options)
        return found


def jobs(config: Fig2Config) -> list[Job]:
    """One job per system, variant and seed."""
    method = config.sensealg if config.backend == "julia" else config.gradient
    solver = {"rtol": config.rtol, "atol": config.atol, "max_steps": config.max_steps}
    return [
        Job(name, variant, spec, seed, config.backend, method, config.training, **solver)
        for name in config.systems
        for variant, spec in config.fields(get_system(name)).items()
        for seed in seed_range(config)
    ]


def run(config: Fig2Config, context: RunContext) -> Result:
    # The longest first, so that the pool does not wait for one of them at the end
    ordered = sorted(jobs(config), key=lambda job: -job.spec.state_size * job.spec.n_parameters)
    result = run_jobs(ordered, context)
    place = {job.id: i for i, job in enumerate(jobs(config))}
    result.result["runs"].sort(key=lambda row: place[row["id"]])
    described = result.result["systems"]
    result.result["systems"] = {
        name: described[name] for name in dict.fromkeys(r["system"] for r in result.result["runs"])
    }
    return result


def trained(record: Record) -> list[TrainedModel]:
    """The models of a finished run, for `kansciml hessian`."""
    return trained_fields(record, jobs(config_of(Fig2Config, record.config)))


EXPERIMENT = Experiment(
    name="fig2",
    title="Learning dynamical systems by neural ODEs: KAN against MLP",
    item="Figure 2",
    config=Fig2Config,
    presets={
        "smoke": Fig2Config(seeds=2, training=FlatTraining(20, final_learning_rate=1e-3, lbfgs_steps=10)),
        "small": Fig2Config(seeds=5, training=FlatTraining(1000, final_learning_rate=1e-3, lbfgs_steps=1000)),
        "paper": Fig2Config(),
    },
    run=run,
    render=render,
    summary=summary,
    check=jobs,
    trained=trained,
    findings=findings,
)
