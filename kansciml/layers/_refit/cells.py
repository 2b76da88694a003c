"""Two grids cut into common cells, where the splines of both are polynomials: all that a refit asks of its samples.

A sum over the samples of a cell of a product of two polynomials of degree S is a linear map of 2S + 1 moments of these
samples. So the samples are read once, to be counted in their cells, and least squares and its error need them no more.
In a cell a spline is known by its values at S + 1 Chebyshev nodes; moments are of powers of the cell's own coordinate
in [-1, 1]. Values are (P, S + 1, I, C): what is done in every cell is elementwise over many, not many small products.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial.polynomial import polyvander
from torch import Tensor

CACHED = 1 << 16
"""Samples that are read at a time."""


class Cells(NamedTuple):
    """C cells of every feature between neighbouring knots of either grid; some are empty where features differ."""

    left: Tensor  # (I, C)
    width: Tensor  # (I, C), 0 of a cell that this feature does not have


class Local(NamedTuple):
    """The S + 1 splines that are not 0 in a cell, of every cell."""

    values: Tensor  # (S + 1, S + 1, I, C), second at the cell's nodes; any finite number for those that the grid lacks
    first: Tensor  # (I, C), index of the first of them, among the grid's splines with S + 1 more on both sides
    size: int  # number P of the grid's splines

    def dense(self) -> Tensor:
        """The values of all of the grid's splines, (P, S + 1, I, C)."""
        order = len(self.values) - 1
        all_of_them = self.values.new_zeros(self.size + 2 * (order + 1), *self.values.shape[1:])
        index = self.first + torch.arange(order + 1, device=self.first.device)[:, None, None, None]
        all_of_them.scatter_(0, index.expand(self.values.shape), self.values)
        return all_of_them[order + 1 : order + 1 + self.size]


class Problem(NamedTuple):
    """What a refit asks of the samples of some features: both grids' splines in every cell, and products there."""

    before: Local
    after: Local
    wanted: Tensor  # (S + 1, S + 1, I, C), `products` with the weights of the fit
    squares: Tensor  # (S + 1, S + 1, I, C), `products` summed over the samples
    probes: Tensor  # (S + 1, 3S + 1, I, C), the `probes` of the range of the samples in each cell
    samples: float  # number of samples, times features


class Found(NamedTuple):
    """The least squares of a `Problem`, and what it changes: (new - old) splines times the factors of the edges."""

    coefficients: Tensor  # (I, P_new, O)
    largest: Tensor  # change at the probes
    squares: Tensor  # sum of the squares of the changes, over samples and edges
    power: Tensor  # the same of the old splines


def closed(knots: Tensor, order: int) -> Tensor:
    """Knots with the end of the grid moved by one rounding: as a break, it puts the end into the last interval."""
    knots = knots.clone(memory_format=torch.contiguous_format)
    end = knots[:, knots.shape[1] - order - 1]
    end.copy_(torch.nextafter(end, torch.full_like(end, torch.inf)))
    return knots


def cut(old: Tensor, new: Tensor, order: int, ordered: Tensor | None) -> Cells:
    """Cells that cover the new grid and all samples, (I, N) in ascending order.

    Args:
        old, new: `closed` knots.
    """
    low, high = new[:, order, None], new[:, new.shape[1] - order - 1, None]
    breaks = torch.cat([old, new], dim=1)
    if ordered is not None:
        breaks = torch.cat([breaks, ordered[:, :1], ordered[:, -1:]], dim=1)
        low, high = torch.minimum(low, ordered[:, :1]), torch.maximum(high, ordered[:, -1:])
    breaks = torch.minimum(torch.maximum(breaks, low), high).sort(dim=1).values
    width = breaks.diff(dim=1)
    used = (width > 0).any(0)
    return Cells(breaks[:, :-1][:, used].contiguous(), width[:, used])


