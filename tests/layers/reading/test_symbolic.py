"""Networks whose edges are known functions are read as these; what cannot be read is named."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import silu

from kansciml import KAN, KansciError, UsageError

POINTS = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def set_edges(layer, low, high, functions):
    """Make the functions of a layer's edges, rows of inputs, those given, over inputs from low to high."""
    at = torch.linspace(0, 1, 20 * layer.grid, dtype=torch.float64)[:, None].expand(-1, layer.in_features)
    at = low + (high - low) * at
    with torch.no_grad():
        layer.set_knots(low + (layer.knots + 1) / 2 * (high - low))
        basis = layer.basis(at)
        for i, row in enumerate(functions):
            for o, function in enumerate(row):
                spline = (function(at[:, i]) - layer.base_weight[i, o] * silu(at[:, i])) / layer.spline_scale[i, o]
                layer.spline_weight[i, :, o] = torch.linalg.lstsq(basis[:, i], spline[:, None]).solution[:, 0]


def network(*widths, grid=30, **options):
    return KAN(widths, grid=grid, outside="linear", dtype=torch.float64, **options)


@pytest.fixture(scope="module")
def paper():
    """exp(sin(pi x) + y^2) - 0.2, of Liu et al. (2024), Figure 2.4, with biases of both layers."""
    net = network(2, 1, 1, bias=True)
    with torch.no_grad():
        net.layers[0].bias.fill_(0.7)
        net.layers[1].bias.fill_(-0.2)
    set_edges(net.layers[0], -1, 1, [[lambda x: torch.sin(math.pi * x)], [torch.square]])
    set_edges(net.layers[1], -0.4, 2.8, [[lambda x: torch.exp(x - 0.7)]])
    return net


def test_the_paper_s_example_is_read_as_its_formula(paper):
    sympy = pytest.importorskip("sympy")
    read = paper.symbolic(POINTS)
    assert [edge.fit.function for edge in read.edges] == ["sin", "x^2", "exp"]
    assert all(edge.fit.r2 > 1 - 1e-8 and edge.margin > 1e-4 for edge in read.edges) and not read.unread
    assert [str(one) for one in read.expressions(["x", "y"], digits=4)] == ["exp(y**2 + sin(3.142*x)) - 0.2"]
    (expression,) = read.expressions()
    found = sympy.lambdify(sympy.symbols("x1 x2"), expression)(*POINTS.numpy().T)
    np.testing.assert_allclose(found, read(POINTS.numpy())[:, 0], rtol=1e-12)
    truth = paper(POINTS).detach()[:, 0].numpy()
    unexplained = ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert unexplained < 1e-8 and read.r2[0] == pytest.approx(1 - unexplained, abs=1e-12)
    assert "layer 1: 1 -> 1" in str(read) and "sin(3.142 x)" in str(read) and "read: all" in str(read)


def test_a_network_in_float32_is_read_too(paper):
    read = KAN.of_layers(paper.layers).float().symbolic(POINTS.float())
    paper.double()
    assert [edge.fit.function for edge in read.edges] == ["sin", "x^2", "exp"] and read.r2[0] > 1 - 1e-6


def test_linear_zero_and_negligible_edges_are_read_as_such():
    net = network(2, 2, 1)
    negligible = [lambda x: 1e-4 * torch.sin(9 * x), lambda x: -x]
    set_edges(net.layers[0], -1, 1, [[lambda x: 2 * x - 1, torch.sin], negligible])
    with torch.no_grad():
        for weight in (net.layers[0].base_weight, net.layers[0].spline_scale):
            weight[0, 1] = 0.0
    set_edges(net.layers[1], -3, 1, [[lambda x: 0.5 * x], [lambda x: 0 * x + 3]])
    read = net.symbolic(POINTS)
    assert [edge.fit.function for edge in read.edges] == ["x", "constant", "constant", "x", "x", "constant"]
    linear, zero, nothing, *others = (edge.rounded(3) for edge in read.edges)
    assert [str(one) for one in (linear, zero, *others)] == ["2 x - 1", "0", "-x", "0.5 x", "3"]
    assert abs(nothing.d) < 1e-5
    assert all(edge.fit.r2 >= 1 - 1e-6 for edge in read.edges) and read.r2[0] > 1 - 1e-6
    assert not any(edge.margin > 0 for edge in read.edges)
    pytest.importorskip("sympy")
    assert [str(one) for one in read.expressions(["u", "v"], 3)] == ["u + 2.5"]


