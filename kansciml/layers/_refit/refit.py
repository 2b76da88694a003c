"""The coefficients that keep a spline layer's functions on new knots: a pure function, float64 inside.

A refit is least squares per input feature. The basis of every sample does not come into being: both grids' splines are
polynomials between neighbouring knots, so that the moments of the samples there are all that is asked of them
(`cells`). On small grids the unknowns are not the coefficients of every edge but one matrix A (P_new, P_old) per
feature, which all O edges of that feature share: min |B_new A - B_old| over the samples, then c_new = A c_old. So the
cost hardly depends on O, but grows with P^3. On others it is linear in P, and in O (`banded`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._refit import banded, cells
from kansciml.layers._refit.cells import Found, Problem, by_cell, by_feature, times
from kansciml.layers._refit.new_knots import ordered_samples

SPREAD = 1e-2
"""Weight of a sample that is there to keep the splines where no data lie: too little to show where data do."""
SMALLEST_PIVOT = 3e-5
"""Least pivot that one step of refinement makes up for; `eigh` takes the rest."""
LEAST_IN_BANDS = 16
"""Splines, of both grids and beyond one per output, from where on bands need less time than maps."""
MOST_BY_MAPS = 256
"""Most splines, of both grids, that are refitted by maps: their memory is quadratic in it."""
CACHED = 1 << 16
"""Numbers of one block of changes of the edges."""
BLOCK = 1 << 21
"""Numbers in the temporaries of one block of features."""


class RefitError(NamedTuple):
    """What a refit changed, over its samples and all edges: largest and root-mean-square, and the latter relative."""

    max_abs: float
    """Never below the largest change at a sample; at most 1.16 times the largest between the samples of a cell."""
    rms: float
    relative: float
    """rms over the rms of the old splines; 0 if both are 0."""


@torch.no_grad()
def refit(
    coefficients: Float[Tensor, "inputs splines outputs"],
    old_knots: Float[Tensor, "inputs _"],
    new_knots: Float[Tensor, "inputs _"],
    order: int,
    x: Float[Tensor, "samples inputs"] | None = None,
    outside: str = "zero",
    scale: Float[Tensor, "inputs outputs"] | None = None,
) -> tuple[Float[Tensor, "inputs _ outputs"], RefitError]:
    r"""Coefficients on new knots which keep the splines, by least squares over samples.

    Samples are those of x that lie on the new grid, and a weight of 2S + 2 percent of a sample spread over each new
    cell: where no data lie the splines are kept all the same. Normal equations with unit diagonal, by Cholesky (or
    `eigh` with a cut-off where that fails on a small grid), and iterative refinement, which brings back the digits lost
    in squaring the condition number. Time and memory are linear in the sizes of the grids.

    Args:
        coefficients: P_old splines of every edge; the result has P_new.
        old_knots, new_knots: P_old + S + 1 and P_new + S + 1 of every input, strictly increasing.
        order: S.
        x: samples, or None for even ones in each new cell. Those off the new grid count in the error only.
        outside: what the layer's splines do off their grid, which is what is kept.
        scale: factors of the edges, which count in the error only (default: 1).

    Returns:
        The coefficients in their dtype, and the `RefitError` over all samples (before that rounding).

    Raises:
        ValueError: NaN or infinite samples.
    """
    features, before, outputs = coefficients.shape
    size = new_knots.shape[1] - order - 1
    samples = 0 if x is None else x.shape[0]
    result = coefficients.new_empty(features, size, outputs)
    in_bands = size + before > min(LEAST_IN_BANDS + outputs, MOST_BY_MAPS)
    # what a cell takes: in bands a few small matrices, by maps all splines at its nodes and probes
    per_cell = 32 * (order + 1) ** 2 + 4 * outputs if in_bands else 3 * (3 * order + 1) * (size + before)
    per_feature = 2 * samples + (size + before + 2 * order + 4) * per_cell
    parts, count = [], 0.0
    for part in _parts(features, per_feature):
        old, new, weights = old_knots[part].double(), new_knots[part].double(), coefficients[part].double()
        problem = _problem(old, new, order, None if x is None or not samples else x[:, part], outside)
        factors = None if scale is None else scale[part].double()
        found = banded.fit(problem, weights, factors) if in_bands else _by_maps(problem, weights, factors)
        result[part] = found.coefficients
        parts.append(torch.stack(found[1:]))
        count += problem.samples * outputs
    if not count:
        return result, RefitError(0.0, 0.0, 0.0)
    largest, squares, power = torch.stack(parts, 1)
    most = float(largest.max())
    rms = min(math.sqrt(max(float(squares.sum()), 0.0) / count), most)
    was = math.sqrt(max(float(power.sum()), 0.0) / count)
    return result, RefitError(most, rms, rms / was if was else 0.0 if rms == 0 else math.inf)


def _problem(old: Tensor, new: Tensor, order: int, x: Tensor | None, outside: str) -> Problem:
    """What the fit asks of the samples x (N, I), or of even ones in each new cell."""
    ordered = None if x is None else ordered_samples(x).double()
    ends = [cells.closed(t, order) for t in (old, new)]
    cut = cells.cut(ends[0], ends[1], order, ordered)
    share, fitted = cells.shares(cut, ends[1][:, order : new.shape[1] - order].contiguous())
    even = cells.even_moments(order, share) * share
    if ordered is None:
        sums, held, low, high = even, share > 0, cut.left, cut.left + cut.width
    else:
        first, number = cells.count(cut, ordered)
        sums, held = cells.moments(cut, ordered, number, order), number > 0
        last = ordered.shape[1] - 1
        low, high = (ordered.gather(1, i.clamp(0, last)) for i in (first, first + number - 1))
    before, after = cells.local_splines([old, new], ends, order, outside, cut)
    return Problem(
        before,
        after,
        wanted=cells.products(sums * fitted + (SPREAD * (2 * order + 2)) * even, order),
        squares=cells.products(sums, order),
        probes=cells.probes(cut, low, high, held, order),
        samples=float(sums[0].sum()),
    )


def _by_maps(problem: Problem, weights: Tensor, scale: Tensor | None) -> Found:
    """The fit by the maps that all outputs share: quick for many outputs on small grids, O(P^3)."""
    before, after = problem.before.dense(), problem.after.dense()
    maps, change = _least_squares(after, before, problem.wanted)
    coefficients = maps @ weights
    if scale is not None:
        weights = weights * scale.unsqueeze(1)
    # squares, summed over the edges, need no more of the coefficients than their products
    pairs = weights @ weights.mT
    squares = by_feature(times(change, problem.squares)) @ by_feature(change).mT
    power = by_feature(times(before, problem.squares)) @ by_feature(before).mT
    largest = _largest(by_feature(times(change, problem.probes)).mT, weights)
    return Found(coefficients, largest, (squares * pairs).sum(), (power * pairs).sum())


def _largest(rows: Tensor, weights: Tensor) -> Tensor:
    """Largest absolute value of rows (I, M, P) @ weights (I, P, O), block by block in the cache."""
    shape = rows.shape[1], weights.shape[2]
    step = max(1, min(len(rows), CACHED // max(1, math.prod(shape))))
    values = rows.new_empty(step, *shape)
    extremes: list[Tensor] = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block = torch.bmm(rows[part], weights[part], out=values[: len(rows[part])])
        extremes.extend(block.aminmax())  # without a copy for abs
    return torch.stack(extremes).abs().max()


def _least_squares(after: Tensor, before: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Maps A (I, P_new, P_old) that minimise |A' after - before| in the `products`; the change (P_old, S + 1, I, C)."""
    new = after.shape[0]
    flat, target = by_feature(after), by_feature(before)
    gram = by_feature(times(torch.cat([after, before]), products)) @ flat.mT  # (I, P_new + P_old, P_new)
    inverse = _inverse(gram[:, :new])
    maps = inverse @ gram[:, new:].mT
    change = by_cell(torch.baddbmm(target, maps.mT, flat, beta=-1), after.shape)
    maps = maps - inverse @ (flat @ by_feature(times(change, products)).mT)
    return maps, by_cell(torch.baddbmm(target, maps.mT, flat, beta=-1), after.shape)


