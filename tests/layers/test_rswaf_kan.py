"""RSWAFKAN: equality with the formula, digits in the tails, states of other packages."""

import numpy as np
import pytest
import torch
from support.spline_layers import draw_weights, normal
from torch import nn
from torch.func import vmap

from kansciml.layers._kernels import rswaf
from kansciml.layers.rswaf_kan import RSWAFKAN


def formula(layer, x):
    """The layer in NumPy, float64, by 1 / cosh^2."""
    value = {name: tensor.detach().double().numpy() for name, tensor in layer.state_dict().items()}
    z = x.detach().double().numpy()
    if layer.layernorm is not None:
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + layer.layernorm.eps)
        z = z * value["layernorm.weight"] + value["layernorm.bias"]
    u = (z[..., None] - value["grid_points"]) / layer.denominator
    basis = np.exp(-u * u) if layer.bump == "gauss" else np.cosh(u) ** -2.0
    y = np.einsum("...ig,igo->...o", basis, value["spline_weight"]) + value.get("bias", 0.0)
    x = x.detach().double().numpy()
    return y if layer.base_weight is None else y + np.tanh(x) @ value["base_weight"]


def layer_with(n_in=3, n_out=2, **options):
    return draw_weights(RSWAFKAN(n_in, n_out, dtype=torch.float64, **options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_norm": False},
        {"learn_grid": True},
        {"bias": True, "grid": 1},
        {"denominator": 0.05, "grid": 5},
        {"bump": "gauss"},
        {"bump": "gauss", "base_activation": "tanh"},
        {"base_activation": "tanh", "bias": True},
    ],
    ids=str,
)
def test_forward_is_the_formula(options):
    layer = layer_with(**options)
    x = normal(4, 5, 3)
    np.testing.assert_allclose(layer(x).detach(), formula(layer, x), atol=1e-13)
    np.testing.assert_allclose(vmap(layer)(x).detach(), formula(layer, x), atol=1e-13)  # the composite


@pytest.mark.parametrize("options", [{}, {"bump": "gauss", "base_activation": "silu"}], ids=str)
def test_blocks_make_no_difference(options, monkeypatch):
    layer, x = layer_with(7, 3, **options), normal(29, 7).requires_grad_()

    def gradients():
        return torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))

    whole = gradients()
    monkeypatch.setattr(rswaf, "ROWS", 4)
    monkeypatch.setattr(rswaf, "BLOCK_BYTES", 4 * 8 * 8 * 3)
    for part, expected in zip(gradients(), whole):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_float32_keeps_its_digits_in_the_tails(shared):
    points = torch.linspace(-2, 2, 8, dtype=torch.float64)
    z = torch.linspace(-18, 18, 20_001)[None]
    values, slopes = (part[0].double().numpy() for part in rswaf.evaluate(z, points, 0.33, shared, True))
    u = (z.double().numpy() - points.numpy()[:, None]) / 0.33
    expected = np.cosh(u) ** -2.0
    sound = expected > np.finfo(np.float32).tiny
    assert expected[sound].min() < 1e-37
    assert np.abs(values / expected - 1)[sound].max() < 2e-6
    assert np.all(values[~sound] < 1.2e-38)
    expected_slope = -2 / 0.33 * np.tanh(u) * expected
    away = sound & (np.abs(u) > 0.1) & (np.abs(expected_slope) > np.finfo(np.float32).tiny)
    assert np.abs(slopes / expected_slope - 1)[away].max() < 1e-5
    np.testing.assert_allclose(slopes, expected_slope, atol=5e-6)
    # the guard can fail: the textbook form loses all digits
    textbook = 1 - np.tanh(u.astype(np.float32)) ** 2
    assert np.abs(textbook / expected - 1)[sound].max() > 0.9


def test_composite_keeps_its_digits_in_the_tails():
    layer = RSWAFKAN(1, 1, grid=1, grid_range=(0.0, 1.0), layer_norm=False)
    nn.init.ones_(layer.spline_weight)
    x = torch.linspace(-14, 14, 2001)[:, None]
    error = vmap(layer)(x).double().detach().numpy() / formula(layer, x) - 1
    assert np.abs(error).max() < 1e-5


def test_gradient_is_not_half_of_the_true_one():
    layer = layer_with(1, 1, layer_norm=False)
    x = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    step = 1e-6
    slope = (formula(layer, x + step) - formula(layer, x - step)) / (2 * step)
    assert torch.autograd.grad(layer(x).sum(), x)[0].item() == pytest.approx(slope.item(), rel=1e-8)


