"""New knots for a spline layer, and the coefficients that keep its functions on them: pure functions, float64 inside.

A refit is least squares per input feature. Its unknowns are not the coefficients of every edge but one matrix A
(P_new, P_old) per feature, which all O edges of that feature share: min |B_new A - B_old| over the samples, then
c_new = A c_old. So its cost hardly depends on O, and the factorisation is one of P_new x P_new.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ._basis import evaluate
from .bspline import OUTSIDE, SplineSpec

MARGIN = 1e-3
"""What a grid reaches beyond the samples on each side, in spans of the samples."""
NARROWEST = 1e-2
"""Narrowest cell, in cells of the even grid: narrower ones make the basis ill-conditioned."""
FLOAT32_STEP = 1e-5
"""Narrowest cell, in magnitudes of the samples: about 100 float32 roundings, so that kernels see distinct knots."""
CONSTANT = 1e-7
"""Span of a feature, in its magnitudes, below which it is rounding alone."""
SPREAD = 1e-2
"""Weight of a point that is there to keep the splines where no data lie: too little to show where data do."""
BLOCK = 1 << 18
"""Numbers in one block of a basis: temporaries stay in the cache."""


class RefitError(NamedTuple):
    """What a refit changed, over its samples and all edges: largest and root-mean-square, and the latter relative."""

    max_abs: float
    rms: float
    relative: float
    """rms over the rms of the old splines; 0 if both are 0."""


def adaptive_knots(x: Tensor, grid: int, spline_order: int, blend: float, min_width: float | None = None) -> Tensor:
    r"""Knots that follow the samples: (1 - blend) * quantiles + blend * even, between each feature's ends.

    The ends lie 0.1 % of the span beyond the samples; S intervals as wide as the cell at the end follow on both sides.
    Cells narrower than `min_width` are widened at the cost of the others. A constant feature c gets an even grid over
    c - max(1, |c|) ... c + max(1, |c|).

    Args:
        x: samples (N, I), any real dtype.
        grid, spline_order: G >= 1 and S >= 0.
        blend: 0 (quantiles alone) to 1 (even).
        min_width: narrowest cell in units of x (default: 1 % of an even cell, and 1e-5 of the largest |x|).

    Returns:
        Knots (I, G + 2S + 1), float64, strictly increasing.

    Raises:
        ValueError: x empty, not 2-D, NaN or infinite; grid, spline_order, blend or min_width out of range.
    """
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(f"got samples of shape {tuple(x.shape)}: expected (N, I) with at least one sample and feature")
    _check_sizes(grid, spline_order)
    if not 0 <= blend <= 1:
        raise ValueError(f"got blend {blend}: expected 0 (quantiles) to 1 (even grid)")
    if min_width is not None and not (math.isfinite(min_width) and min_width > 0):
        raise ValueError(f"got min_width {min_width}: expected a number above 0, or None")
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"got {bad} samples that are NaN or infinite: expected finite samples; remove those rows")
    ordered = x.t().sort(dim=1).values
    low, high = ordered[:, 0], ordered[:, -1]
    magnitude = torch.maximum(low.abs(), high.abs())
    constant = high - low <= CONSTANT * magnitude
    half = torch.where(constant, magnitude.clamp(min=1.0), (0.5 + MARGIN) * (high - low))
    centre = 0.5 * (low + high)

    at = torch.linspace(0, ordered.shape[1] - 1, grid + 1, dtype=x.dtype, device=x.device)
    below = at.floor().long()
    above = (below + 1).clamp(max=ordered.shape[1] - 1)
    points = torch.lerp(ordered[:, below], ordered[:, above], at - below)
    ends = torch.stack([centre - half, centre + half], dim=1)
    points[:, [0, -1]] = ends
    widths = (1 - blend) * points.diff(dim=1) + blend * (2 * half / grid)[:, None]
    widths = torch.where(constant[:, None], (2 * half / grid)[:, None], widths)

    narrowest = torch.maximum(NARROWEST * 2 * half / grid, FLOAT32_STEP * magnitude)
    if min_width is not None:
        narrowest = torch.full_like(half, min_width)
    half = torch.maximum(half, 0.5 * grid * narrowest)
    spare = (widths - narrowest[:, None]).relu()
    # the identity where no cell is too narrow; an even grid where all are
    share = spare / spare.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    widths = narrowest[:, None] + (2 * half - grid * narrowest).relu()[:, None] * share
    inner = torch.cat([torch.zeros_like(half)[:, None], widths.cumsum(1)], dim=1) + (centre - half)[:, None]
    if not bool((inner.diff(dim=1) > 0).all()):
        raise ValueError(f"got min_width {min_width}: expected more than the rounding of samples this large")
    return _with_ends(inner, spline_order)


def extended_knots(knots: Tensor, spline_order: int, new_grid: int) -> Tensor:
    """Knots of `new_grid` intervals over the same grid: old intervals split evenly if G divides new_grid.

    Otherwise the old inner knots are interpolated linearly in their index, so that their density stays. In the first
    case the new knots contain the old inner ones to the bit, and every old spline is one of the new ones on the grid.

    Args:
        knots: (I, G + 2S + 1), strictly increasing.
        spline_order: S.
        new_grid: at least 1.

    Returns:
        (I, new_grid + 2S + 1), float64.

    Raises:
        ValueError: a size out of range.
    """
    _check_sizes(new_grid, spline_order)
    grid = _grid(knots, spline_order)
    inner = knots.detach().double()[:, spline_order : spline_order + grid + 1]
    steps = torch.arange(new_grid + 1, device=knots.device) * grid
    cell = torch.div(steps, new_grid, rounding_mode="floor")  # integers: an old knot is met exactly
    part = (steps - cell * new_grid).to(inner.dtype) / new_grid
    above = (cell + 1).clamp(max=grid)
    return _with_ends(inner[:, cell] + part * (inner[:, above] - inner[:, cell]), spline_order)


def basis(x: Tensor, knots: Tensor, spline_order: int) -> Tensor:
    """B-splines of any knots by the Cox-de Boor recursion: x (N, I), knots (I, K) -> (N, I, K - S - 1), float64.

    Right-continuous, and the right end of the grid belongs to its last interval; zero beyond the extended knots.

    Raises:
        ValueError: shapes that do not belong together.
    """
    grid = _grid(knots, spline_order)
    _check_samples(x, knots)
    spec = SplineSpec(grid, spline_order, False, "zero", None)
    return evaluate(spec, x.detach().double().t(), knots.detach().double())[0].permute(2, 0, 1)


@torch.no_grad()
def refit(
    coefficients: Tensor,
    old_knots: Tensor,
    new_knots: Tensor,
    spline_order: int,
    x: Tensor | None = None,
    outside: str = "zero",
) -> tuple[Tensor, RefitError]:
    r"""Coefficients on new knots which keep the splines, by least squares over samples.

    Samples are those of x that lie on the new grid, and 2S + 2 points in each new cell of 1 % of a sample's weight:
    where no data lie the splines are kept all the same. Normal equations with unit diagonal, inverted through `eigh`
    with a cut-off, and one step of iterative refinement, which brings back the digits lost in squaring the condition
    number.

    Args:
        coefficients: (I, P_old, O).
        old_knots, new_knots: (I, P_old + S + 1) and (I, P_new + S + 1), strictly increasing.
        spline_order: S.
        x: samples (N, I), or None for the points in the cells alone. Those off the new grid count in the error only.
        outside: what the layer's splines do off their grid, which is what is kept: ``zero`` (default), ``clamp``,
            ``linear``.

    Returns:
        (I, P_new, O) in the dtype of `coefficients`, and the `RefitError` over all samples (before that rounding).

    Raises:
        ValueError: shapes that do not belong together, an unknown `outside`, NaN or infinite samples.
    """
    old = SplineSpec(_grid(old_knots, spline_order), spline_order, False, outside, None)
    new = old._replace(grid=_grid(new_knots, spline_order))
    expected = (old_knots.shape[0], old.grid + spline_order)
    if coefficients.ndim != 3 or coefficients.shape[:2] != expected:
        raise ValueError(f"got coefficients of shape {tuple(coefficients.shape)}: expected {expected} and outputs")
    if new_knots.shape[0] != old_knots.shape[0]:
        raise ValueError(f"got new knots of {new_knots.shape[0]} features: expected {old_knots.shape[0]}, as before")
    if outside not in OUTSIDE:
        raise ValueError(f"got outside {outside!r}: expected one of {', '.join(OUTSIDE)}")
    if x is not None:
        _check_samples(x, old_knots)
        if not bool(torch.isfinite(x).all()):
            raise ValueError("got samples that are NaN or infinite: expected finite samples; remove those rows")
    old_knots, new_knots = old_knots.double(), new_knots.double()
    weights = coefficients.double()
    result = weights.new_empty(expected[0], new.grid + spline_order, coefficients.shape[2])
    largest, squares, power, count = [], [], [], 0
    for part in _parts(expected[0], (new_knots.shape[1] + old_knots.shape[1]) * (0 if x is None else x.shape[0])):
        points = _points(new_knots[part], spline_order)
        if x is not None:
            points = torch.cat([points, x[:, part].double().t()], dim=1)
        before = evaluate(old, points, old_knots[part])[0]  # (I, P, N)
        after = evaluate(new, points, new_knots[part])[0]
        ends = new_knots[part][:, [spline_order, spline_order + new.grid]]
        weight = ((points >= ends[:, :1]) & (points <= ends[:, 1:])).to(points.dtype)
        weight[:, : new.grid * (2 * spline_order + 2)] = SPREAD
        maps, change = _least_squares(after, before, weight)
        result[part] = maps @ weights[part]
        # squares through the (P, P) Gram matrices of what is summed; the maximum needs every sample of every edge
        lowest, highest = (change.mT @ weights[part]).aminmax()  # without a copy for abs
        largest.append(torch.maximum(-lowest, highest))
        squares.append((weights[part] * (change @ change.mT @ weights[part])).sum())
        power.append((weights[part] * (before @ before.mT @ weights[part])).sum())
        count += points.numel() * coefficients.shape[2]
    if not count:
        return result.to(coefficients.dtype), RefitError(0.0, 0.0, 0.0)
    rms = math.sqrt(max(float(torch.stack(squares).sum()), 0.0) / count)
    size = math.sqrt(max(float(torch.stack(power).sum()), 0.0) / count)
    error = RefitError(float(torch.stack(largest).max()), rms, rms / size if size else 0.0 if rms == 0 else math.inf)
    return result.to(coefficients.dtype), error


def _least_squares(after: Tensor, before: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Maps A (I, P_new, P_old) that minimise |after' A - before'| over weighted samples; the change (I, P_old, N)."""
    weighted = after * weight.unsqueeze(1)
    gram = weighted @ after.mT
    tiny = torch.finfo(gram.dtype).tiny
    scale = gram.diagonal(dim1=1, dim2=2).clamp(min=tiny).rsqrt()
    values, vectors = torch.linalg.eigh(gram * scale.unsqueeze(1) * scale.unsqueeze(2))
    cut = values[:, -1:] * gram.shape[1] * torch.finfo(gram.dtype).eps
    vectors = vectors * scale.unsqueeze(2)
    inverse = (vectors * torch.where(values > cut, 1 / values.clamp(min=tiny), 0.0).unsqueeze(1)) @ vectors.mT
    maps = inverse @ (weighted @ before.mT)
    change = maps.mT @ after - before
    maps = maps - inverse @ (weighted @ change.mT)
    return maps, maps.mT @ after - before


