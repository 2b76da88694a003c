r"""Radau IIA of order 5 for stiff systems: SciPy's steps, and the exact discrete gradient of them.

SciPy's `Radau` chooses and accepts the steps; its Newton iterations end at a fraction of the tolerance. The stage
equations of all its steps are therefore solved again to rounding, all steps of all pieces at once: with
Y_i = u + Z_i, u_next = u + Z_3,

    Z_i = h \sum_j a_ij f(Y_j),    A the matrix of Radau IIA (Hairer & Wanner II, sec. IV.5),

one Newton iteration is a batch of linear systems of 3 n unknowns and a recursion over the steps of n x n products; one
or two suffice. By the implicit function theorem the gradient takes one more such system and recursion. Save points lie
on each step's collocation polynomial, a cubic through u and the Y_i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.integrate import Radau

from kansciml._errors import SolveError
from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import Steps, failure, in_order
from kansciml.backends._kernels import FieldKernel, Pullback
from kansciml.backends.base import Piece

_ROOT = np.sqrt(6)
C = np.array([(4 - _ROOT) / 10, (4 + _ROOT) / 10, 1])
# Collocation: rows i of A integrate the Lagrange polynomials of the nodes from 0 to c_i
A = (C[:, None] ** np.arange(1, 4) / np.arange(1, 4)) @ np.linalg.inv(C[:, None] ** np.arange(3))
# Z(theta) = sum_i (DENSE[0, i] theta + DENSE[1, i] theta^2 + DENSE[2, i] theta^3) Z_i
DENSE = np.linalg.inv(C[:, None] ** np.arange(1, 4))
NEWTON = 8
"""Iterations after which the stage equations are given up."""
CLOSE = 0.01
"""Change, in units of the tolerance, after which Newton's quadratic convergence leaves rounding alone."""


