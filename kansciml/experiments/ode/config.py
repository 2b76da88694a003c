"""Parts of the configurations of neural-ODE experiments: what is learned, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kansciml._errors import UsageError, unknown_name
from kansciml._files import short_name
from kansciml.backends.base import MAX_STEPS
from kansciml.backends.select import check_methods
from kansciml.ode import resolve_system
from kansciml.runs.settings import COUNTS_IF_SET
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class SystemConfig:
    """The system to learn, or your own data."""

    system: str = "lotka"
    """Name of a system, or path to a .py file that defines SYSTEM."""
    data: Path | None = None
    """CSV file of times (column t or time, else the first) and states to learn instead of a system."""
    time_column: str | None = field(default=None, metadata=COUNTS_IF_SET)
    """Name or number of the column of times in --data, where it is not found by its name."""
    train_fraction: float = 1.0
    """Share of the rows of --data that are trained on; the others test the extrapolation."""

    def __post_init__(self) -> None:
        if self.time_column is not None and self.data is None:
            raise UsageError(f"got time_column {self.time_column!r} without data: it names a column of --data")
        if self.train_fraction != 1 and self.data is None:
            raise UsageError(f"got train_fraction {self.train_fraction} without data: it is a share of --data")

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
        return resolve_system(self.source, self.train_fraction, self.time_column, log)


@dataclass(frozen=True)
class RunConfig:
    """How each field is trained: seeds, solver, optimiser."""

    seeds: int = 5
    """Number of seeds, one after the other."""
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
    max_steps: int = field(default=MAX_STEPS, metadata=COUNTS_IF_SET)
    """Steps of one solve before it is given up, in training and when its errors are computed."""
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
        check_methods(self.gradient, self.sensealg)

    @classmethod
    def of_steps(cls, adam_steps: int, lbfgs_steps: int, seeds: int) -> RunConfig:
        """A preset: so many steps and seeds on torch."""
        training = FlatTraining(adam_steps, final_learning_rate=1e-3, lbfgs_steps=lbfgs_steps)
        return cls(seeds, backend="torch", training=training)

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends to train on; ``auto`` is to be replaced by the one that starts."""
        return ("torch", "julia") if self.backend == "both" else (self.backend,)

    def method(self, backend: str) -> str | None:
        """How gradients are computed on a backend; None: its default."""
        return self.gradient if backend == "torch" else self.sensealg
