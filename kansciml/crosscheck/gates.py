"""The gates between two solvers of one problem, and all that are to be passed for a system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kansciml.backends._engines.relaxing import EXPLICIT
from kansciml.backends.base import Integrator, OdeProblem, OdeSolver, Subset
from kansciml.backends.select import OdeBackend
from kansciml.backends.torch import TorchOdeSolver
from kansciml.crosscheck.cases import Case, cases_of
from kansciml.crosscheck.reference import ReferenceSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.tasks.ode.problem import make_field, make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.tasks.ode.system import System
from kansciml.training._flat_state import Iterate
from kansciml.training.flat import FlatTraining, adam_step

TOLERANCE = 1e-10
ADAM_STEPS = 20
RHS, TRAJECTORY, LOSS, GRADIENT, TRAINING = 1e-12, 1e-7, 1e-9, 1e-6, 1e-6
"""Allowed: relative, absolute in the problem's `units`, relative, relative, relative (or `training_allowed`)."""
TRAINED = FlatTraining()
"""Gate 5 takes the first steps of such a training."""
LOOSER = 10.0
"""Gate 5 allows this many times what this factor in the tolerances changes within one backend."""


@dataclass(frozen=True)
class Gate:
    """One measured difference against the allowed one."""

    system: str
    model: str
    pair: str
    number: int
    quantity: str
    measured: float
    allowed: float

    @property
    def passed(self) -> bool:
        return bool(self.measured <= self.allowed)  # NaN does not pass


def relative(a: np.ndarray | float, b: np.ndarray | float) -> float:
    """Largest difference over the largest magnitude."""
    scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) / scale if scale > 0 else 0.0


