"""Slow solvers of the same problems that share no code with the backends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp

from kansciml._errors import SolveError
from kansciml.backends._engines.relaxing import EXPLICIT
from kansciml.backends.base import Integrator, OdeProblem, Piece
from kansciml.crosscheck.collocation import solve_stiff
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

PRECISION = 1e-12
"""rtol and atol of the reference."""
Fed = Callable[[float], np.ndarray] | None
"""Inputs at a time."""


class ReferenceSolver(Integrator):
    """Slow and independent: the torch module under another integrator at 1e-12, gradients by central differences.

    The integrator is SciPy's DOP853, of problems with an implicit solver the collocation method of order 17 in
    `kansciml.crosscheck.collocation`, with Jacobians by torch's autograd.
    """

    def __init__(self, problem: OdeProblem) -> None:
        super().__init__(problem)
        self.stiff = problem.solver not in EXPLICIT
        self.backend, self.method = ("collocation", "order 17") if self.stiff else ("scipy", "DOP853")
        assert isinstance(self.inner.field, FieldSpec)
        self._field = VectorField(self.inner.field)
        self._solved: dict[tuple[bytes, ...], np.ndarray] = {}

    def _rhs(self, v: np.ndarray, tau: np.ndarray, w: np.ndarray | None, params: np.ndarray) -> np.ndarray:
        self._field.load_flat(params)
        with torch.no_grad():
            inputs = None if w is None else torch.tensor(w)
            return self._field(torch.tensor(tau)[:, None], torch.tensor(v), inputs).numpy()

    def _states(self, params: np.ndarray, piece: Piece, rtol: float, atol: float) -> np.ndarray:
        inputs = b"" if piece.inputs is None else piece.inputs.values.tobytes() + piece.inputs.kind.encode()
        key = params.tobytes(), piece.start.tobytes(), piece.saveat.tobytes(), inputs
        if key not in self._solved:  # the loss is asked for where the trajectory was
            self._solved = {key: self._solve(params, piece), **dict(list(self._solved.items())[:7])}
        return self._solved[key]

    def _solve(self, params: np.ndarray, piece: Piece) -> np.ndarray:
        self._field.load_flat(params)
        inputs, end = piece.inputs, float(piece.saveat[-1])
        knots = [] if inputs is None else [float(t) for t in inputs.t if piece.t0 < t < end]
        v, states = piece.start, np.empty((len(piece.saveat), len(piece.start)))
        states[piece.saveat == piece.t0] = v
        for begin, stop in zip([piece.t0, *knots], [*knots, end]):  # no step crosses a kink or a jump of the inputs
            within = (piece.saveat > begin) & (piece.saveat <= stop)
            times = np.union1d(piece.saveat[within], [stop])
            fed = None if inputs is None else lambda t: inputs(begin if inputs.kind == "held" else t)  # noqa: B023
            solve = self._collocation if self.stiff else self._dop853
            found = solve(fed, begin, v, times)
            v, states[within] = found[-1], found[: within.sum()]
        return states

    def _dop853(self, inputs: Fed, begin: float, v: np.ndarray, times: np.ndarray) -> np.ndarray:
        def rhs(time: float, v: np.ndarray) -> np.ndarray:
            w = None if inputs is None else torch.tensor(inputs(time))
            with torch.no_grad():
                return self._field(torch.tensor([time]), torch.tensor(v), w).numpy()

        solution = solve_ivp(rhs, (begin, times[-1]), v, "DOP853", times, rtol=PRECISION, atol=PRECISION)
        if not solution.success:
            raise SolveError(f"SciPy's DOP853 failed: {solution.message}")
        return solution.y.T

    def _collocation(self, inputs: Fed, begin: float, v: np.ndarray, times: np.ndarray) -> np.ndarray:
        n = len(v)

        def field(t: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # n copies of each state, the i-th of which is differentiated for component i
            u = torch.tensor(v).repeat_interleave(n, 0).requires_grad_()
            w = None if inputs is None else torch.tensor(np.stack([inputs(x) for x in t])).repeat_interleave(n, 0)
            slopes = self._field(torch.tensor(t)[:, None].repeat_interleave(n, 0), u, w).view(len(v), n, n)
            slopes.diagonal(dim1=1, dim2=2).sum().backward(inputs=[u])
            assert u.grad is not None
            return slopes[:, 0].detach().numpy(), u.grad.view(len(v), n, n).numpy()

        return solve_stiff(field, begin, v, times, 10 * PRECISION)  # its error is far below

    def loss(self, params: np.ndarray) -> float:
        """As `OdeProblem` documents it."""
        problem = self.problem
        starts = problem.solved_in.states_out(problem.split(params)[1])
        solved = [self.trajectory(params, series=k) for k in range(len(problem.series))]
        squares, weights, gaps = [], [], []
        for one, states, start in zip(problem.series, solved, starts):
            seen = np.isfinite(one.data)
            squares.append((((states - one.data) / problem.loss_scale) ** 2)[seen])
            weights.append(np.ones(seen.sum()) if one.weights is None else one.weights[seen])
            if one.follows is not None:
                gaps.append((solved[one.follows][-1] - start) / problem.loss_scale)
        loss = float(np.average(np.concatenate(squares), weights=np.concatenate(weights)))
        return loss + problem.continuity * float(np.mean(np.square(gaps))) if gaps else loss

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
            if len(changes) and changes[-1] <= 1e-7 * abs(slopes[-1]):
                break
        return slopes[int(np.argmin(changes)) + 1]
