"""What implicit solvers for stiff systems share: SciPy's steps, and the linear systems of Newton's method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.integrate import BDF

from kansciml._errors import SolveError
from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.explicit import failure
from kansciml.backends._kernels import FieldKernel
from kansciml.backends.base import Piece, Solved

NEWTON = 8
"""Iterations on all steps together after which each step is solved by itself, one after the other."""
HALVINGS = 60
"""Iterations after which the equations of a step by itself are given up."""
Accepted = tuple[int, int, int, bool, tuple[float, int], Any]


@dataclass(frozen=True, eq=False)
class ImplicitEngine:
    """Solves pieces by an implicit method.

    Args:
        bind: gives the field's kernel with its parameters. solved: `RadauSolved` or `BdfSolved`.
    """

    bind: Callable[[np.ndarray], FieldKernel]
    solved: Callable[[FieldKernel, Sequence[Piece], float, float, int], Solved]

    def solve(
        self,
        params: Float64[np.ndarray, " P"],
        pieces: Sequence[Piece],
        rtol: float,
        atol: float,
        max_steps: int,
        gradient: bool,
    ) -> Solved:
        """See `kansciml.backends.base.Engine`; steps that SciPy rejects are not counted."""
        return self.solved(self.bind(params), pieces, rtol, atol, max_steps)


def solve_linear(
    matrix: Float64[np.ndarray, "N m m"], sides: Float64[np.ndarray, "*N m k"]
) -> Float64[np.ndarray, "N m k"]:
    """Solutions of linear systems, one for each step."""
    try:
        return np.linalg.solve(matrix, sides)
    except np.linalg.LinAlgError as error:
        raise SolveError("the equations of an implicit step are singular: tighten rtol and atol") from error


def settled(size: float, before: float, rtol: float) -> bool:
    """Whether Newton's method has converged: its last corrections were `before` and `size`, in units of the tolerance.

    A correction is that of a step by itself, its start held fixed. What it moves the end of the solution by can be
    larger without limit, where the solution grows, and does not tell: the steps are solved if each of them is. Rounding
    ends the quadratic convergence near the machine's precision over rtol, or later where the field has cancellation.
    """
    return size <= _small(rtol) or 0.3 * before < size < 0.1


def _small(rtol: float) -> float:
    return max(1e-8, 10 * np.finfo(np.float64).eps / rtol)


def damped_newton(
    correction: Callable[[np.ndarray], np.ndarray],
    x: Float64[np.ndarray, "K m"],
    size_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rtol: float,
) -> tuple[Float64[np.ndarray, "K m"], Float64[np.ndarray, " K"]]:
    """Zeros of K corrections of Newton's method, from guesses x; and the sizes of the last corrections.

    Where a correction is not smaller than the one before, as it is across a kink of the field, half a step is taken.

    Args:
        correction: x -> what Newton's method adds to it. size_of: correction, x -> its size (K,), see `settled`.
    """
    change = correction(x)
    size, share, stuck = size_of(change, x), np.ones(len(x)), np.zeros(len(x))
    for _ in range(HALVINGS):
        if np.all((size <= _small(rtol)) | ((size < 0.1) & (stuck > 3))):  # the latter: rounding alone is left
            break
        moved = x + share[:, None] * change
        further = correction(moved)
        found = size_of(further, moved)
        better = found < size
        x, change = np.where(better[:, None], moved, x), np.where(better[:, None], further, change)
        size, stuck = np.where(better, found, size), np.where(better, 0.0, stuck + 1)
        share = np.where(better, np.minimum(1.0, 2 * share), share / 2)
    return x, size


def check_solved(times: Float64[np.ndarray, " K"], size: Float64[np.ndarray, " K"]) -> None:
    """Raises the error for equations of steps at `times` whose last corrections are not below the tolerance."""
    if not np.all(size < 0.1):
        at = f"near t = {times[np.argmax(np.nan_to_num(size, nan=np.inf))]:.6g}"
        raise SolveError(f"Newton's method does not solve the equations of a step {at}: tighten rtol and atol")


def accepted(
    method: type,
    kernel: FieldKernel,
    drive: Drive,
    pieces: Sequence[Piece],
    rtol: float,
    atol: float,
    max_steps: int,
) -> Iterator[Accepted]:
    """SciPy's solver after each step that it accepts, piece by piece, anew from knot to knot of the inputs.

    Yields:
        Piece, number of the step within it, interval of the inputs, whether it is the first there, step size and order
        before the step, solver.
    """
    for k, one in enumerate(pieces):
        interval, t, u, taken = drive.first[[k]], one.t0, one.start, 0
        h: float | None = None
        end = one.saveat[-1] if one.saveat[-1] > t else t + 1e-6 * max(1.0, abs(t))
        while t < end:
            stop = min(float(drive.until(interval)[0]), end)
            slope, jacobian = _functions(kernel, drive, interval)
            first = None if h is None or method is BDF else min(h, stop - t)  # BDF begins with order 1
            try:
                if not np.isfinite(slope(t, u)).all():
                    raise failure(t, 0.0, u, 0, 1, one.name)
                solver = method(slope, t, u, stop, rtol=rtol, atol=atol, jac=jacobian, first_step=first)
                # For a few unknowns far quicker than scipy.linalg's, and exact enough to choose steps
                solver.lu, solver.solve_lu = np.linalg.inv, np.dot
                while solver.status == "running":
                    before = solver.h_abs, getattr(solver, "order", 0)
                    if taken < max_steps:
                        solver.step()
                    if taken == max_steps or solver.status == "failed":
                        raise failure(solver.t, solver.h_abs, solver.y, taken, max_steps, one.name)
                    yield k, taken, int(interval[0]), solver.t_old == t, before, solver
                    taken += 1
            except (ValueError, np.linalg.LinAlgError) as error:  # SciPy's: a matrix that is singular or not finite
                raise failure(t, h or 0.0, u, 0, 1, one.name) from error
            t, u, h = solver.t, solver.y, solver.h_abs
            interval = interval + 1


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
