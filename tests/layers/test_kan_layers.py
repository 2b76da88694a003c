"""What both kinds of KAN layers have to hold: derivatives, memory, precision, shapes, refusals."""

import copy
from itertools import product

import pytest
import torch
from support.spline_layers import as_function, draw_weights, layer_with, normal
from torch import nn
from torch.func import hessian, jvp, vmap

from kansciml import KAN, RSWAFKAN, SplineKAN
from kansciml.layers._kernels import rswaf, spline_op
from kansciml.layers.bspline import OUTSIDE
from kansciml.layers.textbook_kan import TextbookKAN

F64 = torch.float64
GAUSS = {"bump": "gauss", "denominator": 0.6, "base_activation": "silu"}
RSWAF = [
    {},
    {"layer_norm": False},
    {"learn_grid": True},
    {"bias": True, "grid": 1},
    {"denominator": 0.05, "grid": 5},  # too wide a grid for one exponential
    {**GAUSS, "bias": True},
    {**GAUSS, "layer_norm": False, "learn_grid": True, "base_activation": "gelu"},
]
KINDS = {
    "even": lambda dtype=F64, **options: layer_with(3, True, 3, 2, 5, dtype, **options),
    "uneven": lambda dtype=F64, **options: layer_with(3, False, 3, 2, 5, dtype, **options),
    "rswaf": lambda dtype=F64, **options: draw_weights(RSWAFKAN(3, 2, dtype=dtype, **options)),
    "rswaf-learnt": lambda dtype=F64, **options: draw_weights(RSWAFKAN(3, 2, learn_grid=True, dtype=dtype, **options)),
    "gauss": lambda dtype=F64, **options: draw_weights(RSWAFKAN(3, 2, dtype=dtype, **GAUSS, **options)),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def called(one):
    """The same name in every process, which xdist wants."""
    return getattr(one, "__name__", str(one))


DIFFERENTIABLE = [
    *((layer_with, {"outside": outside, "even": even, "spline_scale": scale, "base_activation": act})
      for scale, even, outside, act in product((True, False), (True, False), OUTSIDE, ("silu", "gelu", "tanh", None))),
    *((RSWAFKAN, {"grid": 3, **options}) for options in RSWAF),
]  # fmt: skip


@pytest.mark.parametrize("make, options", DIFFERENTIABLE, ids=called)
def test_gradcheck_and_gradgradcheck(make, options):
    if make is layer_with:
        layer, x = layer_with(3, **options), [[0.11, -0.52], [1.73, 0.37]]
    else:  # also at the centres of functions
        layer, x = draw_weights(RSWAFKAN(3, 2, dtype=F64, **options)), [[-2.0, 0.0, 0.7], [0.31, -0.9, 2.0]]
    call, values = as_function(layer)
    arguments = (torch.tensor(x, dtype=F64, requires_grad=True), *values)
    assert torch.autograd.gradcheck(call, arguments)
    assert torch.autograd.gradgradcheck(call, arguments)


@pytest.mark.parametrize(
    "kind, expected", [("spline", -2.0 / 0.5**2), ("switch", -2 / 0.33**2), ("gauss", -2 / 0.33**2)]
)
def test_second_derivative_at_the_centre_of_a_function(kind, expected):
    """There |d| has a corner, and the function has none."""
    if kind == "spline":
        layer = SplineKAN(1, 1, 4, 3, base_activation=None, spline_scale=False, dtype=F64)
        nn.init.zeros_(layer.spline_weight)
        layer.spline_weight.data[0, 3] = 1.0  # centred at 0, with knots every 0.5
    else:
        layer = RSWAFKAN(1, 1, 1, (0.0, 1.0), layer_norm=False, bump=kind, dtype=F64)
        nn.init.ones_(layer.spline_weight)
    x = torch.zeros(1, 1, dtype=F64, requires_grad=True)
    slope = torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]
    assert slope.item() == 0 and torch.autograd.grad(slope.sum(), x)[0].item() == pytest.approx(expected)


