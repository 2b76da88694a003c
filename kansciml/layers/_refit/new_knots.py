"""New knots for a spline layer: where its inputs are, or finer ones over the same grid; float64 inside."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from kansciml.layers._kernels.free_knots import FLOAT32_STEP, NARROWEST

MARGIN = 1e-3
"""What a grid reaches beyond the samples on each side, in spans of the samples."""
CONSTANT = 1e-7
"""Span of a feature, in its magnitudes, below which it is rounding alone."""


def adaptive_knots(
    x: Float[Tensor, "samples inputs"], grid: int, order: int, blend: float
) -> Float64[Tensor, "inputs knots"]:
    r"""Knots that follow the samples: (1 - blend) * quantiles + blend * even, between each input's ends.

    The ends lie 0.1 % of the span beyond the samples; S intervals as wide as the cell at the end follow on both sides.
    Cells narrower than 1 % of an even one, or 1e-5 of the largest |x|, are widened at the cost of the others. A
    constant input c gets an even grid over c - max(1, |c|) ... c + max(1, |c|).

    Args:
        grid, order: G and S, for G + 2S + 1 knots, strictly increasing.
        blend: 0 (quantiles alone) to 1 (even).

    Raises:
        ValueError: no samples, NaN or infinite ones, blend out of range.
    """
    if x.numel() == 0:
        raise ValueError(f"got samples of shape {tuple(x.shape)}: expected (N, I) with at least one sample and feature")
    if not 0 <= blend <= 1:
        raise ValueError(f"got blend {blend}: expected 0 (quantiles) to 1 (even grid)")
    x = x.detach().double()
    ordered = ordered_samples(x)
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
    half = torch.maximum(half, 0.5 * grid * narrowest)
    spare = (widths - narrowest[:, None]).relu()
    # the identity where no cell is too narrow; an even grid where all are
    share = spare / spare.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    widths = narrowest[:, None] + (2 * half - grid * narrowest).relu()[:, None] * share
    inner = torch.cat([torch.zeros_like(half)[:, None], widths.cumsum(1)], dim=1) + (centre - half)[:, None]
    return _with_ends(inner, order)


def extended_knots(knots: Float[Tensor, "inputs _"], order: int, new_grid: int) -> Float64[Tensor, "inputs _"]:
    """Knots of `new_grid` intervals over the same grid: old intervals split evenly if G divides new_grid.

    Otherwise the old inner knots are interpolated linearly in their index, so that their density stays. In the first
    case the new knots contain the old inner ones to the bit, and every old spline is one of the new ones on the grid.
    """
    grid = knots.shape[1] - 2 * order - 1
    inner = knots.detach().double()[:, order : order + grid + 1]
    steps = torch.arange(new_grid + 1, device=knots.device) * grid
    cell = torch.div(steps, new_grid, rounding_mode="floor")  # integers: an old knot is met exactly
    part = (steps - cell * new_grid).to(inner.dtype) / new_grid
    above = (cell + 1).clamp(max=grid)
    return _with_ends(inner[:, cell] + part * (inner[:, above] - inner[:, cell]), order)


def ordered_samples(x: Float[Tensor, "samples inputs"]) -> Float[Tensor, "inputs samples"]:
    """Every input's samples in ascending order.

    Raises:
        ValueError: NaN or infinite samples.
    """
    ordered = x.detach().t().clone(memory_format=torch.contiguous_format)
    if x.device.type == "cpu":  # NumPy sorts with vector instructions, and in place
        ordered.numpy().sort(axis=1)
    else:
        ordered = ordered.sort(dim=1).values
    if not bool(torch.isfinite(ordered[:, [0, -1]]).all()):  # NaN is the largest
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"got {bad} samples that are NaN or infinite: expected finite samples; remove those rows")
    return ordered


def _with_ends(inner: Tensor, order: int) -> Tensor:
    """Inner knots with S intervals more on both sides, as wide as the cell next to them."""
    steps = torch.arange(1, order + 1, dtype=inner.dtype, device=inner.device)
    left = inner[:, :1] - (inner[:, 1:2] - inner[:, :1]) * steps.flip(0)
    right = inner[:, -1:] + (inner[:, -1:] - inner[:, -2:-1]) * steps
    return torch.cat([left, inner, right], dim=1)
