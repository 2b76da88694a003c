"""A slow solver of the same problems that shares no code with the backends."""

from __future__ import annotations

import numpy as np
import torch
from scipy.integrate import solve_ivp

from kansciml._errors import SolveError
from kansciml.backends.base import Integrator, OdeProblem, Piece
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import VectorField

PRECISION = 1e-12
"""rtol and atol of the reference."""


class ReferenceSolver(Integrator):
    """Slow and independent: the torch module under SciPy's DOP853 at 1e-12, gradients by central differences."""

    backend = "scipy"
    method = "DOP853"

    def __init__(self, problem: OdeProblem) -> None:
        super().__init__(problem)
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

            def rhs(time: float, v: np.ndarray) -> np.ndarray:
                w = None
                if inputs is not None:  # a held input keeps its value up to the knot that ends the span
                    w = torch.tensor(inputs(begin if inputs.kind == "held" else time))  # noqa: B023
                with torch.no_grad():
                    return self._field(torch.tensor([time]), torch.tensor(v), w).numpy()

            within = (piece.saveat > begin) & (piece.saveat <= stop)
            times = np.union1d(piece.saveat[within], [stop])
            solution = solve_ivp(rhs, (begin, stop), v, self.method, times, rtol=PRECISION, atol=PRECISION)
            if not solution.success:
                raise SolveError(f"SciPy's {self.method} failed: {solution.message}")
            v, states[within] = solution.y[:, -1], solution.y.T[: within.sum()]
        return states

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