@every_kind
def test_func_transforms_agree_with_autograd(kind):
    layer, x, tangent = KINDS[kind](), normal(4, 3), normal(4, 3, seed=2)
    value, forward_mode = jvp(layer, (x,), (tangent,))
    torch.testing.assert_close(value, layer(x))
    torch.testing.assert_close(forward_mode, torch.autograd.functional.jvp(layer, x, tangent)[1])  # double backward

    def loss(row):
        return layer(row).square().sum()

    torch.testing.assert_close(hessian(loss)(x[0]), torch.autograd.functional.hessian(loss, x[0]))


def kept_layers():
    return [
        *(SplineKAN(6, 5, spline_scale=scale, bias=True) for scale in (True, False)),
        *(RSWAFKAN(6, 5, learn_grid=learn, bias=True) for learn in (True, False)),
        RSWAFKAN(6, 5, **GAUSS),
    ]


def test_only_x_is_kept_for_backward(saved_bytes):
    x = normal(32, 6, dtype=torch.float32).requires_grad_()
    for layer in kept_layers():
        assert saved_bytes(layer, x)[0] == 4 * x.numel()
    plain = nn.Sequential(nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 5))
    assert saved_bytes(plain, x)[0] > 8 * x.numel()  # the count sees what others keep


@pytest.mark.slow
@pytest.mark.parametrize("which", range(5))
def test_compiles_in_one_graph_and_still_keeps_only_x(which, saved_bytes):
    layer, x = kept_layers()[which], normal(32, 6, dtype=torch.float32).requires_grad_()
    torch._dynamo.reset()
    compiled, inputs = torch.compile(layer, fullgraph=True, backend="aot_eager"), (x, *layer.parameters())
    kept, y = saved_bytes(layer, x, compiled)
    assert kept == 4 * x.numel()
    torch.testing.assert_close(y, layer(x))
    found = torch.autograd.grad(y.square().sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(layer(x).square().sum(), inputs))


@pytest.mark.parametrize("kind", ["even", "rswaf"])
def test_operators_are_registered_soundly(kind):
    layer, x = KINDS[kind](), normal(5, 3).requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    if kind == "even":
        for base, scale in ((layer.base_weight, layer.spline_scale), (None, None)):
            arguments = (x, layer.knots, base, layer.spline_weight, scale, 5, 3, False, "zero", "silu", "torch", False)
            torch.library.opcheck(spline_op.COMPILED, arguments, test_utils=checks)
        return
    for scale, shift in ((layer.layernorm.weight, layer.layernorm.bias), (None, None)):
        for base, bump, activation in ((None, "switch", None), (normal(3, 2).requires_grad_(), "gauss", "silu")):
            arguments = (x, scale, shift, layer.grid_points, layer.spline_weight, base)
            options = 0.33, 1e-5, False, "torch", bump, activation
            torch.library.opcheck(rswaf.COMPILED, (*arguments, *options), test_utils=checks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_kind
def test_half_precision_rounds_the_basis_only_once(kind, dtype):
    exact = KINDS[kind]()
    narrow = copy.deepcopy(exact).to(dtype)
    if kind != "rswaf-learnt":
        assert getattr(narrow, narrow.GRID).dtype == F64
        assert torch.equal(getattr(narrow, narrow.GRID), getattr(exact, exact.GRID))
    exact.load_state_dict({name: value.double() for name, value in narrow.state_dict().items()})
    x = normal(40, 3).to(dtype)
    gradients = []
    for layer, at in ((narrow, x.clone().requires_grad_()), (exact, x.double().requires_grad_())):
        y = layer(at)
        assert y.dtype == at.dtype
        gradients.append(torch.autograd.grad(y.sum(), at, retain_graph=True)[0].double())
        y.sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.dtype == at.dtype for p in layer.parameters())
    scale, eps = exact(x.double()).detach().abs().max(), torch.finfo(dtype).eps
    assert (narrow(x).double() - exact(x.double())).abs().max() <= 2 * eps * scale
    torch.testing.assert_close(*gradients, rtol=0.05, atol=16 * eps * float(scale))


@every_kind
def test_autocast_runs_in_bfloat16_and_gives_float32_gradients(kind):
    layer, x = KINDS[kind](torch.float32, bias=True), normal(40, 3, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.05)
    y.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in (x, *layer.parameters()))


@every_kind
def test_autocast_leaves_double_precision_as_it_is(kind):
    layer, x = KINDS[kind](), normal(4, 3)
    with torch.autocast("cpu"):
        narrowed = layer(x)
    assert narrowed.dtype == F64 and torch.equal(narrowed, layer(x))


