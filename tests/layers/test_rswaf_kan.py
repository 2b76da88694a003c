"""RSWAFKAN: equality with the formula, tails, derivatives of every order, what it keeps, import, edge cases."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jvp, vmap

from kansciml.layers._kernels import rswaf
from kansciml.layers.rswaf_kan import RSWAFKAN


def layer_with(n_in=3, n_out=2, dtype=torch.float64, **options):
    layer = RSWAFKAN(n_in, n_out, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name != "grid_points":
                parameter.normal_(generator=generator)
    return layer


def draw(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def formula(layer, x):
    """The layer in NumPy, float64, by 1 / cosh^2."""
    value = {name: tensor.detach().double().numpy() for name, tensor in layer.state_dict().items()}
    z = x.detach().double().numpy()
    if layer.layernorm is not None:
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + layer.layernorm.eps)
        z = z * value["layernorm.weight"] + value["layernorm.bias"]
    basis = np.cosh((z[..., None] - value["grid_points"]) / layer.denominator) ** -2.0
    return np.einsum("...ig,igo->...o", basis, value["spline_weight"]) + value.get("bias", 0.0)


OPTIONS = [
    {},
    {"layer_norm": False},
    {"learn_grid": True},
    {"bias": True, "grid": 1},
    {"denominator": 0.05, "grid": 5},  # too wide a grid for one exponential
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward_is_the_formula(options):
    layer = layer_with(**options)
    x = draw(4, 5, 3)
    np.testing.assert_allclose(layer(x).detach(), formula(layer, x), atol=1e-13)
    np.testing.assert_allclose(vmap(layer)(x).detach(), formula(layer, x), atol=1e-13)  # the composite


def test_blocks_make_no_difference(monkeypatch):
    layer, x = layer_with(7, 3), draw(29, 7).requires_grad_()

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
    normal = expected > np.finfo(np.float32).tiny
    assert expected[normal].min() < 1e-37
    error = np.abs(values / expected - 1)[normal]
    assert error.max() < 2e-6
    assert np.all(values[~normal] < 1.2e-38)
    expected_slope = -2 / 0.33 * np.tanh(u) * expected
    away = normal & (np.abs(u) > 0.1) & (np.abs(expected_slope) > np.finfo(np.float32).tiny)
    assert np.abs(slopes / expected_slope - 1)[away].max() < 1e-5
    np.testing.assert_allclose(slopes, expected_slope, atol=5e-6)
    # the guard can fail: the textbook form loses all digits
    textbook = 1 - np.tanh(u.astype(np.float32)) ** 2
    assert np.abs(textbook / expected - 1)[normal].max() > 0.9


def test_composite_keeps_its_digits_in_the_tails():
    layer = RSWAFKAN(1, 1, grid=1, grid_range=(0.0, 1.0), layer_norm=False)
    nn.init.ones_(layer.spline_weight)
    x = torch.linspace(-14, 14, 2001)[:, None]
    error = vmap(layer)(x).double().detach().numpy() / formula(layer, x) - 1
    assert np.abs(error).max() < 1e-5


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck_and_gradgradcheck(options):
    options = {"grid": 3, **options}
    if "denominator" in options:
        options["grid_range"] = (-2.0, 2.0)
    layer = layer_with(3, 2, **options)
    x = torch.tensor([[-2.0, 0.0, 0.7], [0.31, -0.9, 2.0]], dtype=torch.float64, requires_grad=True)  # also at centres
    names, values = zip(*layer.named_parameters())
    assert ("grid_points" in names) == options.get("learn_grid", False)

    def function(x, *values):
        return functional_call(layer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(function, (x, *values))
    assert torch.autograd.gradgradcheck(function, (x, *values))


def test_gradient_is_not_half_of_the_true_one():
    layer = layer_with(1, 1, layer_norm=False)
    x = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    step = 1e-6
    slope = (formula(layer, x + step) - formula(layer, x - step)) / (2 * step)
    assert torch.autograd.grad(layer(x).sum(), x)[0].item() == pytest.approx(slope.item(), rel=1e-8)


def test_second_derivative_at_the_centre_of_a_function():
    layer = RSWAFKAN(1, 1, 1, (0.0, 1.0), layer_norm=False, dtype=torch.float64)
    nn.init.ones_(layer.spline_weight)
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]
    assert slope.item() == 0
    assert torch.autograd.grad(slope.sum(), x)[0].item() == pytest.approx(-2 / 0.33**2)


def test_func_transforms_agree_with_autograd():
    layer, x = layer_with(learn_grid=True), draw(4, 3)
    tangent = draw(4, 3, seed=2)
    value, forward_mode = jvp(layer, (x,), (tangent,))
    torch.testing.assert_close(value, layer(x))
    torch.testing.assert_close(forward_mode, torch.autograd.functional.jvp(layer, x, tangent)[1])
    by_func = hessian(lambda row: layer(row).sum())(x[0])
    torch.testing.assert_close(by_func, torch.autograd.functional.hessian(lambda row: layer(row).sum(), x[0]))


@pytest.mark.parametrize("learn_grid", [True, False])
def test_keeps_four_bytes_per_input_for_backward(learn_grid, saved_bytes):
    layer = layer_with(16, 8, torch.float32, learn_grid=learn_grid)
    x = draw(64, 16, dtype=torch.float32).requires_grad_()
    assert saved_bytes(layer, x)[0] == 4 * x.numel()


def test_counting_sees_a_kept_basis(saved_bytes):
    layer, x = layer_with(16, 8, torch.float32), draw(64, 16, dtype=torch.float32).requires_grad_()
    plain = nn.Sequential(nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 8))
    assert saved_bytes(plain, x)[0] > 8 * x.numel() > saved_bytes(layer, x)[0]


@pytest.mark.slow
@pytest.mark.parametrize("learn_grid", [True, False])
def test_compiles_as_one_graph_and_still_keeps_x_alone(learn_grid, saved_bytes):
    layer = layer_with(16, 8, torch.float32, learn_grid=learn_grid, bias=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = draw(64, 16, dtype=torch.float32).requires_grad_()
    kept, y = saved_bytes(layer, x)
    kept_compiled, y_compiled = saved_bytes(layer, x, compiled)
    torch.testing.assert_close(y_compiled, y)
    assert kept_compiled <= kept
    inputs = (x, *layer.parameters())
    expected = torch.autograd.grad(y.square().sum(), inputs)
    for grad, other in zip(torch.autograd.grad(y_compiled.square().sum(), inputs), expected):
        torch.testing.assert_close(grad, other)


def test_operators_are_registered_soundly():
    layer, x = layer_with(learn_grid=True), draw(5, 3).requires_grad_()
    norm = layer.layernorm
    for scale, shift in ((norm.weight, norm.bias), (None, None)):
        arguments = (x, scale, shift, layer.grid_points, layer.spline_weight, 0.33, 1e-5, False)
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(rswaf.COMPILED, arguments, test_utils=checks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_the_basis_only_once(dtype):
    layer = layer_with(dtype=torch.float32).to(dtype)
    assert layer.grid_points.dtype == torch.float64
    x = draw(40, 3).to(dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == dtype
    scale = np.abs(formula(layer, x)).max()
    np.testing.assert_allclose(y.detach().double(), formula(layer, x), atol=2 * torch.finfo(dtype).eps * scale)
    y.sum().backward()
    exact = layer_with().double()
    exact.load_state_dict({name: t.double() for name, t in layer.state_dict().items()})
    wide = x.detach().double().requires_grad_()
    exact(wide).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=0.05, atol=4 * torch.finfo(dtype).eps * scale * 4)


def test_autocast():
    layer, x = layer_with(dtype=torch.float32), draw(40, 3, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(y.detach().double(), formula(layer, x), atol=0.05)
    y.float().sum().backward()
    assert x.grad.dtype == layer.spline_weight.grad.dtype == layer.layernorm.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nan_stays_in_its_row(options):
    layer, x = layer_with(**options), draw(3, 3)
    x[1, 2] = float("nan")
    for y in (layer(x), vmap(layer)(x)):
        assert y.isnan().all(1).tolist() == [False, True, False]


def test_infinite_input_without_layer_norm_has_left_every_function():
    layer = layer_with(1, 2, layer_norm=False, bias=True)
    x = torch.tensor([[float("inf")], [-float("inf")], [1e300]], dtype=torch.float64, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, layer.bias.expand(3, 2))
    assert torch.autograd.grad(y.sum(), x)[0].abs().max() == 0


def test_shapes_and_empty_batches():
    layer = layer_with(learn_grid=True)
    assert layer(draw(3)).shape == (2,)
    assert layer(draw(2, 4, 5, 3)).shape == (2, 4, 5, 2)
    x = draw(0, 3).requires_grad_()
    y = layer(x)
    assert y.shape == (0, 2)
    gradients = torch.autograd.grad(y.sum(), (x, *layer.parameters()))
    assert all(grad.abs().sum() == 0 for grad in gradients)
    torch.testing.assert_close(layer(draw(3, 6).t()), layer(draw(3, 6).t().contiguous()))


def test_state_of_another_range_gives_its_function():
    wide = layer_with(grid_range=(-20.0, 20.0))
    layer = layer_with()
    assert layer._shared and not wide._shared
    layer.load_state_dict(wide.state_dict())
    x = draw(5, 3)
    assert not layer._shared
    torch.testing.assert_close(layer(x), wide(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_features": 0}, "in_features 0"),
        ({"out_features": 0}, "out_features 0"),
        ({"grid": 0}, "grid 0"),
        ({"grid_range": (1.0, 1.0)}, "two finite numbers"),
        ({"grid_range": (0.0, float("inf"))}, "two finite numbers"),
        ({"denominator": 0.0}, "positive number"),
        ({"denominator": float("nan")}, "positive number"),
    ],
)
def test_bad_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        RSWAFKAN(**{"in_features": 2, "out_features": 2, **arguments})


def test_bad_inputs_are_told():
    layer = layer_with()
    with pytest.raises(ValueError, match=r"got input of shape \(4, 2\): expected \(\.\.\., 3\)"):
        layer(draw(4, 2))
    with pytest.raises(ValueError, match="expected torch.float64, the dtype of the weights"):
        layer(draw(4, 3, dtype=torch.float32))


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
    x = draw(50, 5, dtype=torch.float32)
    torch.testing.assert_close(layer(x), network["0"](x), rtol=1e-6, atol=1e-6)
    wrong = RSWAFKAN.from_fasterkan(network.state_dict(), prefix="0.", denominator=0.7)
    assert (wrong(x) - network["0"](x)).abs().max() > 0.01
    with pytest.raises(ValueError, match=r"set prefix to one of '0\.'"):
        RSWAFKAN.from_fasterkan(network.state_dict())


def test_other_states_are_refused():
    state = UpstreamLike(5, 3, -2, 2, 7, False).state_dict()
    with pytest.raises(ValueError, match="fast-kan layer"):
        RSWAFKAN.from_fasterkan({**state, "base_linear.weight": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match=r"expected \(G,\) and \(O, I G\)"):
        RSWAFKAN.from_fasterkan({**state, "rbf.grid": torch.zeros(6)})
    with pytest.raises(ValueError, match="does not fit 5 inputs and 3 outputs"):
        RSWAFKAN.from_fasterkan({**state, "layernorm.weight": torch.zeros(4)})
    with pytest.raises(ValueError, match="does not fit"):
        RSWAFKAN.from_fasterkan({key: value for key, value in state.items() if key != "layernorm.bias"})


def test_parameter_count_of_table_1():
    def block(width, hidden=192):
        pair = RSWAFKAN(width, hidden, device="meta"), RSWAFKAN(hidden, width, device="meta")
        # the grid is counted there as a frozen parameter
        kan = sum(t.numel() for layer in pair for t in (*layer.parameters(), layer.grid_points))
        return kan + 3 * width**2 + width * (width + 1) + 4 * width  # qkv without bias, projection, two LayerNorms

    def outside(width):
        # patch embedding, class token, positions, last LayerNorm, head
        return width * (3 * 16 * 16 + 1) + width + 197 * width + 2 * width + 100 * (width + 1)

    assert 12 * block(192) + outside(192) == 9_073_636
    assert 12 * block(384) + outside(384) == 21_681_316


def test_imported_layers_of_two_inputs_keep_their_layer_norm():
    upstream = UpstreamLike(2, 3, -2, 2, 7, False)
    with pytest.warns(UserWarning, match="the sign of their difference"):
        layer = RSWAFKAN.from_fasterkan(upstream.state_dict())
    x = draw(9, 2, dtype=torch.float32)
    torch.testing.assert_close(layer(x), upstream(x), rtol=1e-6, atol=1e-6)
