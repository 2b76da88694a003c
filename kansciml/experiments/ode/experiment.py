"""Train KAN and MLP neural ODEs on one system: the main job of the package.

Command: ``kansciml ode --system lotka`` (or ``--system path/to/file.py``, or ``--data file.csv``).
Expected on Lotka-Volterra, training MSE at tolerance 1e-10: MLP 2-50-2 at most 4e-5, KAN with at most 260 parameters at
most 1e-5 (KAN-ODEs, Koenig et al. 2024, report 4.1e-5 and 8.3e-7 after 1e5 epochs of Adam).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kansciml import crosscheck
from kansciml._errors import UsageError, unknown_name
from kansciml.backends.base import MAX_STEPS
from kansciml.backends.select import check_methods
from kansciml.backends.torch import DEFAULT_GRADIENT, TorchOdeSolver
from kansciml.experiments.ode.report import render, summary
from kansciml.experiments.ode.runs import Job, run_jobs, shared_backend, variant_fields
from kansciml.experiments.ode.trained import trained_fields
from kansciml.models.field_spec import MODELS
from kansciml.ode import resolve_system
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import Record
from kansciml.runs.settings import COUNTS_IF_SET, seed_range
from kansciml.runs.trained import TrainedModel, config_of
from kansciml.tasks.ode.problem import MATCHES, make_problem
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class OdeConfig:
    """Settings of `kansciml ode`."""

    system: str = "lotka"
    """Name of a system, or path to a .py file that defines SYSTEM."""
    data: Path | None = None
    """CSV file of times (column t or time, else the first) and states to learn instead of a system."""
    time_column: str | None = field(default=None, metadata=COUNTS_IF_SET)
    """Name or number of the column of times in --data, where it is not found by its name."""
    train_fraction: float = 1.0
    """Share of the rows of --data that are trained on; the others test the extrapolation."""
    model: str = "both"
    """mlp, kan, or both."""
    match: str = "both"
    """KAN at the MLP's hidden width (width), with at most its parameters (params), both of these, or with at most its
    operations per evaluation (flops)."""
    hidden: tuple[int, ...] = ()
    """Hidden widths; none: the system's own (50)."""
    activation: str = "tanh"
    """Activation of the MLP: tanh, silu, gelu, relu, sigmoid."""
    grid: int = 5
    """Grid intervals G of each spline."""
    spline_order: int = 3
    """Order S of each spline."""
    grid_range: tuple[float, float] = (-1.0, 1.0)
    """Interval the grid covers in every layer."""
    input_scaling: str = "affine"
    """affine (training span into [-1, 1]), none, or tanh (with these two the unit of the state matters)."""
    input_power: int = 1
    """Odd power of the scaled state that the network is fed (3: cubes)."""
    seeds: int = 5
    """Number of seeds, one after the other."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    backend: str = "auto"
    """auto (Julia if it starts, else torch), torch, julia, or both."""
    gradient: str | None = None
    """Gradient of the torch backend: replay (default), backprop, adjoint."""
    sensealg: str | None = None
    """Sensitivity algorithm of the Julia backend (default: the fastest measured)."""
    rtol: float = 1e-7
    """Relative tolerance of the solver in training."""
    atol: float = 1e-7
    """Absolute tolerance of the solver in training, in multiples of each component's range (of 1: built-in systems)."""
    max_steps: int = field(default=MAX_STEPS, metadata=COUNTS_IF_SET)
    """Steps of one solve before it is given up, in training and when its errors are computed."""
    training: FlatTraining = FlatTraining(final_learning_rate=1e-3)
    """Adam, then L-BFGS."""

    def __post_init__(self) -> None:
        for kind, value, valid in (
            ("model", self.model, (*MODELS, "both")),
            ("match", self.match, (*MATCHES, "flops", "both")),
            ("backend", self.backend, ("auto", "torch", "julia", "both")),
        ):
            if value not in valid:
                raise unknown_name(kind, value, valid)
        if self.time_column is not None and self.data is None:
            raise UsageError(f"got time_column {self.time_column!r} without data: it names a column of --data")
        if self.train_fraction != 1 and self.data is None:
            raise UsageError(f"got train_fraction {self.train_fraction} without data: it is a share of --data")
        if self.seeds < 1:
            raise UsageError(f"got seeds {self.seeds}: expected at least 1")
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}: expected a number between 0 and 1, such as 1e-7")
        if self.max_steps < 1:
            raise UsageError(f"got max_steps {self.max_steps}: expected at least 1")
        check_methods(self.gradient, self.sensealg)

    @property
    def source(self) -> str | Path:
        """What `kansciml.ode.resolve_system` is given."""
        return self.system if self.data is None else self.data

    def resolve(self) -> System:
        """The system to learn."""
        return resolve_system(self.source, self.train_fraction, self.time_column, lambda line: None)

    def inputs(self) -> list[str]:
        """What a system's file defines: the data that it reads count, not only its text."""
        return file_fingerprints([self.source])

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends to train on. `auto` must have been replaced by the one that was found."""
        return ("torch", "julia") if self.backend == "both" else (self.backend,)

    def fields(self, system: System) -> dict[str, Any]:
        """Variant name -> field."""
        return variant_fields(
            system,
            MODELS if self.model == "both" else (self.model,),
            MATCHES if self.match == "both" else (self.match,),
            hidden=self.hidden,
            activation=self.activation,
            grid=self.grid,
            spline_order=self.spline_order,
            grid_range=self.grid_range,
            input_scaling=self.input_scaling,
            input_power=self.input_power,
        )


def jobs(config: OdeConfig) -> list[Job]:
    """One job per variant, seed and backend. Raises UsageError for whatever is wrong with the request."""
    system = config.resolve()
    found = []
    for backend in config.backends:
        for variant, spec in config.fields(system).items():
            for seed in seed_range(config):
                found.append(
                    Job(
                        system=config.source,
                        variant=f"{variant}@{backend}" if config.backend == "both" else variant,
                        spec=spec,
                        seed=seed,
                        backend=backend,
                        method=config.sensealg if backend == "julia" else config.gradient,
                        training=config.training,
                        rtol=config.rtol,
                        atol=config.atol,
                        train_fraction=config.train_fraction,
                        max_steps=config.max_steps,
                        time_column=config.time_column,
                    )
                )
    return found


def run(config: OdeConfig, context: RunContext) -> Result:
    if config.backend == "both":
        context.log("backend: torch and julia")
    result = run_jobs(jobs(config), context)
    if config.backend == "both":
        result.result["gates"] = list(backend_gates(config, context))
    return result


def backend_gates(config: OdeConfig, context: RunContext) -> Iterator[dict[str, Any]]:
    """The six gates between torch and Julia on every variant; one row each."""
    system = config.resolve()
    julia = shared_backend("julia", config.sensealg, context.log)
    with context.progress.task("cross-check", len(config.fields(system))) as bar:
        for spec in config.fields(system).values():
            problem = make_problem(system, spec, crosscheck.TOLERANCE, crosscheck.TOLERANCE)
            solvers = TorchOdeSolver(problem, config.gradient or DEFAULT_GRADIENT), julia.solver(problem)
            pair = " / ".join(map(crosscheck.label, solvers))
            params = spec.initial_parameters(0)
            allowed = crosscheck.training_allowed(problem, params, config.training)
            for gate in crosscheck.compare(*solvers, system, params, config.training, allowed):
                found = crosscheck.Gate(system.name, spec.label(), pair, *gate)
                yield {**asdict(found), "passed": found.passed}
            bar.update(advance=1)


def preset(name: str, base: OdeConfig | None = None) -> OdeConfig:
    """A preset applied to other settings."""
    base = base or OdeConfig()
    steps: dict[str, Sequence[int]] = {"smoke": (30, 20, 2), "small": (1000, 1000, 5), "paper": (5000, 20000, 5)}
    if name not in steps:
        raise unknown_name("preset", name, steps)
    adam, lbfgs, seeds = steps[name]
    return replace(base, seeds=seeds, training=replace(base.training, adam_steps=adam, lbfgs_steps=lbfgs))


def trained(record: Record) -> list[TrainedModel]:
    """The models of a finished run, for `kansciml hessian`."""
    return trained_fields(record, jobs(config_of(OdeConfig, record.config)))


EXPERIMENT = Experiment(
    name="ode",
    title="Neural ODE: KAN against MLP on one system or on your own data",
    item="Section 4.1",
    config=OdeConfig,
    presets={name: preset(name, OdeConfig(backend="torch")) for name in ("smoke", "small", "paper")},
    run=run,
    render=render,
    summary=summary,
    check=jobs,
    trained=trained,
)
