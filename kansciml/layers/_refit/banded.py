"""A refit on grids of any size, in time and memory linear in it: least squares for the coefficients of every edge.

A spline overlaps S others on each side, so that the normal matrix of a feature has S diagonals beside its own. Cut
into blocks it is block tridiagonal, with corners of S x S beside the diagonal. What is done block after block is done
for all features and edges at once, on any device. Functions are values at the nodes of the cells (`cells`), here
of edges: (O, S + 1, I, C).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from kansciml.layers._refit.cells import Found, Local, Problem, times

ROWS = 16
"""Rows of a block: fewer mean more steps, more mean more operations."""
RIDGE = 1e-13
"""Added to the unit diagonal: more than rounding can take from a pivot. Corrections take it out again."""
ENOUGH = 1e-7
"""Size of a correction, relative to the edge's coefficients, after which the next one is rounding alone."""
MOST_CORRECTIONS = 8
CACHED = 1 << 17
"""Numbers of a block of outputs' functions."""


def fit(problem: Problem, weights: Tensor, scale: Tensor | None) -> Found:
    """Least squares for the splines of old coefficients (I, P_old, O); `scale` (I, O) counts in the changes alone."""
    before, after = problem.before, problem.after
    old = weights.permute(2, 0, 1).contiguous()
    weighted = times(after.values, problem.wanted)  # (S + 1, S + 1, I, C)
    normal = _factorise(times(weighted, after.values.transpose(0, 1)), after)
    blocks = list(_blocks(len(old), before.values[0].numel()))

    def solved(functions: Iterator[Tensor]) -> Tensor:
        """Least squares for the functions of each block."""
        right = [_gathered(times(values, weighted.transpose(0, 1)), after) for values in functions]
        return _solve(normal, torch.cat(right))

    new = solved(_values(before, old[o]) for o in blocks)
    for _ in range(MOST_CORRECTIONS):
        now = new  # what it lacks as functions: that keeps more digits than products do
        correction = solved(_values(before, old[o]).sub_(_values(after, now[o])) for o in blocks)
        new = now + correction
        if bool((correction.abs().amax(2) <= ENOUGH * new.abs().amax(2)).all()):
            break
    extremes: list[Tensor] = []
    squares, power = [], []
    for o in blocks:
        was = _values(before, old[o])
        change = _values(after, new[o]).sub_(was)
        if scale is not None:
            factors = scale.t()[o, None, :, None]
            was, change = was * factors, change * factors
        extremes.extend(times(change, problem.probes).aminmax())
        squares.append(times(change, problem.squares).mul_(change).sum())
        power.append(times(was, problem.squares).mul_(was).sum())
    largest = torch.stack(extremes).abs().max()
    return Found(new.permute(1, 2, 0), largest, torch.stack(squares).sum(), torch.stack(power).sum())


def _blocks(outputs: int, per_output: int) -> Iterator[slice]:
    step = max(1, CACHED // max(1, per_output))
    return (slice(start, start + step) for start in range(0, outputs, step))


def _places(local: Local) -> Tensor:
    """Index of every cell's splines in the rows of all features, with those that the grid does not have: (S + 1, I, C).

    Those are S + 1 on both sides of every feature's.
    """
    more, features = local.values.shape[0], local.first.shape[0]
    rows = torch.arange(features, device=local.first.device)[:, None] * (local.size + 2 * more)
    return local.first + rows + torch.arange(more, device=rows.device)[:, None, None]


def _values(local: Local, coefficients: Tensor) -> Tensor:
    """The functions of coefficients (O, I, P) in the cells, (O, S + 1, I, C)."""
    more, places = local.values.shape[0], _places(local)
    near = pad(coefficients, (more, more)).flatten(1).index_select(1, places.flatten())
    return times(near.unflatten(1, places.shape), local.values)


def _gathered(values: Tensor, local: Local) -> Tensor:
    """What every cell adds to each of its splines, (O, S + 1, I, C), summed up for each spline: (O, I, P)."""
    more, features = local.values.shape[0], local.first.shape[0]
    sums = values.new_zeros(len(values), features * (local.size + 2 * more))
    sums.scatter_add_(1, _places(local).flatten().expand(len(values), -1), values.flatten(1))
    return sums.unflatten(1, (features, -1))[..., more : more + local.size]


class _Factors(NamedTuple):
    """A block tridiagonal matrix, factorised: K blocks of B rows."""

    scale: Tensor  # (I, K B), what rows and columns are divided by, so that the diagonal is one
    inverses: Tensor  # (K, I, B, B), of the blocks, less what the blocks before determine
    steps: list[Tensor]  # K - 1 of (I, S, B), what is taken of each block from the first S rows of the next


def _factorise(products: Tensor, local: Local) -> _Factors:
    """Factors of the normal matrix, to which each cell adds `products` (S + 1, S + 1, I, C) of its splines."""
    order = len(products) - 1
    upper = torch.zeros_like(products)
    for d in range(order + 1):
        upper[d, : order + 1 - d] = products.diagonal(d).movedim(-1, 0)
    rows = max(ROWS, order)
    count = -(-local.size // rows)
    band = pad(
        _gathered(upper, local), (0, count * rows - local.size)
    )  # (S + 1, I, K B): row d is d above the diagonal
    scale = torch.where(band[0] > 0, band[0], 1.0).rsqrt()
    band *= scale * pad(scale, (0, order)).unfold(1, order + 1, 1).movedim(-1, 0)
    band[0] = 1.0 + RIDGE
    band = band.unflatten(2, (count, rows)).permute(2, 1, 3, 0)  # (K, I, B, S + 1)

    def dense(row: Tensor, column: Tensor) -> Tensor:
        apart = column - row
        return band[:, :, row, apart.clamp(0, order)] * (apart <= order)

    i = torch.arange(rows, device=band.device)
    blocks = dense(torch.minimum(i[:, None], i), torch.maximum(i[:, None], i))
    corners = dense(i[rows - order :, None], rows + i[:order])  # (K, I, S, S)
    inverses: list[Tensor] = []
    steps: list[Tensor] = []
    for k, block in enumerate(blocks):
        if k:
            steps.append(corners[k - 1].mT @ inverses[-1][:, rows - order :])
            block[:, :order, :order] -= steps[-1][:, :, rows - order :] @ corners[k - 1]
        inverses.append(torch.cholesky_inverse(torch.linalg.cholesky_ex(block)[0]))
    return _Factors(scale, torch.stack(inverses), steps)


def _solve(matrix: _Factors, right: Tensor) -> Tensor:
    """Solutions for right sides (O, I, P), of the same shape."""
    scale, inverses, steps = matrix
    count, _, rows, _ = inverses.shape
    x = pad(right, (0, count * rows - right.shape[2])) * scale
    x = x.unflatten(2, (count, rows)).permute(2, 1, 3, 0).contiguous()  # (K, I, B, O)
    for k, step in enumerate(steps):
        x[k + 1, :, : step.shape[1]] -= step @ x[k]
    x = inverses @ x
    for k in range(count - 2, -1, -1):
        x[k].baddbmm_(steps[k].mT, x[k + 1, :, : steps[k].shape[1]], alpha=-1)
    return (x.permute(3, 1, 0, 2).flatten(2) * scale)[..., : right.shape[2]]
