"""Parts of the configurations of neural-ODE experiments: what is learned, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from kansciml._errors import UsageError, unknown_name
from kansciml._files import short_name
from kansciml.backends.base import MAX_STEPS
from kansciml.backends.select import check_methods
from kansciml.ode import get_system, read_table, sampled, system_from_trajectories
from kansciml.runs.settings import COUNTS_IF_SET, part
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.registry import table_name
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining, checked_ladder


@dataclass(frozen=True)
class SystemConfig:
    """The system to learn, or your own data."""

    system: str = "lotka"
    """Name of a system, or path to a .py file that defines SYSTEM."""
    data: Path | None = None
    """CSV or Parquet file of times (column t or time, else the first) and states to learn instead of a system."""
    id_column: str | None = field(default=None, metadata=COUNTS_IF_SET)
    """Name or number of the column of --data that tells its trajectories apart, where it holds several."""
    time_column: str | None = field(default=None, metadata=COUNTS_IF_SET)
    """Name or number of the column of times in --data, where it is not found by its name."""
    states: tuple[str, ...] = field(default=(), metadata=COUNTS_IF_SET)
    """Columns of --data that are components of the state (default: all that are nothing else)."""
    inputs: tuple[str, ...] = field(default=(), metadata=COUNTS_IF_SET)
    """Columns of --data that are known inputs to the system; the column of times can be one."""
    input_kind: str = field(default="linear", metadata=COUNTS_IF_SET)
    """Inputs between the rows of --data: linear, or held at the value of the row before."""
    weight_columns: tuple[str, ...] = field(default=(), metadata=COUNTS_IF_SET)
    """Columns of --data with the weights of the states in the loss: one for each, or one for all."""
    train_fraction: float = 1.0
    """Share of the rows of each trajectory of --data that are trained on; the others test the extrapolation."""
    trajectories: int = field(default=1, metadata=COUNTS_IF_SET)
    """Initial states that a system is trained on: its own, and others drawn from its box."""
    noise: float = field(default=0.0, metadata=COUNTS_IF_SET)
    """Noise on the training data of a system, in standard deviations of each component (.05: 5 %)."""
    validation_trajectories: float = field(default=0.0, metadata=COUNTS_IF_SET)
    """Trajectories for validation, drawn from --data or the system's box: their number, or a share below 1."""
    test_trajectories: float | None = field(default=None, metadata=COUNTS_IF_SET)
    """Trajectories that are never trained on, to test on: their number, or a share below 1 (default: none of --data, as
    many of a system as are trained on, if these are several)."""
    data_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """Seed by which trajectories are drawn, and of the noise."""

    def __post_init__(self) -> None:
        columns = ("id_column", "time_column", "states", "inputs", "input_kind", "weight_columns", "train_fraction")
        names = columns if self.data is None else ("trajectories", "noise")
        what = "without data: it says how to read --data" if self.data is None else "with data: it is for a --system"
        for item in fields(self):
            if item.name in names and (value := getattr(self, item.name)) != item.default:
                raise UsageError(f"got {item.name} {value!r} {what}; leave it at {item.default!r}")

    @property
    def source(self) -> str | Path:
        """What is read: a name, or a file."""
        return self.system if self.data is None else self.data

    @property
    def name(self) -> str:
        """Short name of the source, for the ids of runs."""
        return short_name(Path(self.source).stem)

    @property
    def is_code(self) -> bool:
        """Whether reading it runs a file of the user's."""
        return str(self.source).endswith(".py")

    def resolve(self, log: Callable[[str], None] = lambda line: None) -> System:
        """Read the system; `log` takes what was doubtful about the columns of its data."""
        validation, seed, unseen = self.validation_trajectories, self.data_seed, self.test_trajectories
        if self.data is None:
            if unseen is None:
                unseen = self.trajectories if self.trajectories > 1 else 0
            system = get_system(self.system)
            return sampled(
                system, self.trajectories, noise=self.noise, validation=validation, unseen=unseen, seed=seed, log=log
            )
        columns = self.states, self.inputs, self.weight_columns
        found = read_table(self.data, self.id_column, self.time_column, *columns, self.input_kind, log)
        return system_from_trajectories(
            found,
            table_name(self.data),
            self.train_fraction,
            validation=validation,
            unseen=unseen or 0,
            seed=seed,
            log=log,
        )


