r"""Exact discrete gradient of explicit solves by replaying their accepted steps in batches.

The integrator has kept every stage of every accepted step. The field is linearised at all of them at once; each step's
adjoint then is an n x n matrix, found for all steps together; only a recursion of matrix-vector products runs in
sequence, for all pieces at once; one batched pullback gives the parameter gradient. With k_j = f(Y_j),
Y_j = u + h \sum_m a_jm k_m and save points u + h \sum_j P_j(theta) k_j, this is backpropagation through the solver with
its step sizes held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import integrate
from kansciml.backends._engines.tableaus import Tableau
from kansciml.backends._kernels import FieldKernel
from kansciml.backends.base import Piece

BLOCK = 2**22
"""Numbers that the step matrices of one batch may hold, 32 MiB: more steps are replayed in several."""


@dataclass(frozen=True, eq=False)
class ExplicitEngine:
    """Solves all pieces at once by an explicit pair; `bind` gives the field's kernel with its parameters."""

    bind: Callable[[np.ndarray], FieldKernel]
    tableau: Tableau

    def solve(
        self,
        params: Float64[np.ndarray, " P"],
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> ExplicitSolved:
        """See `kansciml.backends.base.Engine`."""
        return ExplicitSolved(self.bind(params), self.tableau, pieces, rtol, atol, max_steps)


class ExplicitSolved:
    """Solutions of pieces by an explicit pair, and their gradient: see `kansciml.backends.base.Solved`."""

    def __init__(
        self,
        kernel: FieldKernel,
        tableau: Tableau,
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
    ) -> None:
        self.kernel, self.tableau, self.drive = kernel, tableau, Drive(pieces)
        self.steps = steps = integrate(kernel, self.drive, tableau, pieces, rtol, atol, max_steps)
        self.row = steps.locate([one.saveat for one in pieces])
        self.weights = tableau.weights(
            (np.concatenate([one.saveat for one in pieces]) - steps.t[self.row]) / steps.h[self.row]
        )
        self.splits = np.cumsum([len(one.saveat) for one in pieces])[:-1]
        slopes = self._dense_stages()
        increment = np.matmul(self.weights[:, None, :], slopes)[:, 0]
        states = steps.states[self.row, 0] + steps.h[self.row, None] * increment
        self.states = np.split(states, self.splits)

    def _dense_stages(self) -> Float64[np.ndarray, "T R n"]:
        """Slopes of all stages in the steps of the save points; those for dense output alone are evaluated here."""
        steps, tableau, first = self.steps, self.tableau, self.tableau.stages
        extra = len(tableau.c) - first
        self.extra_rows, self.extra_states = np.empty(0, np.intp), np.empty((0, extra, steps.states.shape[2]))
        if not extra:
            return steps.slopes[self.row]
        rows, inverse = np.unique(self.row, return_inverse=True)
        n = steps.states.shape[2]
        slopes = np.concatenate([steps.slopes[rows], np.empty((len(rows), extra, n))], axis=1)
        self.extra_rows, self.extra_states = rows, np.empty((len(rows), extra, n))
        for j in range(first, first + extra):
            increment = np.matmul(tableau.a[j, :j], slopes[:, :j])
            self.extra_states[:, j - first] = state = steps.states[rows, 0] + steps.h[rows, None] * increment
            at = steps.t[rows] + tableau.c[j] * steps.h[rows]
            slopes[:, j] = self.kernel.batch(state, at, self.drive(at, steps.interval[rows]))
        return slopes[inverse]

    def pull(
        self, cotangents: Sequence[Float64[np.ndarray, "_ n"]]
    ) -> tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, "K n"]]:
        """Gradients of sum(cotangent * state): by the parameters, and by the starts."""
        steps, cotangent = self.steps, np.concatenate(cotangents)
        n_steps, stages, n = steps.states.shape
        # Save points act on the state at the start of their step and on its stages.
        direct, by_slopes = np.zeros((n_steps, n)), np.zeros((n_steps, len(self.tableau.c), n))
        np.add.at(direct, self.row, cotangent)
        np.add.at(by_slopes, self.row, self.weights[:, :, None] * cotangent[:, None, :])
        by_slopes *= steps.h[:, None, None]
        running = np.zeros((len(steps.order), n))  # cotangents of the states between steps, in the order of a group
        groups = np.diff(steps.groups)
        per_row = stages * n * (n + 1)
        parts, stop = [], len(groups)
        while stop:
            start = stop - 1
            while start and (steps.groups[stop] - steps.groups[start - 1]) * per_row <= BLOCK:
                start -= 1
            parts.append(self._replay(start, stop, direct, by_slopes, running))
            stop = start
        by_starts = np.empty_like(running)
        by_starts[steps.order] = running
        return sum(parts[1:], parts[0]), by_starts

    def _replay(
        self, start: int, stop: int, direct: np.ndarray, by_slopes: np.ndarray, running: np.ndarray
    ) -> Float64[np.ndarray, " P"]:
        """Carry `running` back over groups of steps; returns what they add to the gradient by the parameters."""
        steps, tableau = self.steps, self.tableau
        own = slice(steps.groups[start], steps.groups[stop])
        h, direct, constant = steps.h[own, None, None], direct[own], by_slopes[own]
        count, stages, n = steps.states[own].shape
        a, b = tableau.a, tableau.a[stages - 1]

        points, last, dense, extras = self._points(own)
        jacobian, pullback = self.kernel.linearise(*points)
        by_point = np.zeros((len(jacobian), n))
        for j in range(len(tableau.c) - 1, stages - 1, -1):  # stages for dense output alone
            which = extras[:, j - stages]
            by_point[which] = constant[dense, j]
            by_state = np.matmul(by_point[which][:, None, :], jacobian[which])[:, 0]
            direct[dense] += by_state
            constant[dense, :j] += h[dense] * a[j, :j, None] * by_state[:, None]

        # Columns: by the next state's cotangent, and the constant part
        stage_grad = np.zeros((count, stages, n, n + 1))
        stage_grad[..., n] = constant[:, :stages]
        stage_grad[:, :, np.arange(n), np.arange(n)] += h * b[:stages, None]
        total = np.zeros((count, n, n + 1))
        total[:, np.arange(n), np.arange(n)] = 1.0
        total[:, :, n] += direct
        by_step = jacobian[: count * (stages - 1)].reshape(count, stages - 1, n, n)
        for j in range(stages - 1, -1, -1):
            stage_jacobian = by_step[:, j] if j < stages - 1 else jacobian[last]
            state_grad = np.matmul(stage_jacobian.transpose(0, 2, 1), stage_grad[:, j])  # cotangent of Y_j
            total += state_grad
            if j:
                stage_grad[:, :j] += (h * a[j, :j, None])[..., None] * state_grad[:, None]

        carried = np.zeros((count, n))
        matrix, constant_part = np.ascontiguousarray(total[:, :, :n]), np.ascontiguousarray(total[:, :, n])
        for g in range(stop - 1, start - 1, -1):
            rows = slice(steps.groups[g] - own.start, steps.groups[g + 1] - own.start)
            size = rows.stop - rows.start
            carried[rows] = running[:size]
            running[:size] = np.matmul(matrix[rows], running[:size, :, None])[..., 0] + constant_part[rows]

        slopes = np.matmul(stage_grad[..., :n], carried[:, None, :, None])[..., 0] + stage_grad[..., n]
        by_point[: count * (stages - 1)] = slopes[:, :-1].reshape(-1, n)
        by_point[last] += slopes[:, -1]
        return pullback(by_point)

    def _points(
        self, own: slice
    ) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray, np.ndarray, np.ndarray]:
        """Where the field is linearised for steps: all stages but the last of each, then the last stages that are not
        the first of a next one among them, then those for dense output alone.

        Returns:
            Times, states and inputs of the points; which of them is the last stage of each step; the steps, counted
            from the first of these, with stages for dense output alone, and which points those are (M, R - S).
        """
        steps, tableau = self.steps, self.tableau
        states, stages = steps.states[own], self.tableau.stages
        count, _, n = states.shape
        after = steps.successors()[own] - own.start
        alone = after >= count
        alone[~alone] = steps.fresh[own][after[~alone]]
        lone = np.flatnonzero(alone)
        last = after * (stages - 1)
        last[lone] = count * (stages - 1) + np.arange(len(lone))
        found = np.flatnonzero((self.extra_rows >= own.start) & (self.extra_rows < own.stop))
        dense, extra = self.extra_rows[found] - own.start, tableau.c[stages:]
        extras = count * (stages - 1) + len(lone) + np.arange(len(dense) * len(extra)).reshape(len(dense), len(extra))

        row = np.concatenate([np.repeat(np.arange(count), stages - 1), lone, np.repeat(dense, len(extra))])
        c = np.concatenate([np.tile(tableau.c[: stages - 1], count), np.ones(len(lone)), np.tile(extra, len(dense))])
        at = steps.t[own][row] + c * steps.h[own][row]
        parts = states[:, :-1].reshape(-1, n), states[lone, -1], self.extra_states[found].reshape(-1, n)
        return (at, np.concatenate(parts), self.drive(at, steps.interval[own][row])), last, dense, extras
