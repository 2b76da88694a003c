"""Six gates that two solvers of one problem must pass: right-hand side, trajectory, loss, gradient, training.

    from kansciml.crosscheck import crosscheck

    for gate in crosscheck("lotka", "kan"): print(gate)

Within torch alone the built-in path (NumPy kernels, own dopri5, batched replay) is held against torch modules under
SciPy's DOP853, against torchdiffeq with backprop and with the adjoint method, and against finite differences: four
implementations that share no code. With Julia, the Julia solver is held against the torch one in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

from kansciml._errors import SolveError
from kansciml.backends.base import Integrator, OdeProblem, OdeSolver, Piece
from kansciml.backends.select import OdeBackend
from kansciml.backends.torch import TorchOdeSolver
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField
from kansciml.tasks.ode.data import training_data
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


class ReferenceSolver(Integrator):
    """Slow and independent: the torch module under SciPy's DOP853 at 1e-12, gradients by central differences."""

    backend = "scipy"
    method = "DOP853"

    def __init__(self, problem: OdeProblem) -> None:
        super().__init__(problem)
        assert isinstance(self.inner.field, FieldSpec)
        self._field = VectorField(self.inner.field)

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        self._field.load_flat(params)
        with torch.no_grad():
            return self._field(
                torch.tensor(tau)[:, None], torch.tensor(v), None if w is None else torch.tensor(w)
            ).numpy()

    def _states(self, params: np.ndarray, piece: Piece, rtol: float, atol: float) -> np.ndarray:
        def rhs(time: float, v: np.ndarray) -> np.ndarray:
            w = None if piece.inputs is None else piece.inputs(time)[None]
            return self._rhs(v[None], np.full(1, time), w, params)[0]

        span = (piece.t0, float(piece.saveat[-1]))
        solution = solve_ivp(rhs, span, piece.start, "DOP853", piece.saveat, rtol=1e-12, atol=1e-12)
        if not solution.success:
            raise SolveError(f"SciPy's DOP853 failed: {solution.message}")
        return solution.y.T

    def loss(self, params: np.ndarray) -> float:
        problem = self.problem
        return float(np.mean(((self.trajectory(params) - problem.data) / problem.loss_scale) ** 2))

    def slope(self, params: np.ndarray, direction: np.ndarray) -> float:
        """Derivative of the loss along a unit direction: central differences of order 6, the step found by halving.

        A long step is wrong where the solution grows fast, a short one where it drowns in the solver's error: of the
        neighbouring steps whose slopes agree best, the shorter one is taken.
        """
        step = 2e-3 * max(1.0, float(np.linalg.norm(params)) / np.sqrt(len(params)))
        slopes: list[float] = []
        for h in step * 4.0 ** -np.arange(4):
            at = [self.loss(params + k * h * direction) - self.loss(params - k * h * direction) for k in (1, 2, 3)]
            slopes.append((45 * at[0] - 9 * at[1] + at[2]) / (60 * h))
            changes = np.abs(np.diff(slopes))
            if len(changes) and changes[-1] <= 1e-8 * abs(slopes[-1]):
                break
        return slopes[int(np.argmin(changes)) + 1]


def relative(a: np.ndarray | float, b: np.ndarray | float) -> float:
    """Largest difference over the largest magnitude."""
    scale = max(float(np.max(np.abs(a))), float(np.max(np.abs(b))))
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) / scale if scale > 0 else 0.0


def sample_states(system: System, count: int = 200, seed: int = 0) -> np.ndarray:
    """States (count, n) over and around the training data, where a spline grid is left too."""
    data = training_data(system).states
    low, high = data.min(axis=0), data.max(axis=0)
    rng = np.random.default_rng(seed)
    return rng.uniform(low - 0.5 * (high - low), high + 0.5 * (high - low), (count, len(low)))


def rhs_gate(a: OdeSolver, b: Integrator, states: np.ndarray, params: np.ndarray) -> float:
    units = a.problem.solved_in
    return relative(*(solver.rhs(states, units.t0, params) * (units.time / units.state) for solver in (a, b)))


