"""One training of a neural ODE among many, what it gives, and the system that it is about."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import SolveError, UsageError
from kansciml._files import short_name
from kansciml.backends.base import MAX_STEPS
from kansciml.models.field_spec import FieldSpec
from kansciml.ode import resolve_system
from kansciml.tasks.ode.data import full_data, training_data
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatTraining


@dataclass(frozen=True)
class Job:
    """One training. `variant` names the model in tables: ``mlp``, ``kan-width``, ``kan-params`` and so on."""

    system: str | Path
    variant: str
    spec: FieldSpec
    seed: int
    backend: str
    method: str | None
    training: FlatTraining
    rtol: float
    atol: float
    train_fraction: float = 1.0
    max_steps: int = MAX_STEPS
    time_column: str | None = None
    digest: str = ""
    """Fingerprint of the system that the run is about; empty: whichever `system` names."""

    @property
    def source(self) -> tuple[Any, ...]:
        """What the system is read from."""
        return self.system, self.train_fraction, self.time_column

    def resolve(self, log: Callable[[str], None] = lambda line: None) -> System:
        """The system; `log` takes what was doubtful about the columns of its data.

        Raises:
            UsageError: its file now gives another one than that of `digest`.
        """
        system = resolve_system(*self.source, log)
        if self.digest and fingerprint(system) != self.digest:
            raise UsageError(
                f"{self.system} gives another system each time it is read: seed its random numbers, or leave the file"
                " and its data alone while the run lasts"
            )
        return system

    @property
    def id(self) -> str:
        name = short_name(Path(self.system).stem)
        return f"{name}.{self.variant}.{self.backend}.{self.seed}"


@dataclass(frozen=True, eq=False)
class JobResult:
    """What a job sends back: one row of the record, and its arrays."""

    row: dict[str, Any]
    arrays: dict[str, np.ndarray]


def describe(system: System) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Entry of a system in the record, and its arrays by their names there: see `kansciml.experiments.ode.report`."""
    data = training_data(system)
    described = {
        "title": system.title,
        "labels": list(system.labels),
        "n": system.state_size,
        "train_end": system.train_end,
        "test_end": system.test_end,
        "phase_plane": list(system.phase_plane) if system.phase_plane else None,
        "loss_scale": np.asarray(system.loss_scale).tolist(),
    }
    arrays = {"t": system.test_saveat, "data_t": data.t, "data": data.states}
    if system.rhs is not None:
        with suppress(SolveError):  # it may blow up beyond the training data
            arrays["truth"] = reference_solution(system, system.test_saveat)
    else:
        everything = full_data(system)
        arrays |= {"data_t": everything.t, "data": everything.states}
    return described, {f"{system.name}.{key}": np.asarray(value) for key, value in arrays.items()}
