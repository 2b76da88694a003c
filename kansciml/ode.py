"""Neural ODEs: train a KAN or an MLP on a dynamical system, in PyTorch or in Julia.

    from kansciml import ode

    run = ode.train("lotka", model="kan", match="params")
    run.metrics["train_mse"], run.field.label(), run.trajectory([0.0, 1.0, 2.0])
    run.save("lotka-kan")
    ode.load("lotka-kan").trajectory([0.0, 1.0, 2.0], u0=[2.0, 1.0])  # in any process, without the data

The pieces are here too: systems and data (`get_system`, `sampled`, `read_table`, `system_from_trajectories`), fields
(`make_field`; with known terms, `Physics`, `hybrid_field`), problems (`make_problem`), backends (`open_backend`), the
trainer (`train_flat`) and measures (`evaluate`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kansciml._errors import check_seed
from kansciml.backends.base import MAX_STEPS, OdeProblem, OdeSolver, Times
from kansciml.backends.select import BACKENDS, OdeBackend, open_backend, open_for, read_by
from kansciml.backends.torch import ModuleField
from kansciml.models.field_spec import FieldSpec
from kansciml.models.hybrid_spec import HybridSpec, Physics, Spec
from kansciml.models.inputs import Inputs
from kansciml.models.lux_field import ENDING, LuxField
from kansciml.tasks.ode.data import (
    Trajectory,
    hardly_varying,
    read_csv,
    read_table,
    system_from_trajectories,
    system_from_trajectory,
)
from kansciml.tasks.ode.evaluation import NONE_HELD_OUT, Metrics, evaluate, model_states
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.fitting.identity import run_identity
from kansciml.tasks.ode.fitting.objective import Measurements, Objective, OwnLoss
from kansciml.tasks.ode.fitting.windows import in_windows, prepared, uncut, weighted
from kansciml.tasks.ode.problem import (
    FieldConfig,
    field_of,
    hybrid_field,
    lux_field,
    make_field,
    make_problem,
    validation_problem,
)
from kansciml.tasks.ode.reference import reference_solution
from kansciml.tasks.ode.registry import Data, available_systems, get_system, resolve_system, source_file
from kansciml.tasks.ode.sampling import sampled
from kansciml.tasks.ode.system import System
from kansciml.tasks.ode.trained.model import OdeModel
from kansciml.tasks.ode.trained.saved import load_model, save_model
from kansciml.tasks.ode.trajectory import Clock
from kansciml.training.flat import FlatResult, FlatTraining, Progress, checked_ladder, train_flat

__all__ = [
    "BACKENDS",
    "FieldConfig",
    "FieldSpec",
    "FlatTraining",
    "Inputs",
    "Measurements",
    "OdeModel",
    "OdeProblem",
    "OdeRun",
    "OdeSolver",
    "Physics",
    "System",
    "Trajectory",
    "available_systems",
    "evaluate",
    "get_system",
    "hybrid_field",
    "load",
    "make_field",
    "make_problem",
    "open_backend",
    "read_csv",
    "read_table",
    "reference_solution",
    "sampled",
    "system_from_trajectories",
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
        fit: parameters, loss history, status (see `FlatResult`); its history's ``work`` is evaluations of the field.
        metrics: errors re-evaluated at tolerance 1e-10 (see `evaluate`); ``metrics.missing`` says why of each that is
            None.
        states: states (T, n) at ``system.test_saveat``.
        loss_terms: what ``fit.loss`` consists of: ``data``, and ``continuity``, ``l1``, ``entropy`` where they count;
            empty if there is no such loss.
    """

    system: System
    field: Spec | LuxField | ModuleField
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

    @property
    def estimates(self) -> dict[str, float]:
        """Estimated values of the parameters of known terms, by name: see `Physics`."""
        return self.field.estimates(self.params) if isinstance(self.field, HybridSpec) else {}

    @cached_property
    def model(self) -> OdeModel:
        """The trained model without its data, which can be kept: see `OdeModel`."""
        system, problem = self.system, self.problem
        data = fingerprint(*(part for one in problem.series for part in one.told()))
        about = {
            "system": system.name, "title": system.title, "source": system.citation, "data": data, "seed": self.seed,
            "backend": self.backend, "method": self.method, "status": self.fit.status, "loss": self.fit.loss,
            "train_end": system.train_end, "time_label": system.time_label,
            "clock": asdict(system.trajectories[0].clock if system.trajectories else Clock()),
        }  # fmt: skip
        inputs = system.trajectories[0].input_labels if system.trajectories else ()
        return OdeModel(problem, self.params, self.metrics, system.labels, inputs, about, self._solver)

    def trajectory(self, t: Times | None = None, tolerance: float = 1e-10, **start: Any) -> np.ndarray:
        """States (T, n) of the trained model at times (default: those of the training data), from the initial state of
        a trajectory that it was trained on, or another: see `OdeModel.trajectory`."""
        return self.model.trajectory(t, tolerance, **start)

    def __call__(self, u: np.ndarray, t: float | np.ndarray | None = None, inputs: Any = None) -> np.ndarray:
        """du/dt of the trained field at states (..., n): see `OdeModel`."""
        return self.model(u, t, inputs)

    def predicted(self, k: int, t: Times) -> np.ndarray:
        """States (T, n) at times of the system's trajectory k, also of one that was held out: see `model_states`."""
        return model_states(self._solver, self.system, self.params, k, t)

    def save(self, folder: str | Path) -> Path:
        """Keep the trained model in a folder, without its data, and with the file that defined its system: see `load`.

        Raises:
            UsageError: the folder holds something else. KansciError: it cannot be written.
        """
        return save_model(self.model, Path(folder), source_file(self.system))