def test_a_product_is_read_as_the_difference_of_two_squares():
    sympy = pytest.importorskip("sympy")
    net = network(2, 2, 1)
    set_edges(net.layers[0], -1, 1, [[lambda x: x, lambda x: x + 1], [lambda x: x, lambda x: 1 - x]])
    set_edges(net.layers[1], -2, 4, [[lambda x: x**2 / 4], [lambda x: 3 - (x - 2) ** 2 / 4]])
    (expression,) = net.symbolic(POINTS).expressions(["x", "y"], digits=5)
    assert str(sympy.nsimplify(sympy.expand(expression))) == "x*y + 3"


def test_what_was_read_stays_as_the_network_learns_on_and_takes_tensors():
    net = KAN((2, 1), bias=True, dtype=torch.float64)
    read = net.symbolic(POINTS)
    before = read(POINTS.numpy())
    with torch.no_grad():
        net.layers[0].bias += 5
    np.testing.assert_array_equal(read(POINTS), before)
    np.testing.assert_array_equal(read(POINTS.tolist()), before)
    np.testing.assert_array_equal(read(POINTS.clone().requires_grad_()), before)
    assert read(POINTS.bfloat16()).shape == before.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_output_that_is_constant_but_for_rounding_is_explained(dtype):
    net = KAN((2, 5, 1), dtype=dtype)
    read = net.symbolic(torch.full((20, 2), 0.3, dtype=dtype))
    assert 0.5 < read.r2[0] <= 1


def test_an_input_that_does_not_vary_gives_constants():
    x = POINTS.clone()
    x[:, 1] = 0.3
    net = network(2, 3)
    read = net.symbolic(x)
    constants = [edge for edge in read.edges if edge.source == 1]
    assert all(edge.fit.function == "constant" and edge.fit.r2 == 1 for edge in constants)
    assert np.isfinite(read(x.numpy())).all()


def test_edges_that_no_function_fits_are_named_and_no_expression_is_given():
    net = network(1, 2)
    set_edges(net.layers[0], -1, 1, [[lambda x: torch.sin(3 * x) + (7 * x).cos(), torch.square]])
    read = net.symbolic(POINTS[:, :1])
    (edge,) = read.unread
    assert (edge.layer, edge.source, edge.target) == (0, 0, 0)
    assert edge.fit.r2 == max(fit.r2 for fit in edge.fits) < 0.9
    statement = rf"1 of 2 edges whose best R2 is below 0.999 \(layer 1: 1 -> 1, {edge.fit.function} 0\.\d+\)"
    with pytest.raises(KansciError, match=statement):
        read.expressions()
    assert "(not read)" in str(read) and "not read: 1 of 2 edges" in str(read)
    truth = net(POINTS[:, :1]).detach().numpy()
    np.testing.assert_allclose(read(POINTS[:, :1].numpy())[:, 1], truth[:, 1], atol=1e-5)  # it is told all the same
    assert read.r2[0] == pytest.approx(edge.fit.r2, abs=0.02) and read.r2[1] > 1 - 1e-8
    lower = net.symbolic(POINTS[:, :1], threshold=0.0)
    assert not lower.unread and lower.edges[0].fit.r2 <= edge.fit.r2
    only = net.symbolic(POINTS[:, :1], functions=["exp", "abs"])
    assert {fit.function for fit in only.edges[0].fits} == {"x", "exp", "abs"}


