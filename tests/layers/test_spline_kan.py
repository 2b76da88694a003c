"""SplineKAN: equality with SciPy's B-splines, what it does outside its grid, first weights, states."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from support.spline_layers import layer_with, normal, scipy_splines

from kansciml import SplineKAN
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers.bspline import OUTSIDE, SplineSpec, uniform_knots, uniform_pieces

ORDERS = (1, 2, 3, 4, 5)


@pytest.mark.parametrize("order, even, outside", list(product((0, *ORDERS), (True, False), OUTSIDE)))
def test_splines_and_two_derivatives_equal_scipy_also_at_knots(order, even, outside):
    grid = 4
    if even:  # knots and positions that are exact in binary
        knots = uniform_knots(grid, order, (-1, 1))
        cells = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    else:
        knots = np.random.default_rng(order).uniform(0.2, 1, grid + 2 * order + 1).cumsum() - 2.0
        cells = torch.tensor(knots)[None]
    low, high = knots[order], knots[order + grid]
    x = np.concatenate([np.linspace(low - 1, high + 1, 101), knots[order : order + grid + 1]])
    found = evaluate(SplineSpec(grid, order, even, outside, None), torch.tensor(x)[None], cells, 2)
    assert len(found) == 3
    for k, splines in enumerate(found):
        expected = scipy_splines(knots, order, x, k, outside)
        np.testing.assert_allclose(splines[0].T, expected, atol=1e-12 * 10 ** (k == 2) * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("order", (0, *ORDERS))
def test_basis_sums_to_one_on_the_grid_and_fades_over_s_knots(order):
    layer = SplineKAN(1, 1, 5, order, dtype=torch.float64)
    sums = layer.basis(torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None]).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-13)
    beyond = torch.tensor([[-1.0 - 0.4 * order - 1e-9], [1.0 + 0.4 * order + 1e-9]], dtype=torch.float64)
    assert layer.basis(beyond).abs().max() < 1e-12


@pytest.mark.parametrize("order, even, policy", list(product(ORDERS, (True, False), ("clamp", "linear"))))
def test_clamp_is_constant_and_linear_goes_on_straight_outside_the_grid(order, even, policy):
    layer = layer_with(order, even, outside=policy, base_activation=None)

    def value_and_slope(x):
        x = x[None].clone().requires_grad_()
        y = layer(x).sum()
        return y, torch.autograd.grad(y, x)[0]

    for end, step in ((layer.knots[:, order], -7.0), (layer.knots[:, -1 - order], 7.0)):
        (value, slope), (moved, far_slope) = value_and_slope(end), value_and_slope(end + step)
        expected = slope if policy == "linear" else torch.zeros_like(slope)
        torch.testing.assert_close(moved, value + step * expected.sum(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(far_slope, expected)


def test_forward_is_the_formula_edge_by_edge():
    layer, x = layer_with(2, True, 3, 2, 4, bias=True), normal(5, 3)
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    expected = np.zeros((5, 2)) + weights["bias"]
    for i in range(3):
        basis = scipy_splines(layer.knots[i].numpy(), 2, x[:, i].numpy())
        silu = x[:, i].numpy() / (1 + np.exp(-x[:, i].numpy()))
        for o in range(2):
            expected[:, o] += weights["base_weight"][i, o] * silu
            expected[:, o] += basis @ (weights["spline_weight"][i, :, o] * weights["spline_scale"][i, o])
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-14)


def test_parameter_count_is_the_papers():
    # efficient-kan, I = O = 64, G = 5, S = 3: 40,960 (section 3.1: I O (2 + G + S))
    assert sum(p.numel() for p in SplineKAN(64, 64).parameters()) == 40_960
    assert sum(p.numel() for p in SplineKAN(64, 128).parameters()) == 64 * 128 * 10


def test_float32_error_of_a_fine_grid_is_rounding():
    layer = SplineKAN(1, 1, grid=50)
    x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = copy.deepcopy(layer).double().basis(x.double())
    assert (layer.basis(x).double() - exact).abs().max() < 1e-5  # rounding of x / h: 50 * 6e-8 and its slope


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_grids_and_splines_refuse_what_is_not_real(dtype):
    layer, x = SplineKAN(3, 2), torch.ones(40, 3).to(dtype)
    for call in (layer.basis, layer.update_grid, lambda x: layer.extend_grid(10, x)):
        with pytest.raises(ValueError, match=f"got input of {dtype}: expected real floating-point numbers"):
            call(x)


@pytest.mark.parametrize("init", ["glorot", "noise", "variance", "zero"])
def test_initialisation_is_drawn_from_the_generator_and_has_the_size_it_says(init):
    layers = [SplineKAN(64, 128, init=init) for _ in range(2)]
    for layer in layers:
        layer.reset_parameters(torch.Generator().manual_seed(3))
    for p, q in zip(*(layer.parameters() for layer in layers)):
        assert torch.equal(p, q)
    x = torch.rand(500, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = layers[0](x)
    if init == "variance":
        assert 0.9 < y.var().item() < 1.1
    if init == "zero":
        torch.testing.assert_close(y, torch.nn.functional.silu(x) @ layers[0].base_weight)
    if init == "noise":
        at_knots = layers[0].knots[:, 3:-3].T.float()
        bare = (layers[0].basis(at_knots).unsqueeze(-1) * layers[0].spline_weight).sum(-2)
        assert bare.abs().max().item() == pytest.approx(0.05 / 5, rel=0.01)


def test_state_survives_safetensors_and_another_grid_size(tmp_path):
    from safetensors.torch import load_file, save_file

    source = layer_with(3, False, 2, 3, 7)
    save_file(source.state_dict(), tmp_path / "layer.safetensors")
    target = SplineKAN(2, 3, grid=5, dtype=torch.float64)
    target.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = normal(9, 2)
    assert target.grid == 7 and torch.equal(target(x), source(x))
    assert set(source.state_dict()) == {"base_weight", "spline_weight", "spline_scale", "knots"}


def test_cubic_pieces_are_the_textbook_ones():
    expected = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6
    np.testing.assert_allclose(uniform_pieces(3), expected, atol=1e-16)