def _points(knots: Tensor, order: int) -> Tensor:
    """2S + 2 points inside each cell of the grid, (I, G (2S + 2))."""
    inner = knots[:, order : knots.shape[1] - order]
    number = 2 * order + 2
    parts = (torch.arange(number, dtype=knots.dtype, device=knots.device) + 0.5) / number
    return (inner[:, :-1, None] + inner.diff(dim=1).unsqueeze(-1) * parts).flatten(1)


def _parts(features: int, per_feature: int) -> Iterator[slice]:
    """Features in blocks of about `BLOCK` numbers."""
    step = max(1, min(features, BLOCK // max(1, per_feature)))
    return (slice(start, min(start + step, features)) for start in range(0, features, step))


def _with_ends(inner: Tensor, order: int) -> Tensor:
    """Inner knots with S intervals more on both sides, as wide as the cell next to them."""
    steps = torch.arange(1, order + 1, dtype=inner.dtype, device=inner.device)
    left = inner[:, :1] - (inner[:, 1:2] - inner[:, :1]) * steps.flip(0)
    right = inner[:, -1:] + (inner[:, -1:] - inner[:, -2:-1]) * steps
    return torch.cat([left, inner, right], dim=1)


def _check_sizes(grid: int, order: int) -> None:
    if grid < 1 or order < 0:
        raise ValueError(f"got grid {grid}, spline_order {order}: expected grid at least 1, spline_order at least 0")


def _grid(knots: Tensor, order: int) -> int:
    grid = knots.shape[-1] - 2 * order - 1
    if knots.ndim != 2 or grid < 1 or order < 0:
        raise ValueError(
            f"got knots of shape {tuple(knots.shape)} for spline_order {order}:"
            " expected (I, G + 2S + 1) with G at least 1"
        )
    return grid


def _check_samples(x: Tensor, knots: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] != knots.shape[0]:
        raise ValueError(f"got samples of shape {tuple(x.shape)}: expected (N, {knots.shape[0]})")