def samples(problem: OdeProblem, count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """States (count, n) over and around the training data, where a spline grid is left too, times (count,), and inputs
    (count, m), if there are."""
    rng = np.random.default_rng(seed)

    def around(values: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.concatenate(values)
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        return rng.uniform(low - 0.5 * (high - low), high + 0.5 * (high - low), (count, len(low)))

    states = around([one.data for one in problem.series])
    times = rng.uniform(problem.t0, problem.saveat[-1], count)
    inputs = [one.inputs.values for one in problem.series if one.inputs is not None]
    return states, times, around(inputs) if inputs else None


def rhs_gate(a: OdeSolver, b: Integrator, params: np.ndarray) -> float:
    units = a.problem.solved_in
    states, times, inputs = samples(a.problem)
    return relative(*(solver.rhs(states, times, params, inputs) * (units.time / units.state) for solver in (a, b)))


def trajectory_gate(a: OdeSolver, b: Integrator, params: np.ndarray) -> float:
    """Largest difference over all series, in the problem's units."""
    worst = [
        np.max(np.abs(a.trajectory(params, series=k) - b.trajectory(params, series=k)) / a.problem.solved_in.state)
        for k in range(len(a.problem.series))
    ]
    return float(np.max(worst))


def loss_allowed(loss: float, trajectory_difference: float, loss_scale: np.ndarray) -> float:
    """Relative difference of two losses that a difference of their trajectories explains, at least 1e-9.

    With residuals r, |L(u + e) - L(u)| <= 2 sqrt(L) |e| + |e|^2; near an optimum this exceeds 1e-9 L.
    """
    e = trajectory_difference / float(np.min(loss_scale))
    return max(LOSS, (2 * np.sqrt(loss) * e + e * e) / loss) if loss > 0 else float("inf")


def adam_losses(
    solver: OdeSolver, params: np.ndarray, training: FlatTraining = TRAINED
) -> tuple[np.ndarray, np.ndarray]:
    """Losses before each of the first Adam steps of a training, and the parameters after them."""
    zeros = np.zeros_like(params)
    iterate = Iterate(0, params, zeros, zeros, 0)
    losses = []
    for step in range(ADAM_STEPS):
        loss, gradient = solver.value_and_grad(iterate.params)
        losses.append(loss)
        iterate = adam_step(iterate, gradient, training.rate(step))
    return np.array(losses), iterate.params


def training_allowed(problem: OdeProblem, params: np.ndarray, training: FlatTraining = TRAINED) -> float:
    """Difference that gate 5 allows in the losses of the first Adam steps: relative, at least 1e-6.

    It is ten times what a tenfold looser tolerance changes within torch. Two solvers of one tolerance return losses and
    gradients that differ by their errors, and Adam's first steps enlarge that. For an MLP it stays below 1e-8. A KAN's
    splines have kinks in a higher derivative, so that step-size control errs by more: at a tolerance of 1e-10 losses
    part by up to 3e-4 within 20 steps at full learning rate, where a change of the parameters in their last bit makes
    1e-8 at most (the five systems, fields of equal parameters).
    """
    looser = replace(problem, rtol=LOOSER * problem.rtol, atol=LOOSER * problem.atol)
    at, off = (adam_losses(TorchOdeSolver(p), params, training)[0] for p in (problem, looser))
    return max(TRAINING, LOOSER * float(np.max(np.abs(off / at - 1))))


def compare(
    a: OdeSolver,
    b: OdeSolver,
    name: str,
    params: np.ndarray,
    training: FlatTraining = TRAINED,
    allowed_in_training: float = TRAINING,
    explained: bool = False,
) -> Iterator[Gate]:
    """All six gates between two solvers; `name` is that of the system, and gate 5 trains as `training` says."""
    yield from compare_once(a, b, name, params, explained)
    gate = _between(a, b, name)
    scale = a.problem.loss_scale / a.problem.solved_in.state
    (losses_a, trained_a), (losses_b, trained_b) = (adam_losses(s, params, training) for s in (a, b))
    per_step = float(np.max(np.abs(losses_a / losses_b - 1)))
    quantity = f"loss over {ADAM_STEPS} Adam steps at rate {training.learning_rate:g}, relative"
    yield gate(5, quantity, per_step, allowed_in_training)
    for solver, trained in ((a, trained_a), (b, trained_b)):
        loss, other = a.value_and_grad(trained)[0], b.value_and_grad(trained)[0]
        allowed = loss_allowed(loss, trajectory_gate(a, b, trained), scale)
        yield gate(6, f"loss of what {label(solver)} trained, relative", relative(loss, other), allowed)


def compare_once(a: OdeSolver, b: OdeSolver, name: str, params: np.ndarray, explained: bool = False) -> Iterator[Gate]:
    """Gates 1 to 4 between two solvers; of several series, a part counts as well as all.

    Args:
        explained: whether gate 3 allows what the difference of the trajectories explains, as gate 6 does.
    """
    gate = _between(a, b, name)
    yield gate(1, "right-hand side at 200 states, relative", rhs_gate(a, b, params), RHS)
    difference, scale = trajectory_gate(a, b, params), a.problem.loss_scale / a.problem.solved_in.state
    yield gate(2, "trajectory, absolute", difference, TRAJECTORY)
    parts = {"": None} if len(a.problem.series) == 1 else {"": None, " of a part of the data": Subset((0,), 0.8)}
    for of, part in parts.items():
        (loss_a, grad_a), (loss_b, grad_b) = (solver.value_and_grad(params, part) for solver in (a, b))
        allowed = loss_allowed(loss_a, difference, scale) if explained else LOSS
        yield gate(3, f"loss{of} at the initial parameters, relative", relative(loss_a, loss_b), allowed)
        yield gate(4, f"gradient{of}, relative", relative(grad_a, grad_b), GRADIENT)


def compare_with_reference(
    a: OdeSolver,
    reference: ReferenceSolver,
    name: str,
    params: np.ndarray,
    directions: int = 3,
    explained: bool = False,
) -> Iterator[Gate]:
    """Gates 1 to 4 against the independent reference; the gradient along itself and random directions, if any."""
    gate = _between(a, reference, name)
    yield gate(1, "right-hand side at 200 states, relative", rhs_gate(a, reference, params), RHS)
    difference, scale = trajectory_gate(a, reference, params), a.problem.loss_scale / a.problem.solved_in.state
    yield gate(2, "trajectory, absolute", difference, TRAJECTORY)
    loss, gradient = a.value_and_grad(params)
    allowed = loss_allowed(loss, difference, scale) if explained else LOSS
    yield gate(3, "loss at the initial parameters, relative", relative(loss, reference.loss(params)), allowed)
    if directions == 0:
        return
    rng = np.random.default_rng(0)
    worst = 0.0
    for direction in (gradient, *rng.standard_normal((directions - 1, len(params)))):
        direction = direction / np.linalg.norm(direction)
        error = abs(float(gradient @ direction) - reference.slope(params, direction))
        worst = max(worst, error / float(np.linalg.norm(gradient)))
    yield gate(
        4, f"gradient along {directions} direction{'s' * (directions > 1)} by differences, relative", worst, GRADIENT
    )


def label(solver: Integrator) -> str:
    by = "" if solver.problem.solver in ("5", "stiff") else f" {solver.problem.solver}"
    return f"{solver.backend} {solver.method}{by}"


def _between(a: OdeSolver, b: Integrator, name: str) -> Callable[[int, str, float, float], Gate]:
    """Makes the gates of a pair of solvers."""
    return partial(Gate, name, a.problem.field.label(), f"{label(a)} / {label(b)}")


def crosscheck_field(
    system: System,
    field: FieldSpec,
    *,
    julia: OdeBackend | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    further: bool = True,
) -> Iterator[Gate]:
    """All gates for one system and field.

    Args:
        system, field: what to solve.
        julia: a started Julia backend to hold against torch, if there is one.
        seed: of the initial parameters.
        tolerance: rtol and atol of the solvers under test.
        further: go through `cases_of` the problem too.
    """
    problem = make_problem(system, field, tolerance, tolerance)
    params = problem.initial_parameters(seed)
    main = TorchOdeSolver(problem)
    yield from compare_with_reference(main, ReferenceSolver(problem), system.name, params)
    if problem.solver in EXPLICIT:
        yield from compare(main, TorchOdeSolver(problem, "backprop"), system.name, params)
        yield adjoint_gate(main, TorchOdeSolver(problem, "adjoint"), system.name, params)
    else:  # torchdiffeq has explicit solvers alone
        other = TorchOdeSolver(replace(problem, solver="BDF"))
        yield from compare(main, other, system.name, params, TRAINED, training_allowed(problem, params), explained=True)
    if julia is not None:
        allowed = training_allowed(problem, params)
        yield from compare(main, julia.solver(problem), system.name, params, allowed_in_training=allowed)
    for case in cases_of(problem, seed) if further else ():
        yield from crosscheck_case(case, f"{system.name}, {case.name}", julia)


def crosscheck_case(case: Case, name: str, julia: OdeBackend | None = None) -> Iterator[Gate]:
    """Gates 1 to 4 within torch, and all gates between torch and Julia, for one of `cases_of` a problem."""
    problem, params = case.problem, case.params
    main = TorchOdeSolver(problem)
    stiff = problem.solver not in EXPLICIT
    yield from compare_with_reference(main, ReferenceSolver(problem), name, params, 0 if stiff else 1, explained=True)
    # torchdiffeq's dopri5 interpolates to save points between knots, with gradients that are too rough here
    eighth = replace(problem, solver="8") if stiff or problem.field.inputs else problem
    if stiff and name.split(", ")[-1] != "stiff":  # of an explicit solver's many steps on a stiff system
        eighth = replace(problem, solver="BDF")
    other = TorchOdeSolver(eighth, "replay" if stiff else "backprop")
    yield from compare_once(main, other, name, params, explained=True)
    if julia is not None:
        allowed = training_allowed(problem, params)
        yield from compare(main, julia.solver(problem), name, params, TRAINED, allowed, explained=True)


def adjoint_gate(main: OdeSolver, adjoint: OdeSolver, name: str, params: np.ndarray) -> Gate:
    difference = relative(main.value_and_grad(params)[1], adjoint.value_and_grad(params)[1])
    return _between(main, adjoint, name)(4, "gradient, relative", difference, GRADIENT)


def crosscheck(system: System | str, model: str = "kan", **options: Any) -> list[Gate]:
    """All gates for a system (or its name) and ``"mlp"`` or ``"kan"`` at the default widths; see `crosscheck_field`."""
    system = get_system(system) if isinstance(system, str) else system
    return list(crosscheck_field(system, make_field(system, model, match="params"), **options))