def _inverse(gram: Tensor) -> Tensor:
    """Inverses of positive matrices (I, P, P), or pseudo-inverses where rounding left them none."""
    tiny = torch.finfo(gram.dtype).tiny
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=tiny).rsqrt()
    scale = scale.unsqueeze(1) * scale.unsqueeze(2)
    unit = gram * scale
    factors, failed = torch.linalg.cholesky_ex(unit)
    pivots = torch.where(failed > 0, 0.0, factors.diagonal(dim1=1, dim2=2).amin(1))
    bad = pivots < SMALLEST_PIVOT
    some = bool(bad.any())
    if some:
        factors[bad] = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    inverse = torch.cholesky_inverse(factors)
    if some:
        values, vectors = torch.linalg.eigh(unit[bad])
        cut = values[:, -1:] * gram.shape[1] * torch.finfo(gram.dtype).eps
        kept = torch.where(values > cut, 1 / values.clamp(min=tiny), 0.0)
        inverse[bad] = (vectors * kept.unsqueeze(1)) @ vectors.mT
    return inverse * scale


def _parts(features: int, per_feature: int) -> Iterator[slice]:
    """Features in blocks of about `BLOCK` numbers."""
    step = max(1, min(features, BLOCK // max(1, per_feature)))
    return (slice(start, min(start + step, features)) for start in range(0, features, step))