@pytest.mark.parametrize("bump", ["switch", "gauss"])
def test_infinite_input_without_layer_norm_has_left_every_function(bump):
    layer = layer_with(1, 2, layer_norm=False, bias=True, bump=bump)
    x = torch.tensor([[float("inf")], [-float("inf")], [1e300]], dtype=torch.float64, requires_grad=True)
    for call in (layer, vmap(layer)):  # the kernel and the composite
        y = call(x)
        torch.testing.assert_close(y, layer.bias.expand(3, 2))
        assert torch.autograd.grad(y.sum(), x)[0].abs().max() == 0


def test_state_of_another_range_gives_its_function():
    wide = layer_with(grid_range=(-20.0, 20.0))
    layer = layer_with()
    assert layer._shared and not wide._shared
    layer.load_state_dict(wide.state_dict())
    x = normal(5, 3)
    assert not layer._shared
    torch.testing.assert_close(layer(x), wide(x), rtol=0, atol=0)


class Switch(nn.Module):
    """Grid and width of an upstream-like layer; `learned` puts the unused inverse width into the state."""

    def __init__(self, low, high, size, learned):
        super().__init__()
        self.grid = nn.Parameter(torch.linspace(low, high, size), requires_grad=False)
        self.learned = learned
        if learned:
            self.inv_denominator = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, z):
        u = z.unsqueeze(-1) - self.grid
        return 1 - torch.tanh(u if self.learned else u / 0.33) ** 2


class UpstreamLike(nn.Module):
    """LayerNorm, switch functions, linear map over (input, grid point), input outermost."""

    def __init__(self, n_in, n_out, low, high, size, learned, bias=False):
        super().__init__()
        self.layernorm = nn.LayerNorm(n_in)
        self.rbf = Switch(low, high, size, learned)
        self.spline_linear = nn.Linear(n_in * size, n_out, bias=bias)

    def forward(self, x):
        return self.spline_linear(self.rbf(self.layernorm(x)).flatten(-2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("low, high, learned", [(-2.0, 2.0, False), (-1.2, 0.2, True)])
def test_imported_layers_give_equal_outputs(low, high, learned, bias):
    network = nn.ModuleDict({"0": UpstreamLike(5, 3, low, high, 7, learned, bias)})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "rbf" not in name:
                parameter.normal_(generator=generator).mul_(0.3)
    layer = RSWAFKAN.from_fasterkan(network.state_dict(), prefix="0.")
    x = normal(50, 5, dtype=torch.float32)
    torch.testing.assert_close(layer(x), network["0"](x), rtol=1e-6, atol=1e-6)
    wrong = RSWAFKAN.from_fasterkan(network.state_dict(), prefix="0.", denominator=0.7)
    assert (wrong(x) - network["0"](x)).abs().max() > 0.01
    with pytest.raises(ValueError, match=r"set prefix to one of '0\.'"):
        RSWAFKAN.from_fasterkan(network.state_dict())


def test_other_states_are_refused():
    state = UpstreamLike(5, 3, -2, 2, 7, False).state_dict()
    with pytest.raises(ValueError, match="fast-kan layer"):
        RSWAFKAN.from_fasterkan({**state, "base_linear.weight": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match="got key 'scale': expected faster-kan's, rbf.grid"):
        RSWAFKAN.from_fasterkan({**state, "scale": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"expected \(G,\) and \(O, I G\)"):
        RSWAFKAN.from_fasterkan({**state, "rbf.grid": torch.zeros(6)})
    with pytest.raises(ValueError, match="does not fit 5 inputs and 3 outputs"):
        RSWAFKAN.from_fasterkan({**state, "layernorm.weight": torch.zeros(4)})
    with pytest.raises(ValueError, match="does not fit"):
        RSWAFKAN.from_fasterkan({key: value for key, value in state.items() if key != "layernorm.bias"})


def test_imported_layers_of_two_inputs_keep_their_layer_norm():
    upstream = UpstreamLike(2, 3, -2, 2, 7, False)
    with pytest.warns(UserWarning, match="the sign of their difference"):
        layer = RSWAFKAN.from_fasterkan(upstream.state_dict())
    x = normal(9, 2, dtype=torch.float32)
    torch.testing.assert_close(layer(x), upstream(x), rtol=1e-6, atol=1e-6)
