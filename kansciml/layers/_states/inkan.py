"""Reading weights of InKAN, and of FlashKAN, as the package was called at first.

Their layer: cubic B-splines on one even grid for all inputs, whose supports begin at ``grid_starts`` (K,), and which
are zero outside; a base branch; no factors on edges. From InKAN 0.4 on one ``weight`` (O, I K + I) has the splines'
coefficients, inputs outermost, and then the base branch's; before, and in FlashKAN, they are apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kansciml.layers._states.network import load
from kansciml.layers.spline_kan import SplineKAN

ORDER = 3
"""Of all splines there, whatever order a layer was told."""
TOGETHER, APART = {"grid_starts", "weight"}, {"grid_starts", "spline_weight", "base_weight"}
EVEN = 1e-5
"""Deviation of the beginnings from even spacing, in cells, that float32's rounding explains."""


def layer(state: Mapping[str, Tensor], **options: Any) -> SplineKAN:
    """The layer of an InKAN or FlashKAN layer's state, with its grid, dtype and device; equal outputs.

    Raises:
        ValueError: other keys, shapes that do not fit, a grid that is not even, a layer of two-dimensional splines,
            or options for weights that the state does not have.
    """
    if set(state) not in (TOGETHER, APART):
        raise ValueError(
            f"got keys {', '.join(state) or '(none)'}: expected grid_starts and weight, as InKAN has them, or"
            " grid_starts, spline_weight and base_weight, as FlashKAN and InKAN before 0.4"
        )
    starts, size = state["grid_starts"], state["grid_starts"].numel()
    spline, base = _weights(state, size)
    if starts.dim() != 1 or size <= ORDER or base.dim() != 2 or spline.shape != (*base.shape, size):
        plane = "" if base.shape[1:] != (2,) else ", perhaps of splines of two inputs at once (dim=2)"
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
        raise ValueError(
            f"got {shapes}{plane}: expected grid_starts (K,) with K > {ORDER}, and weight (O, I K + I), or"
            " spline_weight (O, I, K) and base_weight (O, I)"
        )
    width = (starts[-1] - starts[0]).double() / (size - 1)
    knots = starts[0].double() + width * torch.arange(size + ORDER + 1, dtype=torch.float64, device=starts.device)
    if not bool((width > 0) & ((knots[:size] - starts).abs() <= EVEN * width).all()):
        raise ValueError("got grid_starts that are not evenly spaced: expected InKAN's, in float32 at least")
    own = {"spline_scale": False, "device": spline.device, "dtype": spline.dtype}
    made = SplineKAN(spline.shape[1], spline.shape[0], size - ORDER, ORDER, **{**own, **options})
    found = {"base_weight": base.t(), "spline_weight": spline.permute(1, 2, 0)}
    return load(made, {**found, "knots": knots.expand(spline.shape[1], -1)})


def _weights(state: Mapping[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Splines' coefficients (O, I, K) and base weights (O, I), if the shapes allow it."""
    if "weight" not in state:
        return state["spline_weight"], state["base_weight"]
    weight, plane = state["weight"], size * size
    if weight.dim() == 2 and weight.shape[1] == plane + 2:  # no multiple of K + 1
        return weight[:, :plane].unflatten(1, (size, size)), weight[:, plane:]
    if weight.dim() != 2 or weight.shape[1] == 0 or weight.shape[1] % (size + 1):
        return weight, weight.new_empty(0)
    n_in = weight.shape[1] // (size + 1)
    return weight[:, : n_in * size].unflatten(1, (n_in, size)), weight[:, n_in * size :]
