"""Spline layers with weights drawn, as functions, and SciPy's splines, for tests of values and derivatives."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.func import functional_call

from kansciml import SplineKAN
from kansciml.layers._kernels import cpp_library

BACKENDS = [
    "torch",
    pytest.param("cpp", marks=pytest.mark.skipif(not cpp_library.available(), reason="C++ kernels are not built here")),
]


def normal(*shape, seed=0, dtype=torch.float64):
    """The same normal numbers in every dtype."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw_weights(layer, seed=0):
    """Normal numbers for all parameters but grid points that are learned; returns the layer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "grid_points":
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def layer_with(order, even, n_in=2, n_out=2, grid=3, dtype=torch.float64, **options):
    """A spline layer with weights drawn, on even knots or on knots drawn for each input."""
    layer = draw_weights(SplineKAN(n_in, n_out, grid, order, dtype=dtype, **options), order)
    if not even:
        generator = torch.Generator().manual_seed(order)
        widths = 0.2 + torch.rand(layer.knots.diff(dim=1).shape, generator=generator, dtype=torch.float64)
        layer.set_knots(torch.cat([torch.zeros(n_in, 1), widths.cumsum(1)], 1).double() * 0.5 - 1.2)
    assert layer.spec.uniform == even
    return layer


def as_function(layer):
    """(call, values): call(x, *values) is the layer with other values for its parameters."""
    names, values = zip(*layer.named_parameters())
    return lambda x, *values: functional_call(layer, dict(zip(names, values)), (x,)), values


def gradient(call, cotangent, x, *values):
    """The gradients of <cotangent, call(x, *values)> with a graph."""
    return torch.autograd.grad(call(x, *values), (x, *values), cotangent, create_graph=True)


def inputs(layer, rows=40):
    """In every cell, outside on both sides, and far away; no knots."""
    x = 1.5 * normal(rows, layer.in_features, seed=7)
    x[0], x[1] = 30.0, -30.0
    return x.to(layer.spline_weight.dtype)


def relative(found, expected):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected))


def scipy_splines(knots, order, x, derivative=0, outside="zero"):
    """(len(x), G + S) by SciPy in float64, with the policy outside the grid.

    The right end of the grid belongs to its last interval.
    """
    low, high = knots[order], knots[-1 - order]
    clipped = x if outside == "zero" else np.clip(x, low, high)
    at = np.where(clipped == high, np.nextafter(high, -np.inf), clipped)
    pad = np.arange(1, order + 2)  # so that all of a spline's support is SciPy's base interval
    padded = np.concatenate([knots[0] - pad[::-1], knots, knots[-1] + pad])
    size = len(knots) - order - 1
    every = BSpline(padded, np.eye(size + 2 * order + 2)[:, order + 1 : -order - 1], order, extrapolate=False)

    def of_order(k):
        return np.nan_to_num(every(at, nu=k)) if k <= order else np.zeros((len(x), size))

    values = of_order(derivative)
    if outside == "linear" and derivative == 0:
        return values + (x - clipped)[:, None] * of_order(1)
    if (derivative == 2 and outside != "zero") or (derivative == 1 and outside == "clamp"):
        values = values * ((x >= low) & (x <= high))[:, None]
    return values
