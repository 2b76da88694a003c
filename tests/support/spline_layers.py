"""Spline layers with weights drawn, as functions, for tests of their first and second derivatives."""

import pytest
import torch
from torch.func import functional_call

from kansciml import SplineKAN
from kansciml.layers._kernels import cpp_library

BACKENDS = [
    "torch",
    pytest.param("cpp", marks=pytest.mark.skipif(not cpp_library.available(), reason="C++ kernels are not built here")),
]


def layer_with(order, even, n_in=2, n_out=2, grid=3, dtype=torch.float64, **options):
    """A layer with weights drawn, on even knots or on knots drawn for each input."""
    layer = SplineKAN(n_in, n_out, grid, order, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(order)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    if not even:
        widths = 0.2 + torch.rand(layer.knots.diff(dim=1).shape, generator=generator, dtype=torch.float64)
        layer.set_knots(torch.cat([torch.zeros(n_in, 1), widths.cumsum(1)], 1).double() * 0.5 - 1.2)
    assert layer.spec.uniform == even
    return layer


def as_function(layer):
    names, values = zip(*layer.named_parameters())
    return lambda x, *values: functional_call(layer, dict(zip(names, values)), (x,)), values


def gradient(call, cotangent, x, *values):
    """The gradients of <cotangent, call(x, *values)> with a graph."""
    return torch.autograd.grad(call(x, *values), (x, *values), cotangent, create_graph=True)


def inputs(layer, rows=40):
    """In every cell, outside on both sides, and far away; no knots."""
    x = torch.randn(rows, layer.in_features, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 1.5
    x[0], x[1] = 30.0, -30.0
    return x.to(layer.spline_weight.dtype)


def relative(found, expected):
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected))
