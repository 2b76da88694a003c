"""Knots that are learned: positions that stay in order, and their gradient.

The ends of the grid stay. Between them the widths of the cells are shares of the grid, a softmax with a floor, as in
neural spline flows (Durkan et al. 2019, section 3.1). The knots beyond the ends keep their distances from them in units
of the outermost cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kansciml.layers._kernels.plain import Given
from kansciml.layers.bspline import SplineSpec

NARROWEST, FLOAT32_STEP = 1e-2, 1e-5
"""Narrowest cell, in cells of the even grid, as narrower ones make the basis ill-conditioned, and in magnitudes of its
ends (half its first width, where that is less): no knots ever meet, nor do they in float32, whose roundings are a
hundredth of that, however far from zero the grid is."""
ON_CPU, ON_DEVICE = 1 << 18, 1 << 22
"""Splines whose gradients are there at a time."""


def positions(first: Tensor, logits: Tensor, order: int) -> Tensor:
    r"""Knots (I, G + 2S + 1) in float64, strictly increasing; where the logits are zero, the first ones to the bit.

    .. math:: w_j = f_j + (L - \textstyle\sum_k f_k)\,\mathrm{softmax}_j(\log(w^0 - f) + a),\quad f_j = \min(w^0_j / 2, \max(0.01 L / G, 10^{-5} t_{max}))

    Args:
        first: knots whose cells have the widths w^0, of a grid of length L.
        logits: a, (I, G).
    """  # noqa: E501
    grid = logits.shape[-1]
    inner = first[:, order : order + grid + 1]
    widths = inner[:, 1:] - inner[:, :-1]
    even, apart = (inner[:, -1:] - inner[:, :1]) / grid, FLOAT32_STEP * inner.abs().amax(1, keepdim=True)
    floors = torch.minimum(widths / 2, torch.maximum(NARROWEST * even, apart))
    spare = widths - floors
    start = spare.log()
    change = (start + logits.to(first.dtype)).softmax(1) - start.softmax(1)  # zero to the bit with the logits
    moved = F.pad(change[:, :-1].cumsum(1) * spare.sum(1, keepdim=True), (1, 1))  # the ends stay to the bit
    below = (first[:, :order] - inner[:, :1]) * (moved[:, 1:2] / widths[:, :1])
    above = (first[:, order + grid + 1 :] - inner[:, -1:]) * (-moved[:, -2:-1] / widths[:, -1:])
    return first + torch.cat([below, moved, above], 1)


def blocks(spec: SplineSpec, x: Tensor, on_cpu: int) -> Iterator[slice]:
    """Points of x (I, n) whose splines, so many on a CPU, are evaluated at a time."""
    most = on_cpu if x.is_cpu else ON_DEVICE
    (inputs, points), size = x.shape, spec.grid + spec.spline_order
    step = max(1, most // (inputs * size))
    return (slice(start, min(start + step, points)) for start in range(0, points, step))


def of_splines(spec: SplineSpec, x: Tensor, knots: Tensor, cotangent: Tensor) -> Tensor:
    """Gradient of the knots, given that of the splines (I, P, n) at x (I, n).

    Of every x the S + 1 splines that are not zero there and the 2 S knots that they depend on, by autograd; then sums
    over all x in a cell by products of matrices, which are the same to the bit on every run.
    """
    order, size, last = spec.spline_order, knots.shape[1], spec.grid + spec.spline_order
    x = x.to(knots.dtype).contiguous()
    ends = [knots[:, place, None].detach().requires_grad_() for place in (order, last)]
    inside = spec.outside == "zero"
    low, high = (knots[:, :1], knots[:, -1:]) if inside else (ends[0].detach(), ends[1].detach())
    at = torch.clamp(x, low, high)
    cell = torch.searchsorted(knots.detach().contiguous(), at, right=True) - 1
    cell = torch.where(at == ends[1], last - 1, cell)  # the right end of the grid belongs to its last interval
    if inside:
        cell = torch.where(x < low, -1, cell)
    reach = torch.arange(1 - order, order + 1, device=x.device)[:, None]
    place = cell.unsqueeze(1) + reach  # (I, 2 S, n)
    there = place.clamp(0, size - 1)
    around = knots.detach().gather(1, there.flatten(1)).view(place.shape) + (place - there)
    number = cell.unsqueeze(1) - order + torch.arange(order + 1, device=x.device)[:, None]  # of the splines
    weight = cotangent.to(knots.dtype).gather(1, number.clamp(0, last - 1)) * ((number >= 0) & (number < last))
    with torch.enable_grad():
        around.requires_grad_()
        at = at if inside else torch.clamp(x, *ends)
        values, slopes = _local(order, at, around.unbind(1))
        if spec.outside == "linear":
            values = values + (x - at).unsqueeze(1) * slopes
        found = torch.autograd.grad(values, [around, *ends], weight, allow_unused=True)
    own = (cell.unsqueeze(1) == torch.arange(-1, size, device=x.device)[:, None]).to(knots.dtype)  # (I, K + 1, n)
    sums = F.pad(own @ found[0].mT, (0, 0, order, order))  # (I, K + 1 + 2 S, 2 S)
    total = torch.stack([sums[:, 2 * order - k : 2 * order - k + size, k] for k in range(2 * order)]).sum(0)
    for k, end in zip((order, last), found[1:]):
        if end is not None:
            total[:, k] += end[:, 0]
    return total


def _local(order: int, at: Tensor, around: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Values and slopes of the S + 1 splines (I, S + 1, n) between the middle two of 2 S knots, by Cox-de Boor."""
    basis, parts, zero = [torch.ones_like(at)], [], torch.zeros_like(at)
    for k in range(1, order + 1):
        left = [around[order + a - k] for a in range(k)]
        parts = [one / (around[order + a] - left[a]) for a, one in enumerate(basis)]
        falls = [(around[order + a] - at) * part for a, part in enumerate(parts)]
        rises = [(at - left[a]) * part for a, part in enumerate(parts)]
        basis = [rise + fall for rise, fall in zip([zero, *rises], [*falls, zero])]
    slopes = [order * (before - after) for before, after in zip([zero, *parts], [*parts, zero])]
    return torch.stack(basis, 1), torch.stack(slopes, 1)


def of_layer(given: Given, gy: Tensor) -> Tensor:
    """Gradient of a layer's knots, its `cells`, given that of its output (N, O), in blocks of rows."""
    spec, x, knots, w = given
    weight, total = w.scaled.flatten(0, 1), torch.zeros_like(knots)
    for row in blocks(spec, x.t(), ON_CPU):
        cotangent = (weight @ gy[row].t()).view(x.shape[1], -1, row.stop - row.start)
        total += of_splines(spec, x[row].t().to(knots.dtype), knots, cotangent)
    return total
