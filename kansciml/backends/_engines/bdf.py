r"""BDF of orders 1 to 5 for stiff systems: SciPy's steps, and the exact discrete gradient of them.

SciPy's `BDF` keeps the backward differences D_0 = u, D_1, ... of the polynomial through the last states (Shampine &
Reichelt 1997, sec. 2). Rescaling them to another step size, predicting and updating are linear, so that a step, with
its size and its order held fixed, is

    y - c f(t, y) = g^T D,    D <- T D + e y,

with c, g (8,), T (8, 8) and e (8,) known. As for Radau, these equations are solved again to rounding, all steps of all
pieces at once, by Newton's method; the gradient is the adjoint of the recursion. A piece, and an interval of its
inputs, begins with D = (u, h f(t, u), 0, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from scipy.integrate import BDF

from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import Steps, in_order
from kansciml.backends._engines.stiff import NEWTON, accepted, check_solved, damped_newton, settled, solve_linear
from kansciml.backends._kernels import FieldKernel, Pullback
from kansciml.backends.base import Piece

ROWS = 8
"""Differences that SciPy keeps: of its highest order, 5, and three more."""


@dataclass(frozen=True, eq=False)
class BdfSteps(Steps):
    """Steps whose `states` (N, 1, n) are those at their ends.

    forward (N, 9, 8): T and below it g. update (N, 8): e. factor (N,): c. first (N,): h of D_1 at a `fresh` step.
    save (T, 8): each save point as a combination of the differences after its step; row (T,): that step.
    """

    forward: np.ndarray
    update: np.ndarray
    factor: np.ndarray
    first: np.ndarray
    save: np.ndarray
    row: np.ndarray


class BdfSolved:
    """Solutions of pieces by BDF, and their gradient: see `kansciml.backends.base.Solved`."""

    def __init__(self, kernel: FieldKernel, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int) -> None:
        self.kernel, self.drive = kernel, Drive(pieces)
        with np.errstate(all="ignore"):  # a field that blows up is an answer here, told by SolveError
            self.steps = steps = _integrate(kernel, self.drive, pieces, rtol, atol, max_steps)
            self.renewed = np.flatnonzero(steps.fresh)
            at = steps.t[self.renewed]
            self.at = np.concatenate([steps.end, at])
            self.inputs = self.drive(self.at, np.concatenate([steps.interval, steps.interval[self.renewed]]))
            self.starts = np.stack([pieces[k].start for k in steps.order])
            self._polish(rtol, atol)
        states = np.matmul(steps.save[:, None], self.after[steps.row])[:, 0]
        self.states = np.split(states, np.cumsum([len(one.saveat) for one in pieces])[:-1])

    def _linearised(self) -> tuple[Float64[np.ndarray, "B n n"], Float64[np.ndarray, "N n n"], Pullback]:
        """Jacobians at the ends of steps, then at fresh starts, (I - c J)^-1 of the steps, and the pullback."""
        steps, n = self.steps, self.ends.shape[1]
        jacobian, pullback = self.kernel.linearise(self.at, self._points(), self.inputs)
        matrix = np.eye(n) - steps.factor[:, None, None] * jacobian[: len(steps.t)]
        return jacobian, solve_linear(matrix, np.eye(n)), pullback

    def _points(self) -> Float64[np.ndarray, "B n"]:
        return np.concatenate([self.ends, self.before[self.renewed, 0]])

    def _polish(self, rtol: float, atol: float) -> None:
        """Solve the equations of all steps: Newton's method on the states at all ends together.

        Where the solution grows by so much that this does not converge, the steps are solved one after the other.
        """
        steps = self.steps
        count, n = len(steps.t), len(self.starts[0])
        self.ends, self.before, self.after = steps.states[:, 0], np.zeros((count, ROWS, n)), np.zeros((count, ROWS, n))
        self.before[self.renewed, 0] = self._fresh_starts(self.ends)
        size = np.inf
        for iteration in range(NEWTON + 1):
            slopes = self.kernel.batch(self._points(), self.at, self.inputs)
            jacobian, solved, _ = self._linearised()
            previous, offset = size, np.zeros((count, n))
            offset[self.renewed] = steps.first[self.renewed, None] * slopes[count:]
            if iteration:
                known = np.matmul(steps.forward[:, 8:], self.before)[:, 0]
                misfit = self.ends - steps.factor[:, None] * slopes[:count] - known
                change = np.matmul(solved, misfit[..., None])[..., 0]
                constant = self.ends - np.matmul(solved, known[..., None])[..., 0] - change
                change[self.renewed] += np.abs(offset - self.before[:, 1])[self.renewed]
                size = float(np.max(np.abs(change) / (atol + rtol * np.abs(self.ends))))
            else:  # the states as they are: their differences alone
                solved, constant = np.zeros_like(solved), self.ends
            anew = np.zeros((count, n, n))
            anew[self.renewed] = steps.first[self.renewed, None, None] * jacobian[count:]
            before, after, ends = np.empty_like(self.before), np.empty_like(self.after), np.empty_like(self.ends)
            running = np.zeros((len(steps.order), ROWS, n))
            running[:, 0] = self.starts
            for rows in steps.slices():
                running = running[: rows.stop - rows.start]
                fresh = np.flatnonzero(steps.fresh[rows])
                if len(fresh):
                    own = fresh + rows.start
                    moved = running[fresh, 0] - self.before[own, 0]
                    running[fresh, 1] = offset[own] + np.matmul(anew[own], moved[..., None])[..., 0]
                    running[fresh, 2:] = 0.0
                before[rows] = running
                found = np.matmul(steps.forward[rows], running)
                ends[rows] = np.matmul(solved[rows], found[:, 8, :, None])[..., 0] + constant[rows]
                running = found[:, :8] + steps.update[rows, :, None] * ends[rows, None]
                after[rows] = running
            if not (np.isfinite(after).all() and np.isfinite(ends).all()):
                break
            self.before, self.after, self.ends = before, after, ends
            if iteration and settled(size, previous, rtol):
                return
        self._march(rtol, atol)

    def _march(self, rtol: float, atol: float) -> None:
        """Solve the equations of one step after the other, from SciPy's states."""
        steps, n = self.steps, len(self.starts[0])
        self.ends = steps.states[:, 0].copy()
        place = dict(zip(self.renewed.tolist(), range(len(steps.t), len(self.at))))
        running = np.zeros((len(steps.order), ROWS, n))
        running[:, 0] = self.starts
        for rows in steps.slices():
            running = running[: rows.stop - rows.start]
            fresh = np.flatnonzero(steps.fresh[rows])
            if len(fresh):
                own = fresh + rows.start
                slopes = self.kernel.batch(running[fresh, 0], *self._when([place[row] for row in own.tolist()]))
                running[fresh, 1], running[fresh, 2:] = steps.first[own, None] * slopes, 0.0
            self.before[rows] = running
            found = np.matmul(steps.forward[rows], running)
            known, factor, (times, inputs) = found[:, 8], steps.factor[rows, None], self._when(rows)

            def correction(y: np.ndarray) -> np.ndarray:
                misfit = known + factor * self.kernel.batch(y, times, inputs) - y  # noqa: B023
                matrix = np.eye(n) - factor[..., None] * self.kernel.linearise(times, y, inputs)[0]  # noqa: B023
                return solve_linear(matrix, misfit[..., None])[..., 0]

            def size_of(change: np.ndarray, y: np.ndarray) -> np.ndarray:
                return np.max(np.abs(change) / (atol + rtol * np.abs(y)), axis=1)

            self.ends[rows], size = damped_newton(correction, self.ends[rows], size_of, rtol)
            check_solved(steps.t[rows], size)
            running = found[:, :8] + steps.update[rows, :, None] * self.ends[rows, None]
            self.after[rows] = running

    def _when(self, points: slice | list[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Times and inputs at points."""
        return self.at[points], None if self.inputs is None else self.inputs[points]

    def _fresh_starts(self, ends: Float64[np.ndarray, "N n"]) -> Float64[np.ndarray, "F n"]:
        """States at the starts of fresh steps: a piece's, or the end of the step before."""
        steps = self.steps
        found = np.empty_like(ends)
        running = self.starts
        for rows in steps.slices():
            found[rows] = running[: rows.stop - rows.start]
            running = ends[rows]
        return found[self.renewed]

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        steps, cotangent = self.steps, np.concatenate(cotangents)
        count, n = self.ends.shape
        jacobian, solved, pullback = self._linearised()
        solved = np.ascontiguousarray(solved.transpose(0, 2, 1))
        direct = np.zeros((count, ROWS, n))
        np.add.at(direct, steps.row, steps.save[:, :, None] * cotangent[:, None])
        backward = np.ascontiguousarray(steps.forward.transpose(0, 2, 1))
        by_end, by_slope = np.empty((count, n)), np.zeros((count, n))  # of fresh starts
        renewed = np.zeros((count, n, n))
        renewed[self.renewed] = jacobian[count:]
        running = np.zeros((len(steps.order), ROWS, n))
        for rows in steps.slices()[::-1]:
            size = rows.stop - rows.start
            after = running[:size] + direct[rows]
            by_state = np.matmul(steps.update[rows, None], after)[:, 0]
            by_end[rows] = by_equation = np.matmul(solved[rows], by_state[..., None])[..., 0]
            running[:size] = np.matmul(backward[rows], np.concatenate([after, by_equation[:, None]], axis=1))
            fresh = np.flatnonzero(steps.fresh[rows])
            if len(fresh):
                own = fresh + rows.start
                by_slope[own] = steps.first[own, None] * running[fresh, 1]
                running[fresh, 0] += np.matmul(by_slope[own, None], renewed[own])[:, 0]
                running[fresh, 1:] = 0.0
        by_starts = np.empty((len(steps.order), n))
        by_starts[steps.order] = running[:, 0]
        by_point = np.concatenate([steps.factor[:, None] * by_end, by_slope[self.renewed]])
        return pullback(by_point), by_starts


@lru_cache(maxsize=4096)
def _rescaled(order: int, factor: float) -> Float64[np.ndarray, "8 8"]:
    """Matrix to the differences of the same polynomial for a step size `factor` times as large."""

    def binomials(factor: float) -> np.ndarray:
        i, ratios = np.arange(1, order + 1), np.zeros((order + 1, order + 1))
        ratios[0], ratios[1:, 1:] = 1.0, (i[:, None] - 1 - factor * i) / i[:, None]
        return np.cumprod(ratios, axis=0)

    matrix = np.eye(ROWS)
    matrix[: order + 1, : order + 1] = (binomials(factor) @ binomials(1.0)).T
    return matrix


@lru_cache(maxsize=4096)
def _step(
    order: int, before: float, order_after: int, after: float, gamma: tuple[float, ...], alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """(T, g) of shape (9, 8), and e (8,), of a step whose differences are rescaled by `before` and, then, `after`."""
    rescaled = _rescaled(order, before)
    predict, history = np.zeros(ROWS), np.zeros(ROWS)
    predict[: order + 1] = 1.0
    history[1 : order + 1] = np.array(gamma[1 : order + 1]) / alpha
    # Columns: the rescaled differences, and y; the correction is d = y - predict . D
    table = np.eye(ROWS, ROWS + 1)
    correction = np.append(-predict, 1.0)
    table[order + 2] = correction - table[order + 1]
    table[order + 1] = correction
    for i in range(order, -1, -1):
        table[i] += table[i + 1]
    table = _rescaled(order_after, after) @ table
    return np.vstack([table[:, :8], predict - history]) @ rescaled, table[:, 8]


def _integrate(
    kernel: FieldKernel, drive: Drive, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int
) -> BdfSteps:
    """The steps of SciPy's BDF, with what its differences undergo in each."""
    found = []
    for piece, number, interval, fresh, (first, order), solver in accepted(
        BDF, kernel, drive, pieces, rtol, atol, max_steps
    ):
        size, order_after = solver.t - solver.t_old, solver.order
        before, after = size / first, solver.h_abs / size
        near = [1.0 if abs(ratio - 1) < 1e-12 else ratio for ratio in (before, after)]  # as they are but for rounding
        forward, update = _step(order, near[0], order_after, near[1], tuple(solver.gamma), solver.alpha[order])
        linear = (forward, update, size / solver.alpha[order], first, solver.h_abs, order_after)
        found.append((piece, number, solver.t_old, size, solver.t, solver.y[None], interval, fresh, *linear))
    of, numbers, *arrays = (np.array(column) for column in zip(*found))
    rows, groups, placed = in_order(len(pieces), of, numbers)
    t, size, end, states, interval, fresh, forward, update, factor, first, h, order = (a[rows] for a in arrays)
    steps = Steps(t, size, end, states, states[:, :0], interval, fresh, groups, placed, 0)
    row = steps.locate([one.saveat for one in pieces])
    at = np.concatenate([one.saveat for one in pieces])
    # Newton's form on the states at end, end - h, end - 2 h, ...
    j = np.arange(ROWS - 1)
    ratios = ((at - end[row])[:, None] + j * h[row, None]) / (h[row, None] * (1 + j))
    save = np.cumprod(np.where(j < order[row, None], ratios, 0.0), axis=1)
    save = np.concatenate([np.ones((len(at), 1)), save], axis=1)
    return BdfSteps(**vars(steps), forward=forward, update=update, factor=factor, first=first, save=save, row=row)
