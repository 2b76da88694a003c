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

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy.integrate import Radau

from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import Steps, in_order
from kansciml.backends._engines.stiff import NEWTON, accepted, check_solved, damped_newton, settled, solve_linear
from kansciml.backends._kernels import FieldKernel, Pullback
from kansciml.backends.base import Piece

_ROOT = np.sqrt(6)
C = np.array([(4 - _ROOT) / 10, (4 + _ROOT) / 10, 1])
# Collocation: rows i of A integrate the Lagrange polynomials of the nodes from 0 to c_i
A = (C[:, None] ** np.arange(1, 4) / np.arange(1, 4)) @ np.linalg.inv(C[:, None] ** np.arange(3))
# Z(theta) = sum_i (DENSE[0, i] theta + DENSE[1, i] theta^2 + DENSE[2, i] theta^3) Z_i
DENSE = np.linalg.inv(C[:, None] ** np.arange(1, 4))


class RadauSolved:
    """Solutions of pieces by Radau IIA, and their gradient: see `kansciml.backends.base.Solved`."""

    def __init__(self, kernel: FieldKernel, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int) -> None:
        self.kernel, self.drive = kernel, Drive(pieces)
        with np.errstate(all="ignore"):  # a field that blows up is an answer here, told by SolveError
            self.steps = _integrate(kernel, self.drive, pieces, rtol, atol, max_steps)
            steps = self.steps
            self.at = steps.t[:, None] + C * steps.h[:, None]  # (N, 3)
            inputs = self.drive(self.at.ravel(), np.repeat(steps.interval, 3))
            self.inputs = None if inputs is None else inputs.reshape(len(self.at), 3, -1)
            self.first = np.stack([pieces[k].start for k in steps.order])
            self._polish(rtol, atol)
        self.row = steps.locate([one.saveat for one in pieces])
        theta = (np.concatenate([one.saveat for one in pieces]) - steps.t[self.row]) / steps.h[self.row]
        self.weights = (theta[:, None] ** np.arange(1, 4)) @ DENSE
        states = self.start[self.row] + np.matmul(self.weights[:, None], self.rise[self.row])[:, 0]
        self.states = np.split(states, np.cumsum([len(one.saveat) for one in pieces])[:-1])

    def _points(
        self, rows: slice, start: Float64[np.ndarray, "N n"], rise: Float64[np.ndarray, "N 3 n"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """States, times and inputs at the stages of steps."""
        inputs = None if self.inputs is None else self.inputs[rows].reshape(-1, self.inputs.shape[2])
        return (start[:, None] + rise).reshape(-1, start.shape[1]), self.at[rows].ravel(), inputs

    def _linearised(
        self, rows: slice, start: Float64[np.ndarray, "N n"], rise: Float64[np.ndarray, "N 3 n"]
    ) -> tuple[Float64[np.ndarray, "N 3 n n"], Float64[np.ndarray, "N n3 n3"], Pullback]:
        """Jacobians at the stages, the matrices I - h A (x) J of the steps, and the pullback of the stages."""
        count, _, n = rise.shape
        states, times, inputs = self._points(rows, start, rise)
        jacobian, pullback = self.kernel.linearise(times, states, inputs)
        jacobian = jacobian.reshape(count, 3, n, n)
        matrix = -np.einsum("s,ij,sjab->siajb", self.steps.h[rows], A, jacobian).reshape(count, 3 * n, 3 * n)
        matrix[:, np.arange(3 * n), np.arange(3 * n)] += 1.0
        return jacobian, matrix, pullback

    def _polish(self, rtol: float, atol: float) -> None:
        """Solve the stage equations of all steps: Newton's method on the states and stages of all together.

        Where the solution grows by so much that this does not converge, the steps are solved one after the other.
        """
        steps = self.steps
        self.start, self.rise = steps.states[:, 0], steps.states[:, 1:]  # (N, n), (N, 3, n)
        size = np.inf
        for iteration in range(NEWTON):
            fixed, moving = self._corrections(slice(None), self.start, self.rise)
            scale = atol + rtol * np.abs(self.start[:, None] + self.rise)
            previous, size = size, float(np.max(np.abs(fixed) / scale))
            start, rise = np.empty_like(self.start), np.empty_like(self.rise)
            running = self.first
            for rows in steps.slices():
                running = running[: rows.stop - rows.start]
                start[rows] = running
                rise[rows] = self.rise[rows] + fixed[rows]
                rise[rows] += np.matmul(moving[rows], (running - self.start[rows])[:, None, :, None])[..., 0]
                running = running + rise[rows, 2]
            if not np.isfinite(rise).all():
                break
            self.start, self.rise = start, rise
            if iteration and settled(size, previous, rtol):
                return
        self._march(rtol, atol)

    def _corrections(
        self, rows: slice, start: Float64[np.ndarray, "N n"], rise: Float64[np.ndarray, "N 3 n"]
    ) -> tuple[Float64[np.ndarray, "N 3 n"], Float64[np.ndarray, "N 3 n n"]]:
        """What Newton's method adds to the stages of steps by themselves, and its derivative by their starts."""
        count, _, n = rise.shape
        jacobian, matrix, _ = self._linearised(rows, start, rise)
        h = self.steps.h[rows]
        slopes = self.kernel.batch(*self._points(rows, start, rise)).reshape(count, 3, n)
        misfit = h[:, None, None] * (A @ slopes) - rise
        by_start = np.einsum("s,ij,sjab->siab", h, A, jacobian)
        sides = np.concatenate([misfit[..., None], by_start], axis=3).reshape(count, 3 * n, n + 1)
        found = solve_linear(matrix, sides).reshape(count, 3, n, n + 1)
        return found[..., 0], found[..., 1:]

    def _march(self, rtol: float, atol: float) -> None:
        """Solve the stage equations of one step after the other, from SciPy's stages."""
        steps = self.steps
        self.start, self.rise = np.empty_like(steps.states[:, 0]), steps.states[:, 1:].copy()
        running = self.first
        for rows in steps.slices():
            running = self.start[rows] = running[: rows.stop - rows.start]
            shape = self.rise[rows].shape

            def correction(z: np.ndarray) -> np.ndarray:
                return self._corrections(rows, running, z.reshape(shape))[0].reshape(z.shape)  # noqa: B023

            def size_of(change: np.ndarray, z: np.ndarray) -> np.ndarray:
                scale = atol + rtol * np.abs(running[:, None] + z.reshape(shape))  # noqa: B023
                return np.max(np.abs(change.reshape(shape)) / scale, axis=(1, 2))  # noqa: B023

            z, size = damped_newton(correction, self.rise[rows].reshape(len(running), -1), size_of, rtol)
            check_solved(steps.t[rows], size)
            self.rise[rows] = z.reshape(shape)
            running = running + self.rise[rows, 2]

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        steps, cotangent = self.steps, np.concatenate(cotangents)
        count, _, n = self.rise.shape
        jacobian, matrix, pullback = self._linearised(slice(None), self.start, self.rise)
        # Columns: by the cotangent of the next state, u + Z_3, and the constant part, of the save points
        by_rise, by_start = np.zeros((count, 3, n, n + 1)), np.zeros((count, n, n + 1))
        by_rise[:, 2, :, :n] = by_start[..., :n] = np.eye(n)
        np.add.at(by_rise[..., n], self.row, self.weights[:, :, None] * cotangent[:, None])
        np.add.at(by_start[..., n], self.row, cotangent)
        adjoint = solve_linear(matrix.transpose(0, 2, 1), by_rise.reshape(count, 3 * n, n + 1))
        by_slope = steps.h[:, None, None, None] * np.einsum("ij,siac->sjac", A, adjoint.reshape(count, 3, n, n + 1))
        by_start += np.einsum("sjab,sjac->sbc", jacobian, by_slope)
        after, running = np.zeros((count, n)), np.zeros((len(steps.order), n))
        for rows in steps.slices()[::-1]:
            size = rows.stop - rows.start
            after[rows] = running[:size]
            running[:size] = np.matmul(by_start[rows, :, :n], running[:size, :, None])[..., 0] + by_start[rows, :, n]
        by_starts = np.empty_like(running)
        by_starts[steps.order] = running
        by_point = np.matmul(by_slope[..., :n], after[:, None, :, None])[..., 0] + by_slope[..., n]
        return pullback(by_point.reshape(-1, n)), by_starts


def _integrate(
    kernel: FieldKernel, drive: Drive, pieces: Sequence[Piece], rtol: float, atol: float, max_steps: int
) -> Steps:
    """The steps of SciPy's Radau; their `states` (N, 4, n) are u and the Z_i."""
    found = []
    for piece, number, interval, *_, solver in accepted(Radau, kernel, drive, pieces, rtol, atol, max_steps):
        size = solver.t - solver.t_old
        stages = solver.dense_output()(solver.t_old + np.append(0.0, C) * size).T
        stages[1:] -= stages[0]
        found.append((piece, number, solver.t_old, size, solver.t, stages, interval))
    of, numbers, *arrays = (np.array(column) for column in zip(*found))
    rows, groups, order = in_order(len(pieces), of, numbers)
    t, h, end, states, intervals = (a[rows] for a in arrays)
    return Steps(t, h, end, states, states[:, :0], intervals, np.zeros(len(t), dtype=bool), groups, order, 0)