def load(
    folder: str | Path,
    module: nn.Module | None = None,
    backend: str | OdeBackend = "torch",
    log: Callable[[str], None] | None = None,
) -> OdeModel:
    """A trained model that `OdeRun.save` kept, as it was: see `kansciml.tasks.ode.trained.saved`. That of a layer of
    Lux wants ``backend="julia"``, which runs the file that defined it.

        model = ode.load("lotka-kan")
        model.trajectory([0.0, 1.0, 2.0], u0=[2.0, 1.0])

    Args:
        module: for a torch module of your own, one of the same class; its parameters are set.
        backend: ``"torch"`` (default), ``"julia"``, ``"auto"``, or a backend that `open_backend` gave.

    Raises:
        UsageError: there is no model, or it needs another module or none.
        KansciError: damaged files, or of another version.
        BackendUnavailable: Julia was asked for and does not start.
    """
    return load_model(Path(folder), module, backend, log or (lambda line: None))


def train(
    system: Data = "lotka",
    model: str | Path | nn.Module | Spec | LuxField = "kan",
    *,
    match: str = "width",
    seed: int = 0,
    backend: str | OdeBackend = "torch",
    training: FlatTraining | None = None,
    rtol: float = 1e-7,
    atol: float = 1e-7,
    ladder: Sequence[float] = (),
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

    The result is what did best on all training data; where the system has trajectories for validation, what did best on
    these, judged at every tenth iteration.

    Args:
        system: a `System`, its name, a path to a ``.py`` file defining SYSTEM, a table of times and states (a file
            whose name ends as one of `TABLES`, or a `Path` of another ending, a pandas DataFrame, an xarray Dataset),
            or a `Trajectory` of your own or a list of them. Tables of several trajectories, inputs or weights:
            `read_table`; held-out trajectories: `system_from_trajectories`; synthetic ones and noise: `sampled`.
        model: ``"mlp"``, ``"kan"``, a `FieldSpec`, a torch module called as ``module(t, u)`` (torch only), or a Julia
            file that defines a layer of Lux, ``"my_field.jl"`` (Julia only). The first two learn the same in any unit
            of the data; a module, layer or `FieldSpec` of your own is in these units itself, so scale states, times and
            slopes in it. What it must be: `kansciml.backends.torch.ModuleField`, `kansciml.models.lux_field.LuxField`.
        match: see `make_field`.
        seed: of the initial parameters; the same for every backend.
        backend: ``"torch"`` (default), ``"julia"``, ``"auto"``, or a backend that `open_backend` gave.
        training: optimiser settings (default: those of `FlatTraining`, or the system's `training_settings`).
        rtol, atol: solver tolerances in training, see `make_problem`; results are re-evaluated at 1e-10.
        ladder: factors, below 1 and falling, of both tolerances, at which L-BFGS goes on in turn until that gains
            nothing, such as (1e-2, 1e-4): see `train_flat` (default: none).
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
        loss: one of your own in place of the mean squared error, called as ``loss(states, measured)`` with the states
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
    FieldConfig(**settings)  # refuses what is wrong before anything else is done
    if log and system.time_dependent:
        log(f"du/dt of {system.name} depends on the time, which the field is therefore given beside the state")
    if log and (names := hardly_varying(system)):
        told = "varying by less than 1e-9 of its size counts as constant; subtract the mean to learn the rest"
        log(f"{', '.join(names)}: {told}")
    if isinstance(model, (FieldSpec, HybridSpec, LuxField)):
        spec: Spec | LuxField | ModuleField = model
    elif isinstance(model, nn.Module):
        spec = ModuleField(model, system.state_size)
    elif isinstance(model, Path) or model.endswith(ENDING):
        spec = lux_field(system, Path(model))
    else:
        spec = field_of(system, model, match=match, **settings)
    opened = open_for(spec, backend, log=log)
    if isinstance(spec, LuxField):
        spec = read_by(opened, spec)
    training = training or FlatTraining(**system.training_settings)
    weights = tuple(np.atleast_1d(np.asarray(continuity, dtype=np.float64)).tolist())
    of_components = tuple(map(float, component_weights))
    fit_config = FitConfig(learn_u0, shooting, weights, batch_trajectories, of_components, l1, entropy)
    fit_config.check_with(training.curriculum)
    problem = make_problem(system, spec, rtol, atol, max_steps, solver=solver, learn_u0=learn_u0)
    problem = prepared(problem, fit_config)
    windows = in_windows(problem, shooting) if shooting else problem
    solvers = [opened.solver(replace(windows, continuity=weight)) for weight in weights]
    validation = validation_problem(system, problem)
    held_out = None if validation is None else opened.solver(weighted(validation, component_weights))
    objective = Objective(solvers, fit_config, loss, held_out)
    tighter = [
        Objective(
            [opened.solver(replace(windows, continuity=weights[-1], rtol=rtol * one, atol=windows.atol * one))],
            fit_config,
            loss,
        )
        for one in checked_ladder(ladder)
    ]
    initial, count = windows.initial_parameters(seed), len(windows.series)
    counted = [*solvers, *(one.solver for one in tighter)]
    try:
        fit = train_flat(
            objective,
            initial,
            training,
            tighter=tighter,
            subset=lambda step: fit_config.part(step, training.adam_steps, training.share(step), count, seed),
            all_every=fit_config.all_every(count),
            validate=objective.validate if held_out else None,
            checkpoint=checkpoint,
            identity=run_identity(objective, seed, ladder) if checkpoint else "",
            cpu=lambda: time.process_time() + opened.cpu_seconds(),
            work=lambda: sum(one.evaluations for one in counted),
            progress=progress,
            log=log,
        )
    except BaseException:
        if isinstance(spec, ModuleField):  # the same call with the same module then resumes
            spec.load_flat(initial[: spec.n_parameters])
        raise
    terms = objective.terms(fit.params, fit.loss) if np.isfinite(fit.loss) else {}
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
