"""SplineKAN: equality with SciPy's B-splines, derivatives, parameter counts, gradients to every parameter."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from kansciml import SplineKAN
from kansciml.layers.bspline import uniform_knots, uniform_pieces

ORDERS = (1, 2, 3, 4, 5)


def scipy_basis(knots, order, x, derivative=0):
    """(len(x), G + S): zero outside the extended knots; right-continuous at knots, as the layer is."""
    size = len(knots) - order - 1
    columns = []
    for m in range(size):
        spline = BSpline.basis_element(knots[m : m + order + 2], extrapolate=False)
        column = spline.derivative(derivative)(x) if derivative else spline(x)
        columns.append(np.nan_to_num(column))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid, grid_range", [(1, (-1.0, 1.0)), (5, (-1.0, 1.0)), (8, (0.3, 2.7))])
def test_basis_and_slope_equal_scipy_to_1e_12(order, grid, grid_range):
    layer = SplineKAN(1, 1, grid, order, grid_range, dtype=torch.float64)
    low, high = grid_range
    width = high - low
    x = np.random.default_rng(0).uniform(low - 2 * width, high + 2 * width, 300)
    knots = uniform_knots(grid, order, grid_range)
    x = np.append(
        x, knots[order + 1 : -1 - order] + 1e-9
    )  # just right of the inner knots, where both agree on the cell
    t = torch.tensor(x, requires_grad=True)
    basis = layer.basis(t)
    np.testing.assert_allclose(basis.detach(), scipy_basis(knots, order, x), atol=1e-12)
    slopes = [torch.autograd.grad(basis[:, m].sum(), t, retain_graph=True)[0] for m in range(basis.shape[1])]
    if order > 1:  # the slope of a linear spline jumps at its knots
        expected = scipy_basis(knots, order, x, 1)
        np.testing.assert_allclose(torch.stack(slopes, -1), expected, atol=1e-12 * np.abs(expected).max() + 1e-11)


@pytest.mark.parametrize("order", ORDERS)
def test_basis_is_continuous_at_knots_and_sums_to_one_on_the_grid(order):
    layer = SplineKAN(1, 1, 5, order, dtype=torch.float64)
    inner = layer.knots[order : -order if order else None]
    sums = layer.basis(torch.cat([inner[:-1], torch.linspace(-1, 1 - 1e-12, 201, dtype=torch.float64)])).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-13)
    left, right = layer.basis(layer.knots - 1e-13), layer.basis(layer.knots + 1e-13)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-11)


def test_outside_the_extended_knots_only_the_base_branch_is_left():
    layer = SplineKAN(3, 2, dtype=torch.float64)
    x = torch.tensor([[-9.0, 2.3, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.nn.functional.silu(x) @ layer.base_weight.T)


def test_forward_is_the_formula_edge_by_edge():
    layer = SplineKAN(3, 2, grid=4, spline_order=2, dtype=torch.float64)
    torch.nn.init.normal_(layer.spline_scale, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    basis = scipy_basis(layer.knots.numpy(), 2, x.numpy())
    expected = np.zeros((5, 2))
    for o in range(2):
        for i in range(3):
            coefficients = layer.spline_weight[o, i].detach().numpy() * layer.spline_scale[o, i].item()
            silu = x[:, i].numpy() / (1 + np.exp(-x[:, i].numpy()))
            expected[:, o] += layer.base_weight[o, i].item() * silu + basis[:, i] @ coefficients
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-14)


def test_parameter_count_is_the_papers():
    # efficient-kan, I = O = 64, G = 5, S = 3: 40,960 (section 3.1: I O (2 + G + S))
    assert sum(p.numel() for p in SplineKAN(64, 64).parameters()) == 40_960
    assert sum(p.numel() for p in SplineKAN(64, 128).parameters()) == 64 * 128 * 10


@pytest.mark.parametrize("spline_scale", [True, False])
def test_gradcheck_and_gradgradcheck(spline_scale):
    layer = SplineKAN(2, 2, grid=3, spline_scale=spline_scale, dtype=torch.float64)
    x = torch.tensor([[0.11, -0.52], [1.73, 0.37]], dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters())

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(function, (x, *values))
    assert torch.autograd.gradgradcheck(function, (x, *values))


def test_n_dimensional_and_empty_input_and_every_parameter_gets_a_gradient():
    layer = SplineKAN(4, 3)
    assert layer(torch.zeros(0, 4)).shape == (0, 3)
    y = layer(torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1.5)
    assert y.shape == (2, 5, 3)
    y.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_features": 0, "out_features": 1}, "at least 1"),
        ({"in_features": 1, "out_features": 1, "grid": 0}, "grid 0"),
        ({"in_features": 1, "out_features": 1, "grid_range": (1.0, 1.0)}, "grid_range"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SplineKAN(**arguments)


def test_wrong_input_width_is_named():
    with pytest.raises(ValueError, match=r"got input of shape \(2, 5\): expected \(..., 3\)"):
        SplineKAN(3, 1)(torch.zeros(2, 5))


def test_cubic_pieces_are_the_textbook_ones():
    expected = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6
    np.testing.assert_allclose(uniform_pieces(3), expected, atol=1e-16)