@dataclass(frozen=True, eq=False)
class ImplicitEngine:
    """Solves pieces by Radau IIA; `bind` gives the field's kernel with its parameters."""

    bind: Callable[[np.ndarray], FieldKernel]

    def solve(
        self,
        params: Float64[np.ndarray, " P"],
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> ImplicitSolved:
        """See `kansciml.backends.base.Engine`; steps that SciPy rejects are not counted."""
        return ImplicitSolved(self.bind(params), pieces, rtol, atol, max_steps)


class ImplicitSolved:
    """Solutions of pieces by Radau IIA, and their gradient: see `kansciml.backends.base.Solved`."""

    def __init__(self, kernel: FieldKernel, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int) -> None:
        self.kernel, self.drive = kernel, Drive(pieces)
        with np.errstate(all="ignore"):  # a field that blows up is an answer here, told by SolveError
            self.steps = _integrate(kernel, self.drive, pieces, rtol, atol, max_steps)
            steps = self.steps
            self.at = steps.t[:, None] + C * steps.h[:, None]  # (N, 3)
            self.inputs = self.drive(self.at.ravel(), np.repeat(steps.interval, 3))
            self._polish(rtol, atol)
        self.row = steps.locate([one.saveat for one in pieces])
        theta = (np.concatenate([one.saveat for one in pieces]) - steps.t[self.row]) / steps.h[self.row]
        self.weights = (theta[:, None] ** np.arange(1, 4)) @ DENSE
        states = self.start[self.row] + np.matmul(self.weights[:, None], self.rise[self.row])[:, 0]
        self.states = np.split(states, np.cumsum([len(one.saveat) for one in pieces])[:-1])

    def _linearised(self) -> tuple[Float64[np.ndarray, "N 3 n n"], Float64[np.ndarray, "N n3 n3"], Pullback]:
        """Jacobians at the stages, the matrices I - h A (x) J of the steps, and the pullback of the stages."""
        count, _, n = self.rise.shape
        points = (self.start[:, None] + self.rise).reshape(-1, n)
        jacobian, pullback = self.kernel.linearise(self.at.ravel(), points, self.inputs)
        jacobian = jacobian.reshape(count, 3, n, n)
        matrix = -np.einsum("s,ij,sjab->siajb", self.steps.h, A, jacobian).reshape(count, 3 * n, 3 * n)
        matrix[:, np.arange(3 * n), np.arange(3 * n)] += 1.0
        return jacobian, matrix, pullback

    def _polish(self, rtol: float, atol: float) -> None:
        """Solve the stage equations of all steps together: Newton's method on the states and stages of all."""
        steps = self.steps
        self.start, self.rise = steps.states[:, 0], steps.states[:, 1:]  # (N, n), (N, 3, n)
        count, _, n = self.rise.shape
        first = self.start[: len(steps.order)].copy()
        for _ in range(NEWTON):
            jacobian, matrix, _ = self._linearised()
            points = (self.start[:, None] + self.rise).reshape(-1, n)
            slopes = self.kernel.batch(points, self.at.ravel(), self.inputs).reshape(count, 3, n)
            misfit = steps.h[:, None, None] * (A @ slopes) - self.rise
            by_start = np.einsum("s,ij,sjab->siab", steps.h, A, jacobian)
            sides = np.concatenate([misfit[..., None], by_start], axis=3).reshape(count, 3 * n, n + 1)
            change = _solve(matrix, sides, steps).reshape(count, 3, n, n + 1)
            fixed, moving = change[..., 0], change[..., 1:]
            start, rise = np.empty_like(self.start), np.empty_like(self.rise)
            running = first.copy()
            for rows in _groups(steps):
                running = running[: rows.stop - rows.start]
                start[rows] = running
                rise[rows] = self.rise[rows] + fixed[rows]
                rise[rows] += np.matmul(moving[rows], (running - self.start[rows])[:, None, :, None])[..., 0]
                running = running + rise[rows, 2]
            scale = atol + rtol * np.abs(start[:, None] + rise)
            size = np.abs((start - self.start)[:, None] + rise - self.rise) / scale
            self.start, self.rise = start, rise
            if size.max() <= CLOSE:
                return
        worst = np.nanargmax(np.nan_to_num(size, nan=np.inf).max((1, 2)))
        raise SolveError(
            f"Newton's method does not solve the stage equations near t = {steps.t[worst]:.6g}: tighten rtol and atol"
        )

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        steps, cotangent = self.steps, np.concatenate(cotangents)
        count, _, n = self.rise.shape
        jacobian, matrix, pullback = self._linearised()
        # Columns: by the cotangent of the next state, u + Z_3, and the constant part, of the save points
        by_rise, by_start = np.zeros((count, 3, n, n + 1)), np.zeros((count, n, n + 1))
        by_rise[:, 2, :, :n] = by_start[..., :n] = np.eye(n)
        np.add.at(by_rise[..., n], self.row, self.weights[:, :, None] * cotangent[:, None])
        np.add.at(by_start[..., n], self.row, cotangent)
        adjoint = _solve(matrix.transpose(0, 2, 1), by_rise.reshape(count, 3 * n, n + 1), steps)
        by_slope = steps.h[:, None, None, None] * np.einsum("ij,siac->sjac", A, adjoint.reshape(count, 3, n, n + 1))
        by_start += np.einsum("sjab,sjac->sbc", jacobian, by_slope)
        after, running = np.zeros((count, n)), np.zeros((len(steps.order), n))
        for rows in _groups(steps, backwards=True):
            size = rows.stop - rows.start
            after[rows] = running[:size]
            running[:size] = np.matmul(by_start[rows, :, :n], running[:size, :, None])[..., 0] + by_start[rows, :, n]
        by_starts = np.empty_like(running)
        by_starts[steps.order] = running
        by_point = np.matmul(by_slope[..., :n], after[:, None, :, None])[..., 0] + by_slope[..., n]
        return pullback(by_point.reshape(-1, n)), by_starts


def _groups(steps: Steps, backwards: bool = False) -> Iterator[slice]:
    bounds = list(zip(steps.groups[:-1], steps.groups[1:]))
    return (slice(*pair) for pair in (reversed(bounds) if backwards else bounds))


def _solve(matrix: np.ndarray, sides: np.ndarray, steps: Steps) -> np.ndarray:
    try:
        return np.linalg.solve(matrix, sides)
    except np.linalg.LinAlgError as error:
        raise SolveError(
            f"the stage equations of a step are singular (from t = {steps.t[0]:.6g} on): loosen rtol and atol"
        ) from error


def _integrate(
    kernel: FieldKernel, drive: Drive, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int
) -> Steps:
    """The steps that SciPy accepts, piece by piece, from knot to knot of the inputs."""
    rows = []
    for k, one in enumerate(pieces):
        interval, t, u, taken = drive.first[[k]], one.t0, one.start, 0
        h: float | None = None
        end = one.saveat[-1] if one.saveat[-1] > t else t + 1e-6 * max(1.0, abs(t))
        while t < end:
            stop = min(float(drive.until(interval)[0]), end)
            slope, jacobian = _functions(kernel, drive, interval)
            first = None if h is None else min(h, stop - t)
            try:
                solver = Radau(slope, t, u, stop, rtol=rtol, atol=atol, jac=jacobian, first_step=first)
                while solver.status == "running":
                    if taken < max_steps:
                        solver.step()
                    if taken == max_steps or solver.status == "failed":
                        raise failure(solver.t, solver.h_abs, solver.y, taken, max_steps)
                    size = solver.t - solver.t_old
                    stages = solver.dense_output()(solver.t_old + np.append(0.0, C) * size).T
                    stages[1:] -= stages[0]
                    rows.append((k, taken, solver.t_old, size, solver.t, stages, stages[:0], interval[0], False))
                    taken += 1
            except (ValueError, np.linalg.LinAlgError) as error:  # SciPy's: a matrix that is singular or not finite
                raise failure(t, h or 0.0, u, 0, 1) from error
            t, u, h = solver.t, solver.y, solver.h_abs
            interval = interval + 1
    piece, number, *kept = (np.array(column) for column in zip(*rows))
    return in_order(len(pieces), 0, piece, number, *kept)


def _functions(kernel: FieldKernel, drive: Drive, interval: np.ndarray) -> tuple[Callable, Callable]:
    """The field and its Jacobian at one time and state, within an interval of the inputs."""
    rhs = None if drive.present else kernel.rhs

    def slope(t: float, u: np.ndarray) -> np.ndarray:
        if rhs is None:
            return kernel.batch(u[None], np.full(1, t), drive(np.full(1, t), interval))[0]
        out = np.empty_like(u)
        rhs(t, u, out)
        return out

    def jacobian(t: float, u: np.ndarray) -> np.ndarray:
        return kernel.linearise(np.full(1, t), u[None], drive(np.full(1, t), interval))[0][0]

    return slope, jacobian
