"""Explicit Runge-Kutta pairs in NumPy, for many pieces side by side, keeping every stage of every accepted step.

Step control and first step are those of Hairer, Norsett & Wanner I, sec. II.4, with the maximum norm, so that dopri5
takes the steps of torchdiffeq's up to rounding; the last step may reach beyond the end, and save points are read off
the dense output. The maximum norm because a root mean square over 28 components lets one of them err by five times the
tolerance: where a spline's knots are crossed, that cost one to two digits of the loss, and saved 12 to 27 % of the
steps. Steps end on the knots of inputs.

All pieces take a step at once, each of its own size. One piece alone has a loop of its own, written for states of 2 to
30 numbers: torchdiffeq spends its time in the dispatch of some thirty small tensor operations a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from kansciml._errors import SolveError
from kansciml.backends._engines.drive import Drive
from kansciml.backends._engines.tableaus import Tableau
from kansciml.backends._kernels import FieldKernel, Rhs
from kansciml.backends.base import Piece

SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2


Rows = Int[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class Steps:
    """The accepted steps of all pieces, N in all: first the first step of each, then the second of each, ...

    Pieces of more steps come first within each group, so that group g, rows ``groups[g]:groups[g + 1]``, are the steps
    of the first of them.

    t (N,), h (N,), end (N,): start, size and end of each step. states (N, S, n): where the field was evaluated; the
    first is the state at the step's start, the last at its end. slopes (N, S, n): the values there. interval (N,): of
    its inputs. fresh (N,): whether its first slope is not the last one of the step before. groups (G + 1,). order (K,):
    the pieces in the order within a group. rejected: steps, of all pieces.
    """

    t: np.ndarray
    h: np.ndarray
    end: np.ndarray
    states: np.ndarray
    slopes: np.ndarray
    interval: np.ndarray
    fresh: np.ndarray
    groups: np.ndarray
    order: np.ndarray
    rejected: int

    def slices(self) -> list[slice]:
        """The rows of each group."""
        return [slice(*pair) for pair in zip(self.groups[:-1], self.groups[1:])]

    def successors(self) -> Int[np.ndarray, " N"]:
        """The next step of the same piece, or N after its last."""
        sizes = np.diff(self.groups)
        rows, following = np.arange(len(self.t)), np.append(sizes[1:], 0)
        place = rows - np.repeat(self.groups[:-1], sizes)
        return np.where(place < np.repeat(following, sizes), rows + np.repeat(sizes, sizes), len(rows))

    def rows(self, place: int) -> Int[np.ndarray, " S"]:
        """The steps of a piece, the one at `place` in a group, one after the other."""
        return self.groups[: np.searchsorted(-np.diff(self.groups), -place)] + place  # groups of more pieces than that

    def locate(self, saveat: Sequence[Float64[np.ndarray, " _"]]) -> Int[np.ndarray, " all"]:
        """The step that holds each save time of each piece in turn."""
        found = [np.empty(0, np.intp)] * len(saveat)
        for place, piece in enumerate(self.order):
            rows = self.rows(place)
            step = np.searchsorted(self.end[rows], saveat[piece], side="left")
            found[piece] = rows[np.minimum(step, len(rows) - 1)]
        return np.concatenate(found)


def integrate(
    kernel: FieldKernel,
    drive: Drive,
    tableau: Tableau,
    pieces: Sequence[Piece],
    rtol: float,
    atol: float,
    max_steps: int = 20_000,
) -> Steps:
    """Solve du/dt = f(u, w(t), t) from the start of each piece until a step reaches its last save time.

    Raises:
        SolveError: a state stopped being finite, a step size underflowed, or a piece needs more than `max_steps` steps.
    """
    with np.errstate(all="ignore"):  # a field that blows up is an answer here, told by SolveError
        rhs = kernel.rhs
        if len(pieces) == 1 and rhs is not None and not drive.present:
            one = pieces[0]
            return integrate_one(rhs, tableau, one.start, one.t0, one.saveat[-1], rtol, atol, max_steps, one.name)
        return _integrate(kernel, drive, tableau, pieces, rtol, atol, max_steps)


def _integrate(kernel, drive, tableau, pieces, rtol, atol, max_steps) -> Steps:
    count, stages, power = len(pieces), tableau.stages, -1 / tableau.order
    piece = np.arange(count)
    t, u = np.array([one.t0 for one in pieces]), np.stack([one.start for one in pieces])
    stop = np.array([one.saveat[-1] for one in pieces])
    interval = drive.first
    f = kernel.batch(u, t, drive(t, interval))
    h = _first_steps(kernel, drive, tableau.order, u, f, t, interval, rtol, atol)
    fresh, tried, taken = np.ones(count, dtype=bool), np.zeros(count, np.intp), np.zeros(count, np.intp)
    kept: list[tuple[np.ndarray, ...]] = []
    rejected = 0
    while len(piece):
        failed = np.flatnonzero((tried >= max_steps) | ~(t + h > t))
        if len(failed):
            i = failed[0]
            raise failure(t[i], h[i], u[i], tried[i], max_steps, pieces[piece[i]].name)
        room = drive.until(interval) - t
        lands = 1.01 * h >= room  # on the knot
        size = np.where(lands, room, h)
        states, slopes = np.empty((2, stages, *u.shape))
        states[0], slopes[0] = u, f
        for j in range(1, stages):
            increment = np.tensordot(tableau.a[j, :j], slopes[:j], 1)
            states[j] = u + size[:, None] * increment
            at = t + tableau.c[j] * size
            slopes[j] = kernel.batch(states[j], at, drive(at, interval))
        tol = atol + rtol * np.maximum(np.abs(u), np.abs(states[-1]))
        ratio = size * _norm(np.abs(np.tensordot(tableau.error, slopes, 1) / tol).max(-1), tableau)
        ok = ratio <= 1.0
        factor = np.nan_to_num(SAFETY * ratio**power, nan=SHRINK, posinf=GROW)
        new = size * np.clip(factor, np.where(ok, 1.0, SHRINK), GROW)
        h = np.where(ok & lands, np.maximum(new, h), new)
        tried += 1
        rejected += len(ok) - int(np.count_nonzero(ok))
        if not ok.any():
            continue
        end = np.where(lands, drive.until(interval), t + size)
        kept.append(
            (
                *(a[ok] for a in (piece, taken, t, size, end)),
                *(a[:, ok].transpose(1, 0, 2) for a in (states, slopes)),
                *(a[ok] for a in (interval, fresh)),
            )
        )
        u, f = np.where(ok[:, None], states[-1], u), np.where(ok[:, None], slopes[-1], f)
        t, taken = np.where(ok, end, t), taken + ok
        crossed = ok & lands
        interval = interval + crossed
        fresh = np.where(ok, crossed & drive.jumps(piece), fresh)
        renew = np.flatnonzero(ok & fresh)
        if len(renew):
            f[renew] = kernel.batch(u[renew], t[renew], drive(t[renew], interval[renew]))
        going = ~(t >= stop[piece])
        if not going.all():
            now = (piece, t, u, f, h, interval, fresh, tried, taken)
            piece, t, u, f, h, interval, fresh, tried, taken = (a[going] for a in now)
    piece, number, t, size, end, states, slopes, interval, fresh = (np.concatenate(column) for column in zip(*kept))
    rows, groups, order = in_order(count, piece, number)
    t, size, end, states, slopes, interval, fresh = (a[rows] for a in (t, size, end, states, slopes, interval, fresh))
    return Steps(t, size, end, states, slopes, interval, fresh, groups, order, rejected)


def in_order(count: int, piece: Rows, number: Rows) -> tuple[Rows, Int[np.ndarray, " G1"], Int[np.ndarray, " K"]]:
    """How `Steps` sorts steps, its groups and order, by whose step each is and which of its steps."""
    order = np.argsort(-np.bincount(piece, minlength=count), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(count)
    return np.lexsort((place[piece], number)), np.append(0, np.cumsum(np.bincount(number))), order


def _norm(largest: np.ndarray, tableau: Tableau) -> np.ndarray:
    """The error over the tolerance and h, of the largest components of the estimates (B,) or (2, B)."""
    if tableau.error.ndim == 1:
        return largest
    fifth, third = largest
    return np.where(fifth == 0, 0.0, fifth**2 / np.sqrt(fifth**2 + 0.01 * third**2))


def _first_steps(kernel, drive, order, u, f, t, interval, rtol, atol) -> np.ndarray:
    """Starting step sizes of Hairer, Norsett & Wanner I, sec. II.4."""
    scale = atol + np.abs(u) * rtol
    d0, d1 = np.abs(u / scale).max(1), np.abs(f / scale).max(1)
    h0 = np.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    d2 = np.abs((kernel.batch(u + h0[:, None] * f, t + h0, drive(t + h0, interval)) - f) / scale).max(1) / h0
    h1 = np.where(
        (d1 <= 1e-15) & (d2 <= 1e-15), np.maximum(1e-6, h0 * 1e-3), (0.01 / np.maximum(d1, d2)) ** (1 / order)
    )
    return np.minimum(100 * h0, h1)


def integrate_one(
    rhs: Rhs,
    tableau: Tableau,
    u0: Float64[np.ndarray, " n"],
    t0: float,
    t_end: float,
    rtol: float,
    atol: float,
    max_steps: int = 20_000,
    name: str = "",
) -> Steps:
    """Solve du/dt = rhs(t, u), u(t0) = u0, until a step reaches `t_end` >= t0: see `integrate`."""
    n, order, count = len(u0), tableau.order, tableau.stages
    power = 1 / order
    capacity = 64
    states, slopes = np.empty((2, capacity, count, n))
    times, sizes = np.empty(capacity), np.empty(capacity)
    states[0, 0] = u0
    rhs(t0, u0, slopes[0, 0])
    h = _first_step(rhs, order, t0, u0, slopes[0, 0].copy(), rtol, atol)

    a, estimate = np.ascontiguousarray(tableau.a[:count, :count]), tableau.error
    two = estimate.ndim == 2
    h_a, error, tol, magnitude = np.empty_like(a), np.empty((*estimate.shape[:-1], n)), np.empty(n), np.empty(n)
    last_magnitude = np.abs(u0)
    stages = [(j, float(tableau.c[j]), h_a[j, :j]) for j in range(1, count)]
    t, accepted, rejected = t0, 0, 0
    while True:
        u, k = states[accepted], slopes[accepted]
        start = u[0]
        while True:
            if accepted + rejected >= max_steps or t + h <= t or not h > 0:
                raise failure(t, h, start, accepted + rejected, max_steps, name)
            np.multiply(a, h, out=h_a)
            for j, c, row in stages:
                stage = u[j]
                np.dot(row, k[:j], out=stage)
                stage += start
                rhs(t + c * h, stage, k[j])
            # Largest error over atol + rtol max(|u0|, |u1|)
            np.dot(estimate, k, out=error)
            np.abs(stage, out=magnitude)
            np.maximum(last_magnitude, magnitude, out=tol)
            tol *= rtol
            tol += atol
            error /= tol
            largest = np.abs(error, out=error).max(-1)
            ratio = h * float(_norm(largest, tableau) if two else largest)
            if ratio <= 1.0:
                break
            rejected += 1
            h *= max(SAFETY / ratio**power, SHRINK) if ratio < np.inf else SHRINK
        times[accepted], sizes[accepted] = t, h
        t += h
        accepted += 1
        if t >= t_end:
            break
        h *= GROW if ratio == 0.0 else min(GROW, max(SAFETY / ratio**power, 1.0))
        last_magnitude, magnitude = magnitude, last_magnitude
        if accepted == capacity:
            capacity *= 2
            states, slopes = (np.concatenate([a, np.empty_like(a)]) for a in (states, slopes))
            times, sizes = (np.concatenate([a, np.empty_like(a)]) for a in (times, sizes))
            k, u = slopes[accepted - 1], states[accepted - 1]
        states[accepted, 0], slopes[accepted, 0] = u[-1], k[-1]
    rows = np.arange(accepted + 1)
    times, sizes = times[:accepted], sizes[:accepted]
    fresh, interval = rows[:-1] == 0, np.zeros(accepted, np.intp)
    kept = (times, sizes, times + sizes, states[:accepted], slopes[:accepted], interval, fresh)
    return Steps(*kept, groups=rows, order=np.zeros(1, np.intp), rejected=rejected)


def _first_step(rhs: Rhs, order: int, t0: float, u0: np.ndarray, f0: np.ndarray, rtol: float, atol: float) -> float:
    """Starting step size of Hairer, Norsett & Wanner I, sec. II.4."""
    scale = atol + np.abs(u0) * rtol
    d0, d1 = _size(u0 / scale), _size(f0 / scale)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
    f1 = np.empty_like(f0)
    rhs(t0 + h0, u0 + h0 * f0, f1)
    d2 = _size((f1 - f0) / scale) / h0
    h1 = max(1e-6, h0 * 1e-3) if d1 <= 1e-15 and d2 <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / order)
    return float(min(100 * h0, h1))


def _size(x: np.ndarray) -> float:
    return float(np.abs(x).max())


def failure(t: float, h: float, u: np.ndarray, tried: int, max_steps: int, name: str = "") -> SolveError:
    """Why the solve of a piece of this name stopped at time t with state u and step size h."""
    of = f"{name}: " if name else ""
    if tried >= max_steps:
        remedy = "raise max_steps, or loosen rtol and atol"
        return SolveError(f"{of}the solution needs more than {max_steps} steps (reached t = {t:.6g}): {remedy}")
    largest = np.max(np.abs(u))
    return SolveError(f"{of}the solution blows up near t = {t:.6g} (largest state {largest:.3g}, step {h:.3g})")
