"""Knots and states written into a spline layer, also of another grid, with or without knots that are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from kansciml.layers._kernels.free_knots import positions
from kansciml.layers._kernels.knots import check, check_shape
from kansciml.layers._kernels.tensor_values import has_values
from kansciml.layers._refit.parameters import require_own, resize
from kansciml.layers._refit.refit import RefitError, refit

if TYPE_CHECKING:
    from kansciml.layers.spline_kan import SplineKAN


def write_knots(layer: SplineKAN, knots: Tensor) -> None:
    """Of `SplineKAN.set_knots`."""
    check_shape(knots, layer.spline_weight, layer.spline_order)
    check(knots)
    require_own(layer, "knot_logits")
    own = getattr(layer, layer.GRID)
    knots = knots.detach().to(own.device, own.dtype)
    if knots.shape == own.shape and not own.is_inference():
        own.copy_(knots)
    else:
        setattr(layer, layer.GRID, knots.clone())
    if layer.knot_logits is not None:  # they start anew
        resize(layer.knot_logits, knots[:, : layer.grid])
        layer.knot_logits.zero_()


def refit_onto(layer: SplineKAN, knots: Tensor, samples: Tensor | None) -> RefitError:
    """New knots, and the coefficients with which the layer's functions stay, over samples (N, I)."""
    require_own(layer, "spline_weight", "knot_logits")
    weight, own = layer.spline_weight, layer.knots
    coefficients, error = refit(
        weight.detach(), own, knots, layer.spline_order, samples, layer.outside, layer.spline_scale
    )
    resize(weight, coefficients)
    weight.copy_(coefficients)
    write_knots(layer, knots)
    return error


def prepare(layer: SplineKAN, state: dict[str, Any], prefix: str) -> None:
    """Make a state the layer's kind, and the layer as large as the state's grid, before it is loaded."""
    order = layer.spline_order
    first, logits, constant = (prefix + name for name in ("first_knots", "knot_logits", "knots"))
    if layer.knot_logits is not None and constant in state:  # from where to learn
        state[first] = state.pop(constant)
        state[logits] = state[first].new_zeros(*state[first].shape[:-1], max(0, state[first].shape[-1] - 2 * order - 1))
    elif layer.knot_logits is None and first in state and logits in state:
        found, moved = state.pop(first).double(), state.pop(logits)
        fits = found.dim() == 2 and moved.shape == (len(found), found.shape[1] - 2 * order - 1)
        state[constant] = positions(found, moved, order) if fits else found  # which PyTorch refuses
    if layer.knot_logits is not None and first in state and state[first].dim() == 2 and has_values(state[first]):
        check(state[first])  # else NaN in silence
    knots, weight, own = (
        *(state.get(prefix + n) for n in (layer.GRID, "spline_weight")),
        layer._parameters.get("spline_weight"),
    )
    if knots is None or weight is None or own is None or weight.shape == own.shape:
        return
    size = knots.shape[-1] - order - 1
    expected = (layer.in_features, size + order + 1), (layer.in_features, size, layer.out_features)
    if size > order and (knots.shape, weight.shape) == expected:
        resize(own, weight)  # a state of another grid, as after `extend_grid`
        setattr(layer, layer.GRID, getattr(layer, layer.GRID).new_empty(knots.shape))
        if layer.knot_logits is not None and logits in state:
            resize(layer.knot_logits, state[logits])
