"""The functions on the edges of a spline layer: their sizes over data, and their curves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kansciml.layers._kernels import autograd
from kansciml.layers._kernels.activations import activate
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.plain import Weights
from kansciml.layers.bspline import SplineSpec

if TYPE_CHECKING:
    from kansciml.layers.spline_kan import SplineKAN

BLOCK = {"cpu": 1 << 20, "other": 1 << 24}
"""Values of edges that are there at a time."""


def values(spec: SplineSpec, x: Tensor, cells: Tensor, base: Tensor | None, spline: Tensor) -> Tensor:
    """Every edge's function (I, N, O) at x (N, I), base branch included; `spline`: scaled weights."""
    found = evaluate(spec, x.t(), cells)[0]
    if base is not None:
        found = torch.cat([found, activate(spec.activation, x.t()).unsqueeze(1)], 1)
        spline = torch.cat([spline, base.unsqueeze(1)], 1)
    return found.mT @ spline


def _sums(spec: SplineSpec, x: Tensor, cells: Tensor, base: Tensor | None, spline: Tensor) -> Tensor:
    return values(spec, x, cells, base, spline).abs().sum(1)


_again: Any = partial(checkpoint, _sums, use_reentrant=False, preserve_rng_state=False)
"""`_sums`, evaluated anew for backward."""


def bounds(layer: SplineKAN) -> Tensor:
    """Mean absolute spline coefficient of every edge (I, O), scale included, plus the base weight's magnitude."""
    norms = layer.spline_weight.abs().mean(1)
    if layer.spline_scale is not None:
        norms = norms * layer.spline_scale.abs()
    return norms if layer.base_weight is None else norms + layer.base_weight.abs()


def norms(layer: SplineKAN, x: Tensor) -> Tensor:
    """Mean magnitude of every edge's function (I, O) over the rows of x (N, I).

    For backward nothing is kept but x and the weights: a block of rows and inputs is evaluated at a time, and anew.

    Raises:
        ValueError: no rows.
    """
    (n_rows, n_in), dtype = x.shape, layer.spline_weight.dtype
    if not n_rows:
        raise ValueError(f"got inputs of shape {tuple(x.shape)}: expected at least one row")
    spec, cells = layer._read(layer.spline_weight)
    x, base, weight = x.to(cells.dtype), *_weights(layer, cells.dtype)
    per_value = max(layer.out_features, spec.grid + 2 * spec.spline_order)
    most = BLOCK["cpu" if x.is_cpu else "other"]
    rows = max(1, min(n_rows, most // per_value))
    inputs = max(1, min(n_in, most // (per_value * rows)))
    again = torch.is_grad_enabled() and not autograd.plain_wanted()
    found = []
    for start in range(0, n_in, inputs):
        part = slice(start, start + inputs)
        own = cells[:, part] if spec.uniform else cells[part]
        parts = own, None if base is None else base[part], weight[part]
        total = torch.zeros_like(weight[part, 0])
        for at in x[:, part].split(rows):
            total = total + (_again(spec, at, *parts) if again else _sums(spec, at, *parts))
        found.append(total)
    return (torch.cat(found) / n_rows).to(dtype)


def _weights(layer: SplineKAN, dtype: torch.dtype) -> tuple[Tensor | None, Tensor]:
    """Of the base branch and, scaled, of the splines."""
    base, spline, scale = (layer.base_weight, layer.spline_weight, layer.spline_scale)
    scaled = Weights(None, spline.to(dtype), None if scale is None else scale.to(dtype)).scaled
    return None if base is None else base.to(dtype), scaled


def curves(layer: SplineKAN, points: int) -> tuple[Tensor, Tensor]:
    """`SplineKAN.edge_curves`."""
    order, knots = layer.spline_order, layer.knots.double()
    low, high = knots[:, order], knots[:, order + layer.grid]
    x = low + (high - low) * torch.linspace(0, 1, points, dtype=torch.float64, device=low.device)[:, None]
    return x, values_at(layer, x)


def values_at(layer: SplineKAN, x: Tensor) -> Tensor:
    """Every edge's function (N, I, O) at x (N, I), base branch included, in float64."""
    spec, cells = layer._read(layer.spline_weight, torch.float64)
    return values(spec, x.double(), cells, *_weights(layer, torch.float64)).transpose(0, 1)
