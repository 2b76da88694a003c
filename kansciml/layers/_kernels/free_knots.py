"""Knots that are learned: positions that stay in order, and their gradient.

The ends of the grid stay. Between them the widths of the cells are shares of the grid, a softmax with a floor, as in
neural spline flows (Durkan et al. 2019, section 3.1). The knots beyond the ends keep their distances from them in units
of the outermost cell.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from kansciml.layers._kernels import autograd
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.plain import Given
from kansciml.layers.bspline import SplineSpec

NARROWEST = 1e-2
"""Narrowest cell, in cells of the even grid (half its first width, where that is less): no knots ever meet."""
BLOCK = {"cpu": 1 << 16, "other": 1 << 22}
"""Splines whose graph is there at a time."""


def positions(first: Tensor, logits: Tensor, order: int) -> Tensor:
    r"""Knots (I, G + 2S + 1) in float64, strictly increasing; where the logits are zero, the first ones to the bit.

    .. math:: w_j = f_j + (L - \textstyle\sum_k f_k)\,\mathrm{softmax}_j(\log(w^0 - f) + a),\quad f_j = \min(w^0_j / 2, 0.01 L / G)

    Args:
        first: knots whose cells have the widths w^0, of a grid of length L.
        logits: a, (I, G).
    """  # noqa: E501
    grid = logits.shape[-1]
    inner = first[:, order : order + grid + 1]
    widths = inner.diff(dim=1)
    floors = torch.minimum(widths / 2, NARROWEST / grid * (inner[:, -1:] - inner[:, :1]))
    spare = widths - floors
    start = spare.log()
    change = (start + logits.to(first.dtype)).softmax(1) - start.softmax(1)  # zero to the bit with the logits
    moved = F.pad(change[:, :-1].cumsum(1) * spare.sum(1, keepdim=True), (1, 1))  # the ends stay to the bit
    if order == 0:
        return first + moved
    below = (first[:, :order] - inner[:, :1]) * (moved[:, 1:2] / widths[:, :1])
    above = (first[:, order + grid + 1 :] - inner[:, -1:]) * (-moved[:, -2:-1] / widths[:, -1:])
    return first + torch.cat([below, moved, above], 1)


def blocks(spec: SplineSpec, x: Tensor) -> Iterator[slice]:
    """Points of x (I, n) to evaluate at a time."""
    most = BLOCK["cpu" if x.is_cpu else "other"]
    (inputs, points), size = x.shape, spec.grid + spec.spline_order
    step = max(1, most // (inputs * size))
    return (slice(start, min(start + step, points)) for start in range(0, points, step))


def of_splines(spec: SplineSpec, x: Tensor, knots: Tensor, cotangent: Tensor) -> Tensor:
    """Gradient of the knots, given that of the splines (I, P, n) at x (I, n), through the Cox-de Boor recursion."""
    found = autograd.gradient(lambda t: evaluate(spec, x, t)[0], [True], cotangent.to(knots.dtype), [knots], False)[0]
    assert found is not None
    return found


def of_layer(given: Given, gy: Tensor) -> Tensor:
    """Gradient of a layer's knots, its `cells`, given that of its output (N, O), in blocks of rows."""
    spec, x, knots, w = given
    weight, total = w.scaled.flatten(0, 1), torch.zeros_like(knots)
    for row in blocks(spec, x.t()):
        cotangent = (weight @ gy[row].t()).view(x.shape[1], -1, row.stop - row.start)
        total += of_splines(spec, x[row].t().to(knots.dtype), knots, cotangent)
    return total
