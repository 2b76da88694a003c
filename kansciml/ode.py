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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kansciml._errors import UsageError, check_seed
from kansciml._files import short_name
from kansciml.backends.base import MAX_STEPS, OdeProblem, OdeSolver
from kansciml.backends.select import BACKENDS, OdeBackend, open_backend
from kansciml.backends.torch import ModuleField
from kansciml.models.field_spec import FieldSpec
from kansciml.models.inputs import Inputs
from kansciml.tasks.ode.data import (
    Trajectory,
    hardly_varying,
    read_csv,
    system_from_trajectories,
    system_from_trajectory,
    with_normalisation,
)
from kansciml.tasks.ode.evaluation import NONE_HELD_OUT, Metrics, evaluate
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.fitting.objective import Measurements, Objective, OwnLoss
from kansciml.tasks.ode.fitting.windows import in_windows, prepared, uncut
from kansciml.tasks.ode.problem import FieldConfig, make_field, make_problem
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import available_systems, get_system
from kansciml.tasks.ode.system import System
from kansciml.training.flat import FlatResult, FlatTraining, Progress, train_flat

__all__ = [
    "BACKENDS",
    "FieldConfig",
    "FieldSpec",
    "FlatTraining",
    "Measurements",
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
        loss_terms: what ``fit.loss`` consists of: ``data``, and ``continuity``, ``l1``, ``entropy`` where they count;
            empty if there is no such loss.
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
    loss_terms: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def params(self) -> np.ndarray:
        """Best parameters (P,) of `problem`."""
        return self.fit.params

    @property
    def initial_states(self) -> np.ndarray:
        """Initial states (K, n) of the trajectories that were trained on; learned ones as they were learned."""
        learned = self.problem.solved_in.states_out(self.problem.split(self.params)[1])
        return np.stack([at if one.learned else one.u0 for at, one in zip(learned, self.problem.series)])

    def trajectory(
        self,
        t: float | Sequence[float] | np.ndarray | None = None,
        tolerance: float = 1e-10,
        *,
        series: int = 0,
        u0: np.ndarray | None = None,
        t0: float | None = None,
        inputs: Inputs | None = None,
    ) -> np.ndarray:
        """States (T, n) of the trained model, from the initial state of a trajectory that it was trained on or another.

        Args:
            t: times (T,) in any order, repeats allowed, or one number; each at or after the initial one; None: those of
                the training data.
            tolerance: rtol and atol, in the units of `make_problem` (default 1e-10).
            series: index of the trajectory whose initial state (learned ones as they were learned), initial time and
                inputs are taken.
            u0, t0, inputs: other ones (n,) to take, in the unit of the data.

        Raises:
            UsageError: a time before t0 or not finite. SolveError: the solution does not reach the last time.
        """
        return self._solver.trajectory(self.params, t, tolerance, tolerance, series=series, u0=u0, t0=t0, inputs=inputs)

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
    solver: str | None = None,
    learn_u0: bool = False,
    shooting: int = 0,
    continuity: float | Sequence[float] = 1.0,
    batch_trajectories: int = 0,
    component_weights: Sequence[float] = (),
    loss: OwnLoss | None = None,
    l1: float = 0.0,
    entropy: float = 0.0,
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
        solver: see `OdeProblem`; default: ``"stiff"`` if the system is stiff, else ``"5"``.
        learn_u0: learn the initial states too, from a first guess in the data, as where they are noisy or unobserved.
        shooting: multiple shooting, for long or oscillating series: rows of data in each window that a trajectory is
            cut into (default 0: it is not); neighbouring windows share a row, and the later one starts from a state
            that is learned. What was trained is judged, and returned, as one trajectory from the first state on.
        continuity: weight in the loss of the mean squared gap between windows, in multiples of `loss_scale`; several,
            growing: one after the other in equal parts of Adam, the last one from then on.
        batch_trajectories: trajectories, or windows, that one Adam step fits, drawn with the seed (default 0: all). In
            every tenth epoch, and in L-BFGS always, the loss is that over all, by which the best parameters are found.
        component_weights: weight of each component in the loss (default 1 each).
        loss: a loss of your own in place of the mean squared error, called as ``loss(states, measured)`` with the states
            (T, n) of each trajectory or window, torch tensors in the unit of the data, and its `Measurements`; returns
            a scalar tensor of order one, which torch differentiates, for either backend.
        l1, entropy: weights of penalties in the loss: see `kansciml.models.edge_penalty`.
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
    weights = tuple(np.atleast_1d(np.asarray(continuity, dtype=np.float64)).tolist())
    fit_config = FitConfig(
        learn_u0, shooting, weights, batch_trajectories, tuple(map(float, component_weights)), l1, entropy
    )
    fit_config.check_with(training.curriculum)
    problem = make_problem(system, spec, rtol, atol, max_steps, solver=solver, learn_u0=learn_u0)
    problem = prepared(problem, fit_config)
    windows = in_windows(problem, shooting) if shooting else problem
    objective = Objective([opened.solver(replace(windows, continuity=weight)) for weight in weights], fit_config, loss)
    initial, count = windows.initial_parameters(seed), len(windows.series)
    try:
        fit = train_flat(
            objective,
            initial,
            training,
            subset=lambda step: fit_config.part(step, training.adam_steps, training.share(step), count, seed),
            all_every=fit_config.all_every(count),
            checkpoint=checkpoint,
            identity=run_identity(windows, objective, seed) if checkpoint else "",
            progress=progress,
            log=log,
        )
    except BaseException:
        if isinstance(spec, ModuleField):  # the same call with the same module then resumes
            spec.load_flat(initial[: spec.n_parameters])
        raise
    terms = objective.terms(fit.params) if np.isfinite(fit.loss) else {}
    if log and len(terms) > 1:
        log(f"loss {fit.loss:.4g}: " + " + ".join(f"{value:.4g} {name}" for name, value in terms.items()))
    whole = objective.solver
    if windows is not problem:
        whole, fit = opened.solver(problem), replace(fit, params=uncut(problem, windows, fit.params))
    metrics, states = evaluate(whole, system, fit.params)
    for name, value in metrics.items():
        if log and value is None and "relative" not in name and metrics.missing[name] != NONE_HELD_OUT:
            log(f"{name.removesuffix('_mse')} error not computed: {metrics.missing[name]}")
    return OdeRun(system, spec, problem, seed, whole.backend, whole.method, fit, metrics, states, whole, terms)


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


def run_identity(problem: OdeProblem, objective: Objective, seed: int = 0) -> dict[str, Any]:
    """What tells one run from another in a checkpoint, besides initial values and training settings.

    Args:
        problem: what is solved. objective: what is minimised; its settings count where they are not the defaults.
        seed: of the minibatches.
    """
    spec, solver, own = problem.field, objective.solver, objective.own
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
    solved: dict[str, Any] = {"rtol": problem.rtol, "atol": problem.atol, "max_steps": problem.max_steps}
    if problem.solver != OdeProblem.solver:
        solved["solver"] = problem.solver
    further: dict[str, Any] = {}
    if set_ones := {k: v for k, v in asdict(objective.fit).items() if v != getattr(FitConfig, k)}:
        further["settings of the fit"] = set_ones | ({"seed": seed} if objective.fit.batch_trajectories else {})
    if own is not None:
        further["loss"] = fingerprint(own)
    return {**field, "data": data, "solver": [solver.backend, solver.method, solved], **further}