FINITE = [
    *((layer_with, {"order": order, "even": even, "n_in": 3, "outside": outside, "base_activation": activation})
      for order, even, outside, activation in product((0, 1, 3), (True, False), OUTSIDE, ("silu", None))),
    (layer_with, {"order": 0, "even": True, "n_in": 3, "grid": 1}),
    *((RSWAFKAN, {"in_features": 3, "out_features": 2, "dtype": F64, **options}) for options in RSWAF),
]  # fmt: skip


@pytest.mark.parametrize("make, options", FINITE, ids=called)
def test_nan_stays_in_its_row_and_far_inputs_are_finite(make, options):
    layer = make(**options)
    x = torch.tensor([[0.1, 0.2, -0.3], [float("nan"), 0.2, 0.1], [1e30, -1e30, 1e30]], dtype=F64)
    for y in (layer(x), vmap(layer)(x)):  # kernel and composite
        assert y[[0, 2]].isfinite().all() and y[1].isnan().all()
    if options.get("base_activation", "") is None and options["outside"] != "linear":
        assert layer(torch.full((1, 3), float("inf"), dtype=F64)).isfinite().all()


@every_kind
def test_leading_axes_empty_batches_strides_and_every_parameter_gets_a_gradient(kind):
    layer = KINDS[kind](bias=True)
    x = 1.5 * normal(2, 4, 5, 3)
    y = layer(x)
    torch.testing.assert_close(y[1, 2], layer(x[1, 2]))
    torch.testing.assert_close(layer(x[0, 0, 0]), y[0, 0, 0])
    torch.testing.assert_close(layer(normal(3, 6).t()), layer(normal(3, 6).t().contiguous()))
    for gradient in torch.autograd.grad(y.square().sum(), tuple(layer.parameters())):
        assert gradient.abs().sum() > 0
    empty = torch.zeros(0, 3, dtype=F64, requires_grad=True)
    y = layer(empty)
    assert y.shape == (0, 2)
    assert not any(gradient.any() for gradient in torch.autograd.grad(y.sum(), (empty, *layer.parameters())))


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        *((make, {name: 0}, f"{name} 0.* expected each to be at least 1")
          for make in (SplineKAN, RSWAFKAN, TextbookKAN) for name in ("in_features", "out_features", "grid")),
        *((make, {"grid_range": ends}, "two finite numbers, the lower one first")
          for make in (SplineKAN, RSWAFKAN, TextbookKAN) for ends in ((1.0, 1.0), (0.0, float("inf")))),
        (SplineKAN, {"spline_order": -1}, "spline_order -1"),
        (SplineKAN, {"outside": "wrap"}, "expected one of zero, clamp, linear"),
        (SplineKAN, {"base_activation": "sin"}, "expected one of None, silu"),
        (SplineKAN, {"init": "xavier"}, "expected one of glorot"),
        (SplineKAN, {"backend": "cuda"}, "expected one of auto, torch, cpp"),
        (RSWAFKAN, {"denominator": 0.0}, "positive number"),
        (RSWAFKAN, {"bump": "sinc"}, "expected one of switch, gauss"),
        (RSWAFKAN, {"denominator": float("nan")}, "positive number"),
        (TextbookKAN, {"spline_order": 0}, "spline_order 0"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**{"in_features": 2, "out_features": 2, **arguments})


@pytest.mark.parametrize(
    "layer", [SplineKAN(3, 1), RSWAFKAN(3, 1), TextbookKAN(3, 1)], ids=lambda one: type(one).__name__
)
def test_a_wrong_input_is_named(layer):
    with pytest.raises(ValueError, match=r"got input of shape \(2, 5\): expected \(\.\.\., 3\)"):
        layer(torch.zeros(2, 5))


@pytest.mark.parametrize("layer", ["spline", "rswaf"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float64])
@pytest.mark.parametrize("enabled", [False, True])
def test_what_is_not_of_the_weights_dtype_is_refused_under_autocast_too(layer, dtype, enabled):
    with (
        torch.autocast("cpu", enabled=enabled),
        pytest.raises(ValueError, match=f"got input of {dtype}: expected torch"),
    ):
        KAN((3, 2), layer)(torch.ones(4, 3).to(dtype))
