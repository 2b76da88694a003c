"""What the kernels read of a layer's knots: whether they are even, and the cells that `evaluate` takes then."""

from __future__ import annotations

import torch
from torch import Tensor

from kansciml.layers._kernels import tensor_values
from kansciml.layers.bspline import SplineSpec, uniform_knots

EVEN = 1e-6
"""Deviation from even spacing, in cells, that still counts as rounding: float32 knots from elsewhere are even too."""


def even(in_features: int, grid: int, order: int, ends: tuple[float, float]) -> Tensor:
    """The knots (I, G + 2S + 1) that a layer is made with: evenly spaced, the grid from end to end."""
    return torch.from_numpy(uniform_knots(grid, order, ends)).repeat(in_features, 1)


def read(
    knots: Tensor, order: int, outside: str, activation: str | None, dtype: torch.dtype
) -> tuple[SplineSpec, Tensor]:
    """What a kernel is told of a layer with these knots (I, G + 2S + 1) as they are now, and their cells.

    Knots whose values must not be looked at (`tensor_values.known`) go the way that serves any: they count as uneven.
    Where a device was deceived about their values, the cells are NaN, and so are the splines. `dtype`: of the layer's
    weights; the cells are in float32 at least.

    Raises:
        ValueError: knots that do not increase strictly, or are not finite.
    """
    options = order, outside, activation, dtype
    known = tensor_values.known(knots, options, _found, *options)
    if known is None:
        spec = SplineSpec(knots.shape[1] - 2 * order - 1, order, False, outside, activation)
        return spec, knots.to(_compute(dtype), copy=True)
    found = known.found[options]
    if known.compared or not tensor_values.has_values(knots):
        return found
    return found[0], torch.where((knots == known.values).all(), found[1], torch.nan)


def check_shape(knots: Tensor, weight: Tensor, order: int) -> None:
    """Refuse knots of another size than that of the coefficients (I, G + S, O).

    Raises:
        ValueError: other knots than (I, G + 2S + 1).
    """
    expected = weight.shape[0], weight.shape[1] + order + 1
    if not torch.jit.is_tracing() and knots.shape != expected:  # the tracer warns of comparisons
        raise ValueError(
            f"got knots of shape {tuple(knots.shape)} and spline_weight of shape {tuple(weight.shape)}: expected knots"
            f" of shape {expected}, (I, G + 2S + 1)"
        )


def check(knots: Tensor) -> None:
    """Refuse knots that splines cannot have.

    Raises:
        ValueError: knots that do not increase strictly, or are not finite.
    """
    if not bool(torch.isfinite(knots).all()) or not bool((knots.diff(dim=1) > 0).all()):
        raise ValueError("got knots that do not increase strictly, or are not finite: expected t_1 < t_2 < ...")


def _found(
    values: Tensor, order: int, outside: str, activation: str | None, dtype: torch.dtype
) -> tuple[SplineSpec, Tensor]:
    knots, grid, uniform = values.double(), values.shape[1] - 2 * order - 1, True
    low, high = knots[:, order, None], knots[:, order + grid, None]
    width = (high - low) / grid
    if tensor_values.has_values(knots):  # others are as layers are made
        check(knots)
        steps = torch.arange(-order, grid + order + 1, dtype=knots.dtype, device=knots.device)
        uniform = bool(((knots - (low + width * steps)).abs() <= EVEN * width).all())
    cells = torch.cat([low, 1 / width], dim=1).t().contiguous() if uniform else values
    return SplineSpec(grid, order, uniform, outside, activation), cells.to(_compute(dtype))


def _compute(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
