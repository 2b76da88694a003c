"""How a spline KAN layer's weights are drawn, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kansciml.layers._kernels.activations import activate
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers.bspline import SplineSpec

if TYPE_CHECKING:
    from kansciml.layers.spline_kan import SplineKAN


def _glorot(layer: SplineKAN, generator: torch.Generator | None) -> None:
    bound = math.sqrt(6.0 / (layer.fan_in + layer.fan_out))
    if layer.base_weight is not None:
        layer.base_weight.uniform_(-bound, bound, generator=generator)
    layer.spline_weight.normal_(0.0, 0.1 / math.sqrt(layer.fan_in), generator=generator)
    if layer.spline_scale is not None:
        layer.spline_scale.fill_(1.0)


def _zero(layer: SplineKAN, generator: torch.Generator | None) -> None:
    _glorot(layer, generator)
    layer.spline_weight.zero_()


def _points(layer: SplineKAN, per_interval: int) -> tuple[Tensor, Tensor]:
    """Points spread over each input's grid, (I, n), and the splines there, (I, P, n), in float64."""
    order, grid = layer.spline_order, layer.grid
    knots = layer.knots[:, order : order + grid + 1].double()
    steps = torch.arange(per_interval, dtype=torch.float64, device=knots.device) / per_interval
    inner = knots[:, :-1, None] + (knots[:, 1:] - knots[:, :-1])[:, :, None] * steps
    points = torch.cat([inner.flatten(1), knots[:, -1:]], dim=1)
    spec = SplineSpec(grid, order, False, "zero", None)
    return points, evaluate(spec, points, layer.knots.double())[0]


def _noise(layer: SplineKAN, generator: torch.Generator | None) -> None:
    bound = 1.0 / math.sqrt(layer.fan_in)  # Kaiming-uniform with a = sqrt(5)
    if layer.base_weight is not None:
        layer.base_weight.uniform_(-bound, bound, generator=generator)
    points, basis = _points(layer, 1)
    amplitude = 0.1 / layer.grid
    noise = torch.rand(*points.shape, layer.out_features, dtype=torch.float64, generator=generator)
    values = ((noise - 0.5) * amplitude).to(points.device)  # (I, G + 1, O)
    # least norm: G + 1 values do not fix G + S coefficients
    layer.spline_weight.copy_(torch.linalg.pinv(basis.transpose(1, 2)) @ values)
    if layer.spline_scale is not None:
        layer.spline_scale.uniform_(-bound, bound, generator=generator)


def _variance(layer: SplineKAN, generator: torch.Generator | None) -> None:
    points, basis = _points(layer, 16)
    share = 0.5 if layer.base_weight is not None else 1.0
    if layer.base_weight is not None:
        power = activate(layer.base_activation, points).square().mean().item()
        layer.base_weight.normal_(0.0, math.sqrt(share / (layer.fan_in * power)), generator=generator)
    power = basis.square().sum(1).mean().item()  # of a sum of independent coefficients
    layer.spline_weight.normal_(0.0, math.sqrt(share / (layer.fan_in * power)), generator=generator)
    if layer.spline_scale is not None:
        layer.spline_scale.fill_(1.0)


INITS: dict[str, Callable[[SplineKAN, torch.Generator | None], None]] = {
    "glorot": _glorot,
    "noise": _noise,
    "variance": _variance,
    "zero": _zero,
}
