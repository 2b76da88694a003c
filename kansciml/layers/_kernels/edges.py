"""The functions on the edges of a spline layer: their sizes over data, and their curves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kansciml.layers._kernels.activations import activate, curvature, slope
from kansciml.layers._kernels.autograd import gradient, plain_wanted, watched
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.plain import Weights
from kansciml.layers.bspline import SplineSpec

if TYPE_CHECKING:
    from kansciml.layers.spline_kan import SplineKAN

BLOCK = {"cpu": 1 << 19, "other": 1 << 24}
"""Values of edges that are there at a time."""


def branches(spec: SplineSpec, x: Tensor, cells: Tensor, *orders: int) -> list[Tensor]:
    """act, if there is a base branch, and the splines at x (I, n), or their derivatives of these orders, each
    (I, 1 + G + S, n)."""
    splines = evaluate(spec, x.to(cells.dtype), cells, max(orders))
    found = [splines[order].to(x.dtype) for order in orders]
    if spec.activation is None:
        return found
    bases = [(activate, slope, curvature)[order](spec.activation, x) for order in orders]
    whole = [torch.zeros_like(x) if base is None else base for base in bases]
    return [torch.cat([base.unsqueeze(1), one], 1) for base, one in zip(whole, found)]


def weights(base: Tensor | None, spline: Tensor, scale: Tensor | None) -> Tensor:
    """The weights (I, 1 + G + S, O) of `branches`."""
    whole = Weights(None, spline, scale).scaled
    return whole if base is None else torch.cat([base.unsqueeze(1), whole], 1)


def _blocks(spec: SplineSpec, x: Tensor, cells: Tensor, weight: Tensor) -> Iterator[tuple[slice, slice, Any]]:
    """Rows and inputs, and what `_values` takes of them."""
    (n_rows, n_in), per_value = x.shape, max(weight.shape[2], spec.grid + 2 * spec.spline_order)
    most = BLOCK["cpu" if x.is_cpu else "other"]
    rows = max(1, min(n_rows, most // per_value))
    inputs = max(1, min(n_in, most // (per_value * rows)))
    for start in range(0, n_in, inputs):
        part = slice(start, start + inputs)
        own = cells[:, part] if spec.uniform else cells[part]
        for first in range(0, n_rows, rows):
            row = slice(first, first + rows)
            yield row, part, (x[row, part].t(), own, weight[part])


def _values(spec: SplineSpec, x: Tensor, cells: Tensor, weight: Tensor) -> Tensor:
    """Every edge's function (I, n, O) at x (I, n)."""
    return branches(spec, x, cells, 0)[0].mT @ weight


def _block_sums(spec: SplineSpec, *block: Tensor) -> Tensor:
    return _values(spec, *block).abs().sum(1)


_again: Any = partial(checkpoint, _block_sums, use_reentrant=False, preserve_rng_state=False)
"""`_block_sums`, evaluated anew for backward."""


def _sums(spec: SplineSpec, x: Tensor, cells: Tensor, weight: Tensor) -> Tensor:
    """Sums over x (N, I) of every edge's magnitude (I, O), in operations that any recorder follows."""
    call = _again if torch.is_grad_enabled() and not plain_wanted() else _block_sums
    found: dict[int, Tensor] = {}
    for _, part, block in _blocks(spec, x, cells, weight):
        found[part.start] = found.get(part.start, 0.0) + call(spec, *block)
    return torch.cat(list(found.values()))


class _Sums(torch.autograd.Function):
    """`_sums` that keeps x, the weights and their gradient alone.

    An edge's function is linear in its weights, and its magnitude is it times its sign: so the sums are the weights
    times their gradient, and what is found forward serves backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor, weight: Tensor, spec: SplineSpec) -> Tensor:
        own = torch.zeros_like(weight)
        for _, part, (at, knots, w) in _blocks(spec, x, cells, weight):
            (found,) = branches(spec, at, knots, 0)
            own[part] += found @ (found.mT @ w).sign_()
        ctx.save_for_backward(x, cells, weight, own)
        ctx.spec = spec
        return (weight * own).sum(1).clamp(min=0.0)  # rounding may leave a zero below

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (x, cells, weight, own), spec, wanted = ctx.saved_tensors, ctx.spec, ctx.needs_input_grad[:3]
        (cotangent,), graph = cotangents, torch.is_grad_enabled()
        if graph or wanted[1] or watched(cotangent):
            return *gradient(partial(_sums, spec), wanted, cotangent, [x, cells, weight], graph), None
        along = cotangent.unsqueeze(1)
        of_weight = own * along if wanted[2] else None
        if not wanted[0]:
            return None, None, of_weight, None
        gx = torch.empty_like(x)
        for row, part, (at, knots, w) in _blocks(spec, x, cells, weight):
            found, slopes = branches(spec, at, knots, 0, 1)
            pull = (w * along[part]) @ (found.mT @ w).sign_().mT
            gx[row, part] = (pull * slopes).sum(1).t()
        return gx, None, of_weight, None


def bounds(layer: SplineKAN) -> Tensor:
    """Mean absolute spline coefficient of every edge (I, O), scale included, plus the base weight's magnitude."""
    norms = layer.spline_weight.abs().mean(1)
    if layer.spline_scale is not None:
        norms = norms * layer.spline_scale.abs()
    return norms if layer.base_weight is None else norms + layer.base_weight.abs()


def norms(layer: SplineKAN, x: Tensor) -> Tensor:
    """Mean magnitude of every edge's function (I, O) over the rows of x (N, I).

    For backward nothing is kept but x, the weights and their gradient: a block of rows and inputs is evaluated at a
    time, and anew for the gradient of x.

    Raises:
        ValueError: no rows.
    """
    if not len(x):
        raise ValueError(f"got inputs of shape {tuple(x.shape)}: expected at least one row")
    spec, cells = layer._read(layer.spline_weight)
    given = x.to(cells.dtype), cells, _weights(layer, cells.dtype)
    known = torch.is_grad_enabled() and not plain_wanted()
    return ((_Sums.apply(*given, spec) if known else _sums(spec, *given)) / len(x)).to(layer.spline_weight.dtype)


def _weights(layer: SplineKAN, dtype: torch.dtype) -> Tensor:
    base, scale = (None if one is None else one.to(dtype) for one in (layer.base_weight, layer.spline_scale))
    return weights(base, layer.spline_weight.to(dtype), scale)


def curves(layer: SplineKAN, points: int) -> tuple[Tensor, Tensor]:
    """`SplineKAN.edge_curves`."""
    order, knots = layer.spline_order, layer.knots.double()
    return curves_between(layer, knots[:, order], knots[:, order + layer.grid], points)


def curves_between(layer: SplineKAN, low: Tensor, high: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Points (N, I) from low to high (I,), float64, and every edge's function there (N, I, O)."""
    x = low + (high - low) * torch.linspace(0, 1, points, dtype=torch.float64, device=low.device)[:, None]
    return x, values_at(layer, x)


def values_at(layer: SplineKAN, x: Tensor) -> Tensor:
    """Every edge's function (N, I, O) at x (N, I), base branch included, in float64."""
    spec, cells = layer._read(layer.spline_weight, torch.float64)
    return _values(spec, x.double().t(), cells, _weights(layer, torch.float64)).transpose(0, 1)
