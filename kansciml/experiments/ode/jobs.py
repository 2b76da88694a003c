"""Plans trainings of neural ODEs: one job per system, backend, variant and seed; every system is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kansciml._errors import UsageError
from kansciml.backends.base import OdeProblem
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.record import ROLES
from kansciml.models.hybrid_spec import HybridSpec, Spec
from kansciml.models.lux_field import LuxField
from kansciml.runs.settings import seed_range
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.fitting.windows import prepared
from kansciml.tasks.ode.problem import make_problem, validation_problem
from kansciml.tasks.ode.system import System

UNREAD = 1000
"""Parameters that a layer of Lux counts as having until Julia has read its file."""


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        system: where its system is read from. variant: of the model, such as ``mlp`` or ``kan-params``.
        spec: the field. seed: of its first parameters. backend: torch or julia. config: solver and optimiser.
        shown: roles of the trajectories whose curves the record is to hold; errors are measured on all.
    """

    system: SystemConfig
    variant: str
    spec: Spec | LuxField
    seed: int
    backend: str
    config: RunConfig
    shown: tuple[str, ...] = tuple(ROLES)

    @property
    def group(self) -> str:
        """Name of the variant, with the backend where there are two."""
        return f"{self.variant}@{self.backend}" if self.config.backend == "both" else self.variant

    @property
    def id(self) -> str:
        return f"{self.system.name}.{self.group}.{self.backend}.{self.seed}"

    @property
    def method(self) -> str | None:
        """How gradients are computed; None: the backend's default."""
        return self.config.method(self.backend)

    def problem(self, system: System) -> OdeProblem:
        """What is trained on the data of its system, before trajectories are cut into windows.

        Raises:
            UsageError: the settings of the fit do not suit the data or the field.
        """
        own, fit = self.config, self.config.fit
        problem = make_problem(
            system, self.spec, own.rtol, own.atol, own.max_steps, solver=own.solver, learn_u0=fit.learn_u0
        )
        return prepared(problem, fit)

    @property
    def steps(self) -> int:
        """Iterations of the optimiser."""
        return self.config.training.adam_steps + self.config.training.lbfgs_steps

    @property
    def cost(self) -> int:
        """Roughly proportional to the time of the training."""
        return self.steps * self.spec.state_size * (self.spec.n_parameters or UNREAD)


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Args:
        jobs: the trainings, in the order of the record. systems: what their `Job.system` names.
        notes: what was doubtful about their data, in lines for the user.
    """

    jobs: list[Job]
    systems: Mapping[SystemConfig, System]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids = {job.id for job in self.jobs}
        if not ids or len(ids) != len(self.jobs):
            raise UsageError(f"got {len(self.jobs)} runs with {len(ids)} different names: expected as many")

    @classmethod
    def of(
        cls,
        sources: Iterable[SystemConfig],
        fields: Callable[[System], Mapping[str, Spec | LuxField]],
        config: RunConfig,
        shown: tuple[str, ...] = tuple(ROLES),
    ) -> Plan:
        """Train every variant of every system; `fields`: variant -> field; `shown`: see `Job`.

        Raises:
            UsageError: whatever is wrong with the request.
        """
        sources = list(sources)
        notes: list[str] = []
        systems = {source: source.resolve(notes.append) for source in sources}
        for system in systems.values():
            own = system.field_settings | (system.training_settings if config.suited_to(system) != config else {})
            if own:
                told = ", ".join(f"{name} {value}" for name, value in own.items())
                notes.append(f"{system.name}: settings of its own in place of the defaults: {told}")
        jobs = [
            Job(source, variant, spec, seed, backend, config.suited_to(systems[source]), shown)
            for source in sources
            for backend in config.backends
            for variant, spec in fields(systems[source]).items()
            for seed in seed_range(config)
        ]
        for job in jobs:
            if isinstance(job.spec, HybridSpec) and job.backend == "torch" and job.method not in (None, "replay"):
                raise UsageError(f"got gradient {job.method} for known terms: expected replay")
        for job in {(job.system, job.spec): job for job in jobs}.values():
            if systems[job.system].trajectories or config.fit != FitConfig():  # else nothing can be unsuitable
                validation_problem(systems[job.system], job.problem(systems[job.system]))
        return cls(jobs, systems, tuple(notes))


def read_again(source: SystemConfig, digest: str) -> System:
    """The system of a `fingerprint`, as another process reads it.

    Raises:
        UsageError: its file now gives another one.
    """
    system = source.resolve()
    if fingerprint(system) != digest:
        raise UsageError(
            f"{source.source} gives another system each time it is read: seed its random numbers, or leave the file"
            " and its data alone while the run lasts"
        )
    return system
