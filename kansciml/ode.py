"""Neural ODEs: train a KAN or an MLP on a dynamical system, in PyTorch or in Julia.

    from kansciml import ode

    run = ode.train("lotka", model="kan", match="params")
    run.metrics["train_mse"], run.field.label(), run.trajectory([0.0, 1.0, 2.0])

The pieces are here too: systems and data (`get_system`, `read_csv`, `system_from_trajectory`), fields
(`make_field`), problems (`make_problem`), backends (`open_backend`), the trainer (`train_flat`) and measures
(`evaluate`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from kansciml._errors import UsageError, check_seed
from kansciml._files import short_name
from kansciml.backends.base import FieldSpec, OdeProblem, OdeSolver
from kansciml.backends.select import BACKENDS, OdeBackend, open_backend
from kansciml.backends.torch import ModuleField
from kansciml.tasks.ode.data import Trajectory, read_csv, system_from_trajectory
from kansciml.tasks.ode.problem import evaluate, make_field, make_problem
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatResult, FlatTraining, Progress, train_flat

__all__ = [
    "BACKENDS",
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
    "system_from_trajectory",
    "train",
    "train_flat",
]


@dataclass(frozen=True, eq=False)
class OdeRun:
    """A trained neural ODE.

    Args:
        system: what was learned. field: by which vector field. problem: with which settings.
        seed: of the initial parameters. backend, method: how it was solved and differentiated.
        fit: parameters, loss history, status (see `FlatResult`).
        metrics: errors re-evaluated at tolerance 1e-10 (see `evaluate`).
        states: states (T, n) at ``system.test_saveat``.
    """

    system: System
    field: FieldSpec | ModuleField
    problem: OdeProblem
    seed: int
    backend: str
    method: str
    fit: FlatResult
    metrics: dict[str, float | None]
    states: np.ndarray = field(repr=False)
    _solver: OdeSolver = field(repr=False)

    @property
    def params(self) -> np.ndarray:
        """Best parameters (P,)."""
        return self.fit.params

    def trajectory(self, t: Sequence[float] | np.ndarray, tolerance: float = 1e-10) -> np.ndarray:
        """States (T, n) of the trained model at increasing times, from the system's initial state."""
        return self._solver.trajectory(self.params, np.asarray(t, dtype=np.float64), tolerance, tolerance)

    def __call__(self, u: np.ndarray, t: float = 0.0) -> np.ndarray:
        """du/dt of the trained field at states (B, n) or (n,)."""
        u = np.asarray(u, dtype=np.float64)
        return self._solver.rhs(u.reshape(-1, u.shape[-1]), t, self.params).reshape(u.shape)


def train(
    system: System | Trajectory | str | Path = "lotka",
    model: str | nn.Module | FieldSpec = "kan",
    *,
    match: str = "width",
    hidden: Sequence[int] = (),
    grid: int = 5,
    spline_order: int = 3,
    grid_range: tuple[float, float] = (-1.0, 1.0),
    input_scaling: str = "affine",
    seed: int = 0,
    backend: str | OdeBackend = "torch",
    training: FlatTraining | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> OdeRun:
    """Train a neural ODE by Adam, then L-BFGS.

    Args:
        system: a `System`, its name, a path to a ``.py`` file defining SYSTEM, a ``.csv`` file of times and states (or
            a `Path` of another ending), or a `Trajectory` of your own.
        model: ``"mlp"``, ``"kan"``, a `FieldSpec`, or a torch module called as ``module(t, u)`` (torch only).
        match, hidden, grid, spline_order, grid_range, input_scaling: see `make_field`.
        seed: of the initial parameters; the same for every backend.
        backend: ``"torch"`` (default), ``"julia"``, ``"auto"``, or a backend that `open_backend` gave.
        training: optimiser settings (default: those of `FlatTraining`).
        rtol, atol: solver tolerances in training; results are re-evaluated at 1e-10.
        checkpoint: file to keep the state in; a run found there is resumed.
        progress, log: see `train_flat`.

    Raises:
        UsageError: unknown name, malformed file, a value out of range.
        BackendUnavailable: Julia was asked for and does not start.
        KansciError: checkpoint unreadable, worker died.
    """
    seed = check_seed(seed)
    system = resolve_system(system)
    settings = training or FlatTraining()
    if isinstance(model, FieldSpec):
        spec: FieldSpec | ModuleField = model
    elif isinstance(model, nn.Module):
        spec = ModuleField(model, system.state_size)
    else:
        spec = make_field(
            system,
            model,
            match=match,
            hidden=hidden,
            grid=grid,
            spline_order=spline_order,
            grid_range=grid_range,
            input_scaling=input_scaling,
        )
    opened = open_backend(backend, log=log or (lambda line: None)) if isinstance(backend, str) else backend
    if isinstance(spec, ModuleField) and opened.name != "torch":
        raise UsageError(f"got a torch module and backend {opened.name!r}: a module of your own needs backend 'torch'")
    problem = make_problem(system, spec, rtol, atol)
    solver = opened.solver(problem)
    fit = train_flat(
        solver.value_and_grad,
        spec.initial_parameters(seed),
        settings,
        n_save=len(problem.saveat),
        checkpoint=checkpoint,
        identity=run_identity(problem, seed, solver),
        progress=progress,
        log=log,
    )
    metrics, states = evaluate(solver, system, fit.params)
    return OdeRun(system, spec, problem, seed, solver.backend, solver.method, fit, metrics, states, solver)


def resolve_system(system: System | Trajectory | str | Path, train_fraction: float = 1.0) -> System:
    """A `System` from whatever names one: see `train`."""
    if isinstance(system, System):
        return system
    if isinstance(system, Trajectory):
        return system_from_trajectory(system, system.source or "data", train_fraction)
    if str(system).endswith(".csv") or (isinstance(system, Path) and system.suffix != ".py"):
        path = Path(system)
        return system_from_trajectory(read_csv(path), short_name(path.stem), train_fraction)
    return get_system(system)


def run_identity(problem: OdeProblem, seed: int, solver: OdeSolver) -> str:
    """Text that tells one run from another in a checkpoint."""
    spec = problem.field
    described = asdict(spec) if isinstance(spec, FieldSpec) else [spec.label(), spec.n_parameters]
    data = [problem.u0.tolist(), problem.saveat.tolist(), float(np.sum(problem.data**2)), problem.rtol, problem.atol]
    return json.dumps([described, data, problem.loss_scale.tolist(), seed, solver.backend, solver.method])
