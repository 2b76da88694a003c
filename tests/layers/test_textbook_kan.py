"""The textbook layer: SciPy's B-splines on half-open intervals, the layer's formula, and correct gradients."""

import copy

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from kansciml import UsageError
from kansciml.layers.bspline import uniform_knots
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN, to_textbook

CASES = [(5, 3, (-1.0, 1.0)), (1, 1, (0.0, 2.0)), (8, 2, (-3.0, 5.0)), (3, 5, (-1.0, 1.0))]


def layer(n_in, n_out, grid, order, grid_range=(-1.0, 1.0)):
    made = TextbookKAN(n_in, n_out, grid, order, grid_range, dtype=torch.float64)
    made.reset_parameters(torch.Generator().manual_seed(3))
    return made


def scipy_basis(x, grid, order, grid_range):
    """(..., G + S); SciPy's splines are zero outside their own support when not extrapolated."""
    knots = uniform_knots(grid, order, grid_range)
    elements = [BSpline.basis_element(knots[m : m + order + 2], extrapolate=False) for m in range(grid + order)]
    return np.stack([np.nan_to_num(element(x)) for element in elements], axis=-1)


@pytest.mark.parametrize("grid, order, grid_range", CASES)
def test_basis_is_scipys_inside_and_outside_the_grid(grid, order, grid_range):
    low, high = grid_range
    x = np.random.default_rng(0).uniform(low - 2 * (high - low), high + 2 * (high - low), (400, 2))
    found = layer(2, 3, grid, order, grid_range).basis(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), scipy_basis(x, grid, order, grid_range), atol=1e-13)


def test_intervals_are_half_open():
    """At order 1 the last hat inside the knots peaks at the last grid point, and the last knot itself is outside."""
    made = layer(1, 1, 4, 1, (0.0, 4.0))
    at = made.basis(torch.tensor([[0.0], [4.0], [5.0], [-1.0]], dtype=torch.float64))[:, 0]
    assert at[0].tolist() == [1.0, 0, 0, 0, 0] and at[1].tolist() == [0, 0, 0, 0, 1.0]
    assert at[2].tolist() == [0.0] * 5 and at[3].tolist() == [0.0] * 5


@pytest.mark.parametrize("grid, order, grid_range", CASES)
def test_layer_is_its_formula_on_leading_axes(grid, order, grid_range):
    made = layer(3, 4, grid, order, grid_range)
    with torch.no_grad():
        made.spline_scale.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
    x = np.random.default_rng(1).normal(0, 1.5, (2, 7, 3))
    base, spline, scale = (p.detach().numpy() for p in (made.base_weight, made.spline_weight, made.spline_scale))
    want = np.einsum("oi,...i->...o", base, x / (1 + np.exp(-x)))
    want += np.einsum("oi,oim,...im->...o", scale, spline, scipy_basis(x, grid, order, grid_range))
    np.testing.assert_allclose(made(torch.from_numpy(x)).detach().numpy(), want, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    made = layer(2, 3, 5, 3)
    x = torch.linspace(-1.3, 1.4, 12, dtype=torch.float64).reshape(6, 2).requires_grad_()
    names, parameters = zip(*made.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(made, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters))


def test_parameters_are_the_papers_count():
    assert sum(p.numel() for p in TextbookKAN(64, 64).parameters()) == 40_960  # I O (2 + G + S)


@pytest.mark.parametrize("options", [{}, {"spline_scale": False, "grid_range": (-2.0, 2.0), "grid": 4}])
def test_textbook_layers_put_into_a_network_give_its_values_by_its_weights(options):
    ours = KAN((3, 4, 2), "spline", **options).double()
    textbook = to_textbook(copy.deepcopy(ours))
    kinds = [type(module) for module in textbook.modules()]
    assert SplineKAN not in kinds and kinds.count(TextbookKAN) == 2
    assert sum(p.numel() for p in textbook.parameters()) == sum(p.numel() for p in ours.parameters())
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(textbook(x), ours(x), rtol=1e-9, atol=1e-10)
    with torch.no_grad():  # every weight was taken over, so that a changed one shows
        ours.layers[0].spline_weight.mul_(1.1)
    assert not torch.allclose(textbook(x), ours(x), rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"bias": True}, {"base_activation": "gelu"}, {"outside": "linear"}, {"spline_order": 0}]
)
def test_layers_without_a_textbook_form_are_refused(options):
    with pytest.raises(UsageError, match="got a SplineKAN with base_activation"):
        to_textbook(KAN((3, 2), "spline", **options))