@dataclass(frozen=True)
class OwnField:
    """A vector field of the user's own."""

    field: Path | None = field(default=None, metadata=COUNTS_IF_SET)
    """Julia file that ends in a layer of Lux, which is trained beside --model; backend julia."""


@dataclass(frozen=True)
class RunConfig:
    """How each field is trained: seeds, solver, optimiser."""

    seeds: int = 5
    """Number of seeds, one after the other. Fewer than 6 decide nothing, 12 decide one claim of a hundred."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    backend: str = "auto"
    """auto (Julia if it starts, else torch), torch, julia, or both (one after the other, compared)."""
    gradient: str | None = None
    """Gradient of the torch backend: replay (default), backprop, adjoint."""
    sensealg: str | None = None
    """Sensitivity algorithm of the Julia backend (default: the fastest measured)."""
    rtol: float = 1e-7
    """Relative tolerance of the solver in training."""
    atol: float = 1e-7
    """Absolute tolerance of the solver in training, in multiples of each component's range (of 1: built-in systems)."""
    ladder: tuple[float, ...] = field(default=(), metadata=COUNTS_IF_SET)
    """Factors of both tolerances at which L-BFGS goes on until that gains nothing, such as 1e-2 1e-4."""
    solver: str | None = field(default=None, metadata=COUNTS_IF_SET)
    """Integrator: 3, 5 or 8 (explicit, of that order), stiff (implicit), or a name that the backend knows (default: 5,
    of a system that is stiff: stiff)."""
    max_steps: int = field(default=MAX_STEPS, metadata=COUNTS_IF_SET)
    """Steps of one solve before it is given up, in training and when its errors are computed."""
    fit: FitConfig = part(FitConfig(), later=tuple(vars(FitConfig())))
    training: FlatTraining = FlatTraining(final_learning_rate=1e-3)
    """Adam, then L-BFGS."""

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "torch", "julia", "both"):
            raise unknown_name("backend", self.backend, ("auto", "torch", "julia", "both"))
        for name, least in (("seeds", self.seeds), ("max_steps", self.max_steps)):
            if least < 1:
                raise UsageError(f"got {name} {least}: expected at least 1")
        for name, tolerance in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 < tolerance < 1:
                raise UsageError(f"got {name} {tolerance}: expected a number between 0 and 1, such as 1e-7")
        checked_ladder(self.ladder)
        check_methods(self.gradient, self.sensealg, self.solver, self.backend)
        self.fit.check_with(self.training.curriculum)

    @classmethod
    def of_steps(cls, adam_steps: int, lbfgs_steps: int, seeds: int) -> RunConfig:
        """A preset: so many steps and seeds."""
        training = FlatTraining(adam_steps, final_learning_rate=1e-3, lbfgs_steps=lbfgs_steps)
        return cls(seeds, training=training)

    @classmethod
    def to_plateau(cls, adam_steps: int, lbfgs_steps: int, seeds: int) -> RunConfig:
        """A preset: L-BFGS goes on to a plateau at the last of three tolerances, 1e-7, 1e-9 and 1e-11, or for so many
        steps.
        """
        training = FlatTraining(adam_steps, final_learning_rate=1e-3, lbfgs_steps=lbfgs_steps, plateau=0.01)
        return cls(seeds, ladder=(1e-2, 1e-4), training=training)

    def suited_to(self, system: System) -> RunConfig:
        """This, with the system's `training_settings` where the optimiser's settings are the defaults."""
        if self.training != RunConfig.training or not system.training_settings:
            return self
        return replace(self, training=replace(self.training, **system.training_settings))

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends to train on; ``auto`` is to be replaced by the one that starts."""
        return ("torch", "julia") if self.backend == "both" else (self.backend,)

    def method(self, backend: str) -> str | None:
        """How gradients are computed on a backend; None: its default."""
        return self.gradient if backend == "torch" else self.sensealg
