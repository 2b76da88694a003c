"""Neural ODEs: train a KAN or an MLP on a dynamical system, in PyTorch or in Julia.

    from kansciml import ode

    run = ode.train("lotka", model="kan", match="params")
    run.metrics["train_mse"], run.field.label(), run.trajectory([0.0, 1.0, 2.0])

The pieces are here too: systems and data (`get_system`, `read_csv`, `system_from_trajectory`), fields
(`make_field`), problems (`make_problem`), backends (`open_backend`), the trainer (`train_flat`) and measures
(`evaluate`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kansciml._errors import UsageError, check_seed
from kansciml._files import short_name
from kansciml.backends.base import MAX_STEPS, OdeProblem, OdeSolver, Subset
from kansciml.backends.select import BACKENDS, OdeBackend, open_backend
from kansciml.backends.torch import ModuleField
from kansciml.models.field_spec import FieldSpec
from kansciml.tasks.ode.data import (
    Trajectory,
    hardly_varying,
    read_csv,
    system_from_trajectories,
    system_from_trajectory,
    with_normalisation,
)
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.problem import FieldConfig, Metrics, evaluate, make_field, make_problem
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatResult, FlatTraining, Progress, train_flat

__all__ = [
    "BACKENDS",
    "FieldConfig",
    "FieldSpec",
    "FlatTraining",
    "OdeProblem",
    "OdeRun",
    "OdeSolver",
    "System",
    "Trajectory",
    "available_systems",
    "evaluate",
    "get_system",
    "make_field",
    "make_problem",
    "open_backend",
    "read_csv",
    "reference_solution",
    "system_from_trajectories",
    "system_from_trajectory",
    "train",
    "train_flat",
]


TABLES = (".csv", ".tsv", ".txt", ".dat", ".gz", ".bz2", ".xz", ".zip")
"""Ends of the names of files that `read_csv` reads; the last four are those of compressed ones."""


@dataclass(frozen=True, eq=False)
class OdeRun:
    """A trained neural ODE.

    Args:
        system: what was learned. field: by which vector field. problem: with which settings.
        seed: of the initial parameters. backend, method: how it was solved and differentiated.
        fit: parameters, loss history, status (see `FlatResult`).
        metrics: errors re-evaluated at tolerance 1e-10 (see `evaluate`); ``metrics.missing`` says why of each that is
            None.
        states: states (T, n) at ``system.test_saveat``.
    """

    system: System
    field: FieldSpec | ModuleField
    problem: OdeProblem
    seed: int
    backend: str
    method: str
    fit: FlatResult
    metrics: Metrics
    states: np.ndarray = dataclasses.field(repr=False)
    _solver: OdeSolver = dataclasses.field(repr=False)

    @property
    def params(self) -> np.ndarray:
        """Best parameters (P,)."""
        return self.fit.params

    def trajectory(self, t: float | Sequence[float] | np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
        """States (T, n) of the trained model from the system's initial state on.

        Args:
            t: times (T,) in any order, repeats allowed, or one number; each at or after the system's `t0`.
            tolerance: rtol and atol, in the units of `make_problem` (default 1e-10).

        Raises:
            UsageError: a time before t0 or not finite. SolveError: the solution does not reach the last time.
        """
        return self._solver.trajectory(self.params, t, tolerance, tolerance)

    def __call__(self, u: np.ndarray, t: float | np.ndarray | None = None) -> np.ndarray:
        """du/dt of the trained field at states (..., n) and a time, or one for each state (...); default the system's
        `t0`. The built-in fields do not depend on time."""
        u = np.asarray(u, dtype=np.float64)
        if u.ndim == 0 or u.shape[-1] != self.field.state_size:
            raise UsageError(f"got states of shape {u.shape}: expected (..., {self.field.state_size})")
        t = np.asarray(self.problem.t0 if t is None else t, dtype=np.float64)
        if t.shape not in ((), u.shape[:-1]):
            raise UsageError(f"got times of shape {t.shape}: expected one number or {u.shape[:-1]}")
        return self._solver.rhs(u.reshape(-1, u.shape[-1]), t.ravel() if t.ndim else t, self.params).reshape(u.shape)


def train(
    system: System | Trajectory | str | Path = "lotka",
    model: str | nn.Module | FieldSpec = "kan",
    *,
    match: str = "width",
    seed: int = 0,
    backend: str | OdeBackend = "torch",
    training: FlatTraining | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    max_steps: int = MAX_STEPS,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
    **settings: Any,
) -> OdeRun:
    """Train a neural ODE by Adam, then L-BFGS.

    Args:
        system: a `System`, its name, a path to a ``.py`` file defining SYSTEM, a table of times and states (a file
            whose name ends as one of `TABLES`, or a `Path` of another ending), or a `Trajectory` of your own.
        model: ``"mlp"``, ``"kan"``, a `FieldSpec`, or a torch module called as ``module(t, u)`` (torch only). The first
            two learn the same in any unit of the data; a module or a `FieldSpec` of your own is in these units itself,
            so scale states, times and slopes in it. What a module must be: `kansciml.backends.torch.ModuleField`.
        match: see `make_field`.
        seed: of the initial parameters; the same for every backend.
        backend: ``"torch"`` (default), ``"julia"``, ``"auto"``, or a backend that `open_backend` gave.
        training: optimiser settings (default: those of `FlatTraining`).
        rtol, atol: solver tolerances in training, see `make_problem`; results are re-evaluated at 1e-10.
        max_steps: steps of one solve before it is given up, in training and in that re-evaluation (default 20000).
        checkpoint: file to keep the state in; a run found there is resumed if it is of the same job: data, field (a
            module's code and initial values), solver and training settings. Another is refused.
        progress, log: see `train_flat`.
        settings: of the field, for ``"mlp"`` and ``"kan"``: those of `FieldConfig`, such as ``hidden`` and ``grid``.

    Raises:
        UsageError: unknown name, malformed file, a value out of range.
        BackendUnavailable: Julia was asked for and does not start.
        KansciError: checkpoint unreadable or of another job, worker died.
    """
    seed = check_seed(seed)
    system = resolve_system(system, log=log)
    config = FieldConfig(**settings)
    if log and (names := hardly_varying(system)):
        told = "varying by less than 1e-9 of its size counts as constant; subtract the mean to learn the rest"
        log(f"{', '.join(names)}: {told}")
    if isinstance(model, FieldSpec):
        spec: FieldSpec | ModuleField = model
    elif isinstance(model, nn.Module):
        spec = ModuleField(model, system.state_size)
    else:
        spec = make_field(system, model, match=match, config=config)
    opened = open_backend(backend, log=log or (lambda line: None)) if isinstance(backend, str) else backend
    if isinstance(spec, ModuleField) and opened.name != "torch":
        raise UsageError(f"got a torch module and backend {opened.name!r}: a module of your own needs backend 'torch'")
    training = training or FlatTraining()
    problem = make_problem(system, spec, rtol, atol, max_steps)
    solver = opened.solver(problem)
    initial = problem.initial_parameters(seed)
    try:
        fit = train_flat(
            solver.value_and_grad,
            initial,
            training,
            subset=lambda step: Subset(share=share) if (share := training.share(step)) < 1 else None,
            checkpoint=checkpoint,
            identity=run_identity(problem, solver) if checkpoint else "",
            progress=progress,
            log=log,
        )
    except BaseException:
        if isinstance(spec, ModuleField):  # the same call with the same module then resumes
            spec.load_flat(initial[: spec.n_parameters])
        raise
    metrics, states = evaluate(solver, system, fit.params)
    for span in ("train", "test") if system.test_end is not None else ("train",):
        if log and metrics[f"{span}_mse"] is None:
            log(f"{span} error not computed: {metrics.missing[f'{span}_mse']}")
    return OdeRun(system, spec, problem, seed, solver.backend, solver.method, fit, metrics, states, solver)


def resolve_system(
    system: System | Trajectory | str | Path,
    train_fraction: float = 1.0,
    time_column: str | None = None,
    log: Callable[[str], None] | None = None,
) -> System:
    """A `System` from whatever names one, with its scaling: see `train`, and `read_csv` for `time_column` and `log`."""
    if isinstance(system, System):
        return with_normalisation(system)
    if isinstance(system, Trajectory):
        return system_from_trajectories(system, system.source or "data", train_fraction)
    path = Path(system)
    if path.suffix in TABLES or (isinstance(system, Path) and path.suffix != ".py"):
        name = path.name.removesuffix(path.suffix) if path.suffix in TABLES[-4:] else path.name  # data.csv.gz
        trajectory = read_csv(path, time_column, log)
        return system_from_trajectories(trajectory, short_name(Path(name).stem), train_fraction)
    return get_system(system)


def run_identity(problem: OdeProblem, solver: OdeSolver) -> dict[str, Any]:
    """What tells one run from another in a checkpoint, besides initial values and training settings."""
    spec = problem.field
    data = fingerprint(*(part for one in problem.series for part in one.told()), problem.loss_scale, problem.units)
    field: dict[str, Any]
    if isinstance(spec, FieldSpec):
        field = {"field": asdict(spec)}
    else:
        parameters = list(spec.module.parameters())
        shapes = [[name, list(p.shape), p.requires_grad] for name, p in spec.module.named_parameters()]
        field = {
            "module": [spec.label(), shapes],
            "code or attributes of the module": fingerprint(spec.module, without=parameters),
        }
    solved = {"rtol": problem.rtol, "atol": problem.atol, "max_steps": problem.max_steps}
    return {**field, "data": data, "solver": [solver.backend, solver.method, solved]}