@pytest.mark.parametrize("place", [0, 1000])
@pytest.mark.parametrize("function", ["log", "1/x", "sqrt"])
def test_rounded_constants_leave_poles_off_the_inputs_and_what_is_added_its_size(function, place):
    sympy = pytest.importorskip("sympy")
    net, x = network(1, 1, grid=60), torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None] + place
    call = {"log": torch.log, "1/x": torch.reciprocal, "sqrt": torch.sqrt}[function]
    set_edges(net.layers[0], place - 1, place + 1, [[lambda x: call(x - place + 1.04) + place]])
    read = net.symbolic(x, threshold=0.99, functions=[function])
    assert read.edges[0].fit.function == function
    for digits in (3, 2, 1):
        found = sympy.lambdify(sympy.Symbol("x"), read.expressions(["x"], digits)[0])(x.numpy()[:, 0])
        truth = net(x).detach().numpy()[:, 0]
        assert np.isfinite(found).all() and abs(found[100:] - truth[100:]).max() < 0.6


def test_formulas_that_leave_the_domain_of_a_function_are_told():
    net = network(1, 1, 1)
    set_edges(net.layers[0], -1, 1, [[lambda x: torch.relu(x) + 0.01]])
    set_edges(net.layers[1], 0, 1.1, [[lambda x: torch.log(x + 0.003)]])
    read = net.symbolic(POINTS[:, :1], threshold=0.9, functions=["x^2", "log"])
    assert [edge.fit.function for edge in read.edges] == ["x^2", "log"]
    assert np.isnan(read(POINTS[:, :1].numpy())).any() and read.r2 == (-math.inf,)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((POINTS[:9],), "got 9 rows of inputs: expected at least 10"),
        ((POINTS, 1.1), "threshold 1.1: expected a number from 0 to 1"),
        ((POINTS, 0.9, ["sine"]), "unknown function 'sine': expected one of x, x"),
        ((POINTS * math.nan,), "inputs of layer 1 .*finite"),
        ((POINTS.numpy(),), "got ndarray: expected a tensor of inputs"),
        ((POINTS[:, :1],), r"expected \(\.\.\., 2\)"),
    ],
)
def test_bad_requests_are_one_clear_line(paper, arguments, message):
    with pytest.raises(ValueError, match=message):
        paper.symbolic(*arguments)


def test_a_large_network_is_refused_at_once_unless_pruned_or_told():
    net = network(2, 3, 1)
    with pytest.raises(UsageError, match="got 9 edges that are not constant.*at most 8; prune .* max_edges=9"):
        net.symbolic(POINTS, max_edges=8)
    assert len(net.symbolic(POINTS, 0.0, ["x"], max_edges=9).edges) == 9
    with torch.no_grad():
        net.layers[0].spline_weight[0, :, 0], net.layers[0].base_weight[0, 0] = 0, 0
    assert len(net.symbolic(POINTS, 0.0, ["x"], max_edges=8).edges) == 9


@pytest.mark.parametrize("size", [math.nan, 1e200])
def test_edges_that_are_not_finite_are_one_clear_line(size):
    net = network(2, 1)
    with torch.no_grad():
        net.layers[0].spline_weight[0, 0, 0] = size
    with pytest.raises(UsageError, match="got edges of layer 1 that are NaN or infinite: expected finite weights"):
        net.symbolic(POINTS)


def test_bad_requests_of_what_was_read_are_one_clear_line(paper, monkeypatch):
    read = paper.symbolic(POINTS, functions=["x^2", "exp", "sin"])
    with pytest.raises(UsageError, match="got names of inputs x: expected 2"):
        read.expressions(["x"])
    with pytest.raises(UsageError, match="got names of inputs x, x: expected 2, no two of them the same"):
        read.expressions(["x", "x"])
    with pytest.raises(UsageError, match="digits 0"):
        read.expressions(digits=0)
    with pytest.raises(UsageError, match=r"got inputs of shape \(4, 3\): expected \(\.\.\., 2\)"):
        read(np.zeros((4, 3)))
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(KansciError, match=r"pip install 'kansciml\[symbolic\]'"):
        read.expressions()