def count(cells: Cells, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first sample in every cell, and the number of samples in it, (I, C) each."""
    first = torch.searchsorted(ordered, cells.left)
    first[:, 0] = 0
    end = torch.cat([first[:, 1:], torch.full_like(first[:, :1], ordered.shape[1])], dim=1)
    return first, end - first


def moments(cells: Cells, ordered: Tensor, number: Tensor, order: int) -> Tensor:
    """Sums of the powers 0 ... 2S of the cell's own coordinate over the samples of every cell, (2S + 1, I, C)."""
    sums = ordered.new_empty(2 * order + 1, *number.shape)
    sums[0] = number
    step = max(1, CACHED // ordered.shape[1])
    origin, per_unit = _coordinate(cells)
    for start in range(0, len(ordered) if order else 0, step):
        part = slice(start, start + step)
        flat, x = number[part].flatten(), ordered[part].flatten()
        r = x - origin[part].flatten().repeat_interleave(flat, output_size=len(x))
        r *= per_unit[part].flatten().repeat_interleave(flat, output_size=len(x))
        add, power = _adder(flat), r.clone()
        for k in range(1, 2 * order + 1):
            sums[k, part] = add(power).unflatten(0, (-1, number.shape[1]))
            if k < 2 * order:
                power *= r
    return sums


def _adder(number: Tensor) -> Callable[[Tensor], Tensor]:
    """Function of values that adds up the first number[0] of them, the next number[1], and so on."""
    if number.device.type != "cpu":
        return lambda values: torch.segment_reduce(values, "sum", lengths=number)
    first = (number.cumsum(0) - number).numpy()
    held = (number > 0).numpy()  # what NumPy calls the sum of no values is not 0

    def add(values: Tensor) -> Tensor:
        sums = np.zeros(len(held))
        sums[held] = np.add.reduceat(values.numpy(), first[held])
        return torch.from_numpy(sums)

    return add


def even_moments(order: int, like: Tensor) -> Tensor:
    """`moments` of one sample spread evenly over its cell, (2S + 1, 1, 1)."""
    k = torch.arange(2 * order + 1, dtype=like.dtype, device=like.device)
    return torch.where(k % 2 == 0, 1 / (k + 1), 0.0)[:, None, None]


def shares(cells: Cells, inner: Tensor) -> tuple[Tensor, Tensor]:
    """Part that each cell is of its interval between inner knots (I, G + 1), 0 off them, and if it is between them."""
    at = torch.searchsorted(inner, cells.left, right=True) - 1
    intervals = inner.shape[1] - 1
    inside = (at >= 0) & (at < intervals)
    return inside * cells.width / inner.diff(dim=1).gather(1, at.clamp(0, intervals - 1)), inside


def products(moments: Tensor, order: int) -> Tensor:
    """M (S + 1, S + 1, I, C): p' M q is the sum over a cell's samples of p q, both given by values at its nodes."""
    table = torch.as_tensor(_product_table(order), dtype=moments.dtype, device=moments.device)
    return (table @ moments.flatten(1)).unflatten(1, moments.shape[1:]).unflatten(0, (order + 1, order + 1))


def times(values: Tensor, matrices: Tensor) -> Tensor:
    """Values (P, n, I, C) times matrices (n, m, I, C) of each cell: (P, m, I, C)."""
    result = values[:, 0, None] * matrices[0]
    for a in range(1, len(matrices)):
        result.addcmul_(values[:, a, None], matrices[a])
    return result


def by_feature(values: Tensor) -> Tensor:
    """(P, n, I, C) as one matrix per feature, (I, P, n C)."""
    return values.permute(2, 0, 1, 3).flatten(2)


def by_cell(values: Tensor, shape: torch.Size) -> Tensor:
    """One matrix per feature (I, P, n C) as (P, n, I, C), of a `shape` whose P does not matter."""
    return values.unflatten(2, (shape[1], shape[3])).permute(1, 2, 0, 3).contiguous()


def probes(cells: Cells, low: Tensor, high: Tensor, held: Tensor, order: int) -> Tensor:
    r"""Matrices V (S + 1, 3S + 1, I, C): p V bounds a polynomial p, given by its values at the nodes, on low ... high.

    No value of p there is larger than the largest of |p V|, which is at most 1.16 times one of them: a polynomial of
    degree S is at most 1 / cos(pi S / 2n) times its largest value at the n + 1 extrema of the n-th Chebyshev
    polynomial (Ehlich & Zeller 1964), n = 3S. Where `low` is `high` that is the value itself; 0 in cells not `held`.
    """
    n = 3 * order
    extrema = torch.as_tensor(np.cos(np.pi * np.arange(n + 1) / max(n, 1)), dtype=low.dtype, device=low.device)
    centre, per_unit = _coordinate(cells)
    low, high = (low - centre) * per_unit, (high - centre) * per_unit
    half = 0.5 * (high - low)
    at = torch.addcmul(0.5 * (low + high), half, extrema[:, None, None])
    powers = at.new_empty(order + 1, *at.shape)
    powers[0] = (1.0 + (1 / np.cos(np.pi / 6) - 1.0 if order else 0.0) * (half > 0).to(half.dtype)) * held
    for k in range(1, order + 1):
        torch.mul(powers[k - 1], at, out=powers[k])
    lagrange = torch.as_tensor(_lagrange(order), dtype=low.dtype, device=low.device)
    return (lagrange @ powers.flatten(1)).unflatten(1, at.shape)


def local_splines(knots: list[Tensor], ends: list[Tensor], order: int, outside: str, cells: Cells) -> list[Local]:
    """The splines of each of `knots` at the nodes of the cells, by recursion over those not 0 there.

    Each is continued as the polynomial that it is inside its cell, whatever the rounding of the point.

    Args:
        knots, ends: (I, G + 2S + 1) each, and the same `closed`.
        order, outside: S, and what splines do off their grid.
    """
    nodes = torch.as_tensor(_nodes(order), dtype=cells.left.dtype, device=cells.left.device)
    points = torch.addcmul(cells.left + 0.5 * cells.width, 0.5 * cells.width, nodes[:, None, None])  # (n, I, C)
    near, inside, first = [], [], []
    for t, breaks in zip(knots, ends):
        grid = t.shape[1] - 2 * order - 1
        span = torch.searchsorted(breaks, cells.left, right=True) - 1
        at = points
        if outside != "zero":
            span = span.clamp(order, order + grid - 1)
            at = torch.minimum(torch.maximum(points, t[:, order, None]), t[:, order + grid, None])
        # S + 1 knots more on both sides, at any distance: no spline of the grid reaches there, but indices stay valid
        more = torch.arange(1, order + 2, dtype=t.dtype, device=t.device) * (t[:, -1:] - t[:, :1])
        padded = torch.cat([t[:, :1] - more.flip(1), t, t[:, -1:] + more], dim=1)
        around = span + torch.arange(2, 2 * order + 2, device=t.device)[:, None, None]  # (2S, I, C)
        near.append(padded.expand(len(around), -1, -1).gather(2, around))
        inside.append(at)
        first.append(span + 1)
    t, x = torch.stack(near, 1).unsqueeze(2), torch.stack(inside)  # (2S, grids, 1, I, C), (grids, n, I, C)
    values, slopes = x.new_ones(1, *x.shape), x.new_zeros(1)
    for k in range(1, order + 1):
        low, high = t[order - k : order], t[order : order + k]
        weighted = values / (high - low)
        values = x.new_zeros(k + 1, *x.shape)
        torch.mul(high - x, weighted, out=values[:k])
        values[1:].addcmul_(x - low, weighted)
        if k == order and outside == "linear":
            slopes = torch.zeros_like(values)
            slopes[1:] = order * weighted
            slopes[:-1] -= order * weighted
    if outside == "linear":
        values = values + slopes * (points - x)
    return [Local(values[:, i].contiguous(), first[i], t.shape[1] - order - 1) for i, t in enumerate(knots)]


def _coordinate(cells: Cells) -> tuple[Tensor, Tensor]:
    """Origin of the cell's own coordinate, in [-1, 1], and its units per unit of x; 0 in a cell of no width."""
    return cells.left + 0.5 * cells.width, torch.where(cells.width > 0, 2 / cells.width, 0.0)


@cache
def _nodes(order: int) -> np.ndarray:
    return np.cos(np.pi * (2 * np.arange(order + 1) + 1) / (2 * order + 2))


@cache
def _lagrange(order: int) -> np.ndarray:
    """Row a: coefficients, lowest power first, of the polynomial that is 1 at node a and 0 at the others."""
    return np.linalg.inv(polyvander(_nodes(order), order)).T


@cache
def _product_table(order: int) -> np.ndarray:
    """Rows: coefficients of the products of two Lagrange polynomials, ((S + 1)^2, 2S + 1)."""
    rows = _lagrange(order)
    return np.array([np.convolve(a, b) for a in rows for b in rows])
