"""SplineKAN: equality with SciPy's B-splines, derivatives of every order, what it keeps, edge cases."""

import copy

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.func import functional_call, hessian, jvp, stack_module_state, vmap

from kansciml import KAN, SplineKAN
from kansciml.layers.bspline import uniform_pieces

ORDERS = (1, 2, 3, 4, 5)
POLICIES = ("zero", "clamp", "linear")


def layer_with(order, even, n_in=2, n_out=3, grid=5, **options):
    """A float64 layer, on even knots or on knots drawn for each input."""
    layer = SplineKAN(n_in, n_out, grid, order, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(order)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    if not even:
        widths = 0.2 + torch.rand(layer.knots.diff(dim=1).shape, generator=generator, dtype=torch.float64)
        layer.set_knots(torch.cat([torch.zeros(n_in, 1), widths.cumsum(1)], 1).double() * 0.5 - 2.0)
    assert layer.spec.uniform == even
    return layer


def scipy_splines(knots, order, x, derivative=0):
    """(len(x), G + S) by SciPy in float64; the right end of the grid belongs to the last interval."""
    size = len(knots) - order - 1
    columns = []
    for m in range(size):
        # padded with knots far away, so that all of the spline's support is SciPy's base interval
        pad = np.arange(1, order + 1)
        padded = np.concatenate([knots[0] - pad[::-1], knots, knots[-1] + pad])
        coefficients = np.zeros(size + 2 * order)
        coefficients[m + order] = 1
        spline = BSpline(padded, coefficients, order, extrapolate=False)
        columns.append(np.nan_to_num(spline(x, nu=derivative)))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_basis_and_slope_equal_scipy_to_1e_12_also_at_knots_and_the_right_edge(order, even):
    layer = layer_with(order, even)
    for i, knots in enumerate(layer.knots.numpy()):
        # knots inside the grid are known exactly to the closed form only up to rounding of its position: one ulp right
        inner = np.nextafter(knots[order:-order], np.inf) if even else knots[order:-order]
        right = knots[-1 - order]
        drawn = np.random.default_rng(0).uniform(knots[0] - 1, knots[-1] + 1, 200)
        x = np.concatenate([drawn, inner[:-1] + (1e-15 if even else 0), [right]])
        t = torch.tensor(np.repeat(x[:, None], 2, 1), requires_grad=True)
        basis = layer.basis(t)[:, i]
        left = np.nextafter(right, -np.inf)  # where a linear spline has a corner, SciPy takes the last interval
        at = np.where(x == right, left, x) if order == 1 else x
        np.testing.assert_allclose(basis.detach(), scipy_splines(knots, order, at), atol=1e-12)
        slopes = [torch.autograd.grad(basis[:, m].sum(), t, retain_graph=True)[0][:, i] for m in range(basis.shape[1])]
        expected = scipy_splines(knots, order, at, 1)
        clear = np.min(np.abs(x[:, None] - knots), axis=1) > 1e-9 if order == 1 and even else np.full(len(x), True)
        clear |= x == right
        got = torch.stack(slopes, -1).numpy()
        np.testing.assert_allclose(got[clear], expected[clear], atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("order", (0, *ORDERS))
def test_basis_sums_to_one_on_the_grid_and_fades_over_s_knots(order):
    layer = SplineKAN(1, 1, 5, order, dtype=torch.float64)
    sums = layer.basis(torch.linspace(-1, 1, 201, dtype=torch.float64)[:, None]).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-13)
    beyond = torch.tensor([[-1.0 - 0.4 * order - 1e-9], [1.0 + 0.4 * order + 1e-9]], dtype=torch.float64)
    assert layer.basis(beyond).abs().max() < 1e-12


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_clamp_is_constant_and_linear_goes_on_straight_outside_the_grid(order, even):
    for policy in ("clamp", "linear"):
        layer = layer_with(order, even, outside=policy, base_activation=None)
        low, high = layer.knots[:, order], layer.knots[:, -1 - order]
        for end, step in ((low, -1.0), (high, 1.0)):
            at = end[None].clone().requires_grad_()
            value = layer(at)
            slope = torch.autograd.grad(value.sum(), at)[0]
            far = (end + 7.0 * step)[None].clone().requires_grad_()
            moved = layer(far)
            far_slope = torch.autograd.grad(moved.sum(), far)[0]
            change = 7.0 * step * slope.sum() if policy == "linear" else 0.0
            torch.testing.assert_close(moved.sum(), value.sum() + change, rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(far_slope, slope if policy == "linear" else torch.zeros_like(slope))


def test_forward_is_the_formula_edge_by_edge():
    layer = layer_with(2, True, 3, 2, 4, bias=True)
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize("spline_scale", [True, False])
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("activation", ["silu", "gelu", "tanh", None])
def test_gradcheck_and_gradgradcheck(spline_scale, even, policy, activation):
    layer = layer_with(3, even, 2, 2, 3, outside=policy, spline_scale=spline_scale, base_activation=activation)
    # an input exactly at a spline's centre too, where |d| has a corner and the spline has none
    x = torch.tensor([[0.11, -0.52], [1.73, 0.37]], dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters())

    def function(x, *values):
        return functional_call(layer, dict(zip(names, values)), (x,))

    assert torch.autograd.gradcheck(function, (x, *values))
    assert torch.autograd.gradgradcheck(function, (x, *values))


def test_second_derivative_at_the_centre_of_a_spline():
    layer = SplineKAN(1, 1, 4, 3, base_activation=None, spline_scale=False, dtype=torch.float64)
    with torch.no_grad():
        layer.spline_weight.zero_()[0, 3] = 1.0  # centred at 0, with knots every 0.5
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]
    assert torch.autograd.grad(slope.sum(), x)[0].item() == pytest.approx(-2.0 / 0.5**2)


@pytest.mark.parametrize("even", [True, False])
def test_func_transforms_agree_with_autograd(even):
    layer = layer_with(3, even)
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tangent = torch.ones_like(x)
    value, forward_mode = jvp(layer, (x,), (tangent,))
    torch.testing.assert_close(value, layer(x))
    reverse = torch.autograd.functional.jvp(layer, x, tangent)[1]  # by double backward
    torch.testing.assert_close(forward_mode, reverse)
    second = hessian(lambda row: layer(row).square().sum())(x[0])
    expected = torch.autograd.functional.hessian(lambda row: layer(row).square().sum(), x[0])
    torch.testing.assert_close(second, expected)

    layers = [copy.deepcopy(layer) for _ in range(3)]
    for scale, other in enumerate(layers):
        other.base_weight.data *= scale
    params, buffers = stack_module_state(layers)
    together = vmap(lambda p, b: functional_call(layer, (p, b), (x,)))(params, buffers)
    torch.testing.assert_close(together, torch.stack([other(x) for other in layers]))


@pytest.mark.parametrize("spline_scale", [True, False])
def test_only_x_is_kept_for_backward(spline_scale, saved_bytes):
    layer = SplineKAN(6, 5, spline_scale=spline_scale)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert saved_bytes(layer, x)[0] == 4 * x.numel()


@pytest.mark.slow
@pytest.mark.parametrize("spline_scale", [True, False])
def test_compiles_in_one_graph_and_still_keeps_only_x(spline_scale, saved_bytes):
    layer = SplineKAN(6, 5, spline_scale=spline_scale, bias=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    compiled(x).sum().backward()
    grads = [x.grad, *(p.grad for p in layer.parameters())]
    x.grad = None
    layer.zero_grad()
    kept, y = saved_bytes(layer, x, compiled)
    assert kept == 4 * x.numel()
    torch.testing.assert_close(y, layer(x))
    layer(x).sum().backward()
    for got, expected in zip(grads, [x.grad, *(p.grad for p in layer.parameters())]):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("even", [True, False])
def test_bfloat16_rounds_a_float32_basis_once(even):
    exact = layer_with(3, even, 16, 8)
    narrow = copy.deepcopy(exact).to(torch.bfloat16)
    assert narrow.knots.dtype == torch.float64 and torch.equal(narrow.knots, exact.knots)
    for p, q in zip(exact.parameters(), narrow.parameters()):
        p.data.copy_(q.data)
    x = torch.rand(64, 16, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).bfloat16()
    y = exact(x.double())
    error = (narrow(x).double() - y).abs().max() / y.abs().max()
    assert error < 1e-2  # rounding of the basis and of the result to 8 bits: 2 to 4e-3
    narrow(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.bfloat16 for p in narrow.parameters())


def test_autocast_runs_in_bfloat16_and_gives_float32_gradients():
    layer = SplineKAN(8, 4, bias=True)
    x = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_float32_error_of_a_fine_grid_is_rounding():
    layer = SplineKAN(1, 1, grid=50)
    x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact = copy.deepcopy(layer).double().basis(x.double())
    assert (layer.basis(x).double() - exact).abs().max() < 1e-5  # rounding of x / h: 50 * 6e-8 and its slope


@pytest.mark.parametrize("order", (0, 1, 3))
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_nan_stays_in_its_row_and_far_inputs_are_finite(order, even, policy):
    layer = layer_with(order, even, outside=policy)
    x = torch.tensor([[0.1, 0.2], [float("nan"), 0.2], [1e30, 1e30]], dtype=torch.float64)
    y = layer(x)
    assert torch.isfinite(y[[0, 2]]).all() and torch.isnan(y[1]).all()
    if policy != "linear":
        bare = layer_with(order, even, outside=policy, base_activation=None)
        assert torch.isfinite(bare(torch.full((1, 2), float("inf"), dtype=torch.float64))).all()


def test_n_dimensional_empty_and_narrow_input_and_every_parameter_gets_a_gradient():
    layer = SplineKAN(4, 3, bias=True)
    empty = torch.zeros(0, 4, requires_grad=True)
    layer(empty).sum().backward()
    assert empty.grad.shape == (0, 4) and layer.spline_weight.grad.abs().sum() == 0
    assert SplineKAN(1, 1, grid=1, spline_order=0)(torch.zeros(3, 1)).shape == (3, 1)
    y = layer(torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1.5)
    assert y.shape == (2, 5, 3)
    y.square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert layer(torch.zeros(4)).shape == (3,)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_features": 0}, "at least 1"),
        ({"grid": 0}, "grid 0"),
        ({"spline_order": -1}, "spline_order -1"),
        ({"grid_range": (1.0, 1.0)}, "grid_range"),
        ({"outside": "wrap"}, "expected one of zero, clamp, linear"),
        ({"base_activation": "sin"}, "expected one of None, silu"),
        ({"init": "xavier"}, "expected one of glorot"),
        ({"backend": "cuda"}, "expected one of auto, torch, cpp"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SplineKAN(**{"in_features": 1, "out_features": 1, **arguments})


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"got input of shape \(2, 5\): expected \(..., 3\)"):
        SplineKAN(3, 1)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"got input of torch.float64: expected torch.float32"):
        SplineKAN(3, 1)(torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="increase strictly"):
        SplineKAN(1, 1).set_knots(torch.zeros(1, 12))


@pytest.mark.parametrize("make", [lambda: KAN((3, 2)), lambda: KAN((3, 2), layer="rswaf")], ids=["spline", "rswaf"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float64])
@pytest.mark.parametrize("enabled", [False, True])
def test_what_is_not_of_the_weights_dtype_is_refused_under_autocast_too(make, dtype, enabled):
    with (
        torch.autocast("cpu", enabled=enabled),
        pytest.raises(ValueError, match=f"got input of {dtype}: expected torch"),
    ):
        make()(torch.ones(4, 3).to(dtype))


def test_autocast_leaves_double_precision_as_it_is():
    layer, x = SplineKAN(3, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    with torch.autocast("cpu"):
        narrowed = layer(x)
    assert narrowed.dtype == torch.float64 and torch.equal(narrowed, layer(x))


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

    source = layer_with(3, False, grid=7)
    save_file(source.state_dict(), tmp_path / "layer.safetensors")
    target = SplineKAN(2, 3, grid=5, dtype=torch.float64)
    target.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert target.grid == 7 and torch.equal(target(x), source(x))
    assert set(source.state_dict()) == {"base_weight", "spline_weight", "spline_scale", "knots"}


def test_cubic_pieces_are_the_textbook_ones():
    expected = np.array([[1, -3, 3, -1], [4, 0, -6, 3], [1, 3, 3, -3], [0, 0, 0, 1]]) / 6
    np.testing.assert_allclose(uniform_pieces(3), expected, atol=1e-16)