def trajectory_gate(a: OdeSolver, b: Integrator, params: np.ndarray) -> float:
    difference = np.abs(a.trajectory(params) - b.trajectory(params))
    return float(np.max(difference / a.problem.solved_in.state))


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
    system: System,
    params: np.ndarray,
    training: FlatTraining = TRAINED,
    allowed_in_training: float = TRAINING,
) -> Iterator[Gate]:
    """All six gates between two solvers; gate 5 trains as `training` says."""
    gate = _between(a, b, system)
    scale = a.problem.loss_scale / a.problem.solved_in.state
    yield gate(1, "right-hand side at 200 states, relative", rhs_gate(a, b, sample_states(system), params), RHS)
    yield gate(2, "trajectory, absolute", trajectory_gate(a, b, params), TRAJECTORY)
    (loss_a, grad_a), (loss_b, grad_b) = a.value_and_grad(params), b.value_and_grad(params)
    yield gate(3, "loss at the initial parameters, relative", relative(loss_a, loss_b), LOSS)
    yield gate(4, "gradient, relative", relative(grad_a, grad_b), GRADIENT)
    (losses_a, trained_a), (losses_b, trained_b) = (adam_losses(s, params, training) for s in (a, b))
    per_step = float(np.max(np.abs(losses_a / losses_b - 1)))
    quantity = f"loss over {ADAM_STEPS} Adam steps at rate {training.learning_rate:g}, relative"
    yield gate(5, quantity, per_step, allowed_in_training)
    for solver, trained in ((a, trained_a), (b, trained_b)):
        loss, other = a.value_and_grad(trained)[0], b.value_and_grad(trained)[0]
        allowed = loss_allowed(loss, trajectory_gate(a, b, trained), scale)
        yield gate(6, f"loss of what {label(solver)} trained, relative", relative(loss, other), allowed)


def compare_with_reference(
    a: OdeSolver, reference: ReferenceSolver, system: System, params: np.ndarray
) -> Iterator[Gate]:
    """Gates 1 to 4 against the independent reference; the gradient along itself and two random directions."""
    gate = _between(a, reference, system)
    yield gate(1, "right-hand side at 200 states, relative", rhs_gate(a, reference, sample_states(system), params), RHS)
    yield gate(2, "trajectory, absolute", trajectory_gate(a, reference, params), TRAJECTORY)
    loss, gradient = a.value_and_grad(params)
    yield gate(3, "loss at the initial parameters, relative", relative(loss, reference.loss(params)), LOSS)
    rng = np.random.default_rng(0)
    worst = 0.0
    for direction in (gradient, *rng.standard_normal((2, len(params)))):
        direction = direction / np.linalg.norm(direction)
        error = abs(float(gradient @ direction) - reference.slope(params, direction))
        worst = max(worst, error / float(np.linalg.norm(gradient)))
    yield gate(4, "gradient along 3 directions by differences, relative", worst, GRADIENT)


def label(solver: Integrator) -> str:
    return f"{solver.backend} {solver.method}"


def _between(a: OdeSolver, b: Integrator, system: System) -> Callable[[int, str, float, float], Gate]:
    """Makes the gates of a pair of solvers."""
    return partial(Gate, system.name, a.problem.field.label(), f"{label(a)} / {label(b)}")


def crosscheck_field(
    system: System,
    field: FieldSpec,
    *,
    julia: OdeBackend | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> Iterator[Gate]:
    """All gates for one system and field.

    Args:
        system, field: what to solve.
        julia: a started Julia backend to hold against torch, if there is one.
        seed: of the initial parameters.
        tolerance: rtol and atol of the solvers under test.
    """
    problem = make_problem(system, field, tolerance, tolerance)
    params = field.initial_parameters(seed)
    main, adjoint = TorchOdeSolver(problem), TorchOdeSolver(problem, "adjoint")
    yield from compare_with_reference(main, ReferenceSolver(problem), system, params)
    yield from compare(main, TorchOdeSolver(problem, "backprop"), system, params)
    difference = relative(main.value_and_grad(params)[1], adjoint.value_and_grad(params)[1])
    yield _between(main, adjoint, system)(4, "gradient, relative", difference, GRADIENT)
    if julia is not None:
        allowed = training_allowed(problem, params)
        yield from compare(main, julia.solver(problem), system, params, allowed_in_training=allowed)


def crosscheck(system: System | str, model: str = "kan", **options: Any) -> list[Gate]:
    """All gates for a system (or its name) and ``"mlp"`` or ``"kan"`` at the default widths; see `crosscheck_field`."""
    system = get_system(system) if isinstance(system, str) else system
    return list(crosscheck_field(system, make_field(system, model, match="params"), **options))
