"""The Triton kernels of the spline layer, by Triton's interpreter where there is no CUDA device: SciPy, derivatives."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.spline_layers import as_function, draw_weights, gradient, inputs, layer_with, normal, scipy_splines
from torch.nn.parallel import DistributedDataParallel

from kansciml import RSWAFKAN, KANConv2d, SplineKAN
from kansciml.layers._kernels import plain, rswaf, spline_op
from kansciml.layers._kernels._triton import library
from kansciml.layers._kernels.plain import Given, Weights
from kansciml.layers.bspline import OUTSIDE

pytestmark = pytest.mark.triton
if not library.available():
    pytest.skip("Triton is not installed", allow_module_level=True)
if not (torch.cuda.is_available() or library.interpreted()):
    pytest.skip("no CUDA device, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

from kansciml.layers._kernels._triton import backend as kernels  # noqa: E402

# float64 is for the interpreter alone
DEVICE, DTYPE, CLOSE = ("cpu", torch.float64, 1e-12) if library.interpreted() else ("cuda", torch.float32, 2e-5)
ROWS, N_IN, N_OUT, GRID = 11, 3, 5, 4


@pytest.fixture(params=["dense", "fused", "sparse"])
def way(request, monkeypatch):
    monkeypatch.setattr(kernels, "way", lambda given: request.param)
    return request.param


def layer_of(order, even, n_in=N_IN, n_out=N_OUT, grid=GRID, **options):
    return layer_with(order, even, n_in, n_out, grid, backend="triton", **options).to(DEVICE, DTYPE)


def given_of(layer, rows=ROWS):
    weights = (None if w is None else w.detach() for w in (layer.base_weight, layer.spline_weight, layer.spline_scale))
    return Given(layer.spec, inputs(layer, rows).to(DEVICE), layer.cells, Weights(*weights))


def run(given, gy):
    return kernels.forward(given), *kernels.backward(given, gy, True, True)


def assert_close(found, expected, close=CLOSE):
    for got, truth in zip(found, expected):
        assert (got is None) == (truth is None)
        if truth is not None:
            truth = truth.to(got)
            assert got.shape == truth.shape
            assert (got - truth).abs().max() <= close * truth.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize("order, even, outside", list(product((1, 2, 3, 4, 5), (True, False), OUTSIDE)))
def test_values_and_all_gradients_equal_scipy(way, order, even, outside):
    layer = layer_of(order, even, outside=outside)
    given, gy = given_of(layer), normal(ROWS, N_OUT).to(DEVICE, DTYPE)
    x, cotangent = given.x.double().cpu(), gy.double().cpu()
    base, weight, scale = (w.double().cpu() for w in given.w)
    values, slopes = (
        torch.tensor(
            np.stack([scipy_splines(layer.knots[i].cpu().numpy(), order, x[:, i].numpy(), k, outside)
                      for i in range(N_IN)], 1)
        )
        for k in (0, 1)
    )  # fmt: skip
    s, scaled = torch.sigmoid(x), weight * scale[:, None]
    of_scaled = torch.einsum("nim,no->imo", values, cotangent)
    gx = s * (1 + x * (1 - s)) * (cotangent @ base.T) + torch.einsum("nim,imo,no->ni", slopes, scaled, cotangent)
    truth = (
        (x * s) @ base + torch.einsum("nim,imo->no", values, scaled),
        gx,
        (x * s).T @ cotangent,
        of_scaled * scale[:, None],
        (of_scaled * weight).sum(1),
    )
    assert_close(run(given, gy), truth)


@pytest.mark.parametrize("order, even, outside", [(3, True, "linear"), (2, False, "zero"), (1, True, "clamp")])
def test_second_derivatives_equal_the_composite(way, order, even, outside):
    layer = layer_of(order, even, outside=outside)
    call, values = as_function(layer)
    x = inputs(layer, 5).to(DEVICE).requires_grad_()

    def composite(x, base, weight, scale):
        return spline_op.composite(layer.spec, x, layer.cells, base, weight, scale)

    found = []
    for one in (call, composite):
        cotangent = normal(5, N_OUT, seed=1).to(x).detach().requires_grad_()
        grads = gradient(one, cotangent, x, *values)
        along = [normal(*g.shape, seed=2 + k).to(x) for k, g in enumerate(grads)]
        found.append(torch.autograd.grad(grads, (cotangent, x, *values), along))
    assert_close(*found, 5 * CLOSE)


@pytest.mark.parametrize("scale, base", [(True, "gelu"), (False, "tanh"), (True, None), (False, "relu")])
def test_every_choice_of_weights_equals_plain_pytorch(way, scale, base):
    layer = layer_of(3, True, spline_scale=scale, base_activation=base)
    given, gy = given_of(layer), normal(ROWS, N_OUT).to(DEVICE, DTYPE)
    close = CLOSE if base in (None, "relu") else max(CLOSE, 1e-7)  # in float32 at most they are needed
    assert_close(run(given, gy), (plain.forward(given), *plain.backward(given, gy, True, True)), close)


@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_narrow_types_lose_no_more_than_their_rounding(way, dtype, close):
    layer = layer_with(3, False, N_IN, N_OUT, GRID, backend="triton").to(DEVICE, dtype)
    given, gy = given_of(layer), normal(ROWS, N_OUT).to(DEVICE, dtype)
    exact = Given(given.spec, given.x.double(), given.cells.double(), Weights(*(w.double() for w in given.w)))
    expected = plain.forward(exact), *plain.backward(exact, gy.double(), True, True)
    for got, truth in zip(run(given, gy), expected):
        assert got.dtype == dtype
        assert (got.double() - truth).norm() <= close * truth.norm()


@pytest.mark.parametrize("even", [True, False])
def test_nan_stays_in_its_row_and_infinity_makes_none(way, even):
    given = given_of(layer_of(2, even, base_activation=None))
    x = given.x.clone()
    x[3, 1], x[5, 0], x[6, 2] = float("nan"), float("inf"), -float("inf")
    given = given._replace(x=x)
    y, gx, *_ = run(given, normal(ROWS, N_OUT).to(DEVICE, DTYPE))
    assert y.isnan().all(1).tolist() == [n == 3 for n in range(ROWS)]
    assert y[[n for n in range(ROWS) if n != 3]].isfinite().all()
    assert gx[3, 1].isnan() and gx[[5, 6]].isfinite().all()


def test_knots_belong_to_the_interval_on_their_right_but_the_last(way):
    layer = SplineKAN(1, 1, 4, 1, base_activation=None, backend="triton").to(DEVICE, DTYPE)
    knots = layer.knots[0, 1:6].to(DTYPE)
    beside = knots + 1e-6 * torch.tensor([1, 1, 1, 1, -1], device=DEVICE)
    gy = torch.ones(5, 1, device=DEVICE, dtype=DTYPE)
    slopes = [run(given_of(layer)._replace(x=at[:, None]), gy)[1] for at in (knots, beside)]
    assert_close(slopes[:1], slopes[1:], 1e-5)


def test_more_rows_than_a_block_has_and_what_is_not_needed(way, monkeypatch):
    given, gy = given_of(layer_of(3, True)), normal(ROWS, N_OUT).to(DEVICE, DTYPE)
    whole = run(given, gy)
    monkeypatch.setattr(kernels, "BLOCK", 100)
    assert_close(run(given, gy), whole)
    alone = kernels.backward(given, gy, True, False)
    assert_close(alone[:1], whole[1:2])
    assert alone[1:] == (None, None, None)
    of_weights = kernels.backward(given, gy, False, True)
    assert of_weights[0] is None
    assert_close(of_weights[1:], whole[2:])


def made(kind):
    if kind == "rswaf":
        return draw_weights(RSWAFKAN(N_IN, N_OUT, GRID, backend="triton")).to(DEVICE)
    return layer_with(3, True, N_IN, N_OUT, GRID, dtype=torch.float32, backend="triton").to(DEVICE)


@pytest.mark.parametrize("kind", ["spline", "rswaf"])
def test_the_layer_keeps_its_input_alone_and_works_compiled_under_autocast_torch_func_and_ddp(kind, saved_bytes):
    layer = made(kind)
    x = (1.5 * normal(4, N_IN, seed=7, dtype=torch.float32)).to(DEVICE).requires_grad_()
    kept, y = saved_bytes(layer, x)
    assert kept == 4 * x.numel()
    call, values = as_function(layer)
    expected = torch.autograd.grad(y.square().sum(), (x, *values))
    found = torch.func.grad(lambda *tensors: call(*tensors).square().sum(), tuple(range(1 + len(values))))(x, *values)
    assert_close(found, expected, 1e-5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(x).square().sum(), (x, *values)), expected, 1e-5)
    with torch.autocast(DEVICE, torch.bfloat16):
        narrow = layer(x)
    assert narrow.dtype == torch.bfloat16
    assert_close([narrow], [y], 3e-2)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        DistributedDataParallel(layer)(x).square().sum().backward()
    finally:
        dist.destroy_process_group()
    assert_close((x.grad, *(p.grad for p in layer.parameters())), expected, 1e-5)


@pytest.mark.parametrize(
    "norm, dtype, close", [(True, DTYPE, CLOSE), (False, DTYPE, CLOSE), (True, torch.bfloat16, 3e-2)]
)
def test_rswaf_values_and_all_gradients_equal_the_composite(norm, dtype, close, monkeypatch):
    layer = draw_weights(RSWAFKAN(N_IN, N_OUT, 4, layer_norm=norm, backend="triton")).to(DEVICE, dtype)
    x = (3 * normal(ROWS, N_IN)).to(DEVICE, dtype).requires_grad_()
    cotangent, values = normal(ROWS, N_OUT).to(DEVICE, dtype), list(layer.parameters())
    own = layer(x)
    found = own, *torch.autograd.grad(own, (x, *values), cotangent)
    exact, at = layer.double(), x.detach().double().requires_grad_()
    monkeypatch.setattr(rswaf, "apply", lambda spec, tensors: rswaf.composite(spec, *tensors))
    truth = exact(at)
    expected = truth, *torch.autograd.grad(truth, (at, *exact.parameters()), cotangent.double())
    for got, right in zip(found, expected):
        assert got.dtype == dtype and (got.double() - right).norm() <= 5 * close * right.norm()


@pytest.mark.parametrize("learn, shape", [(False, {"padding": 1, "bias": True}), (True, {"groups": 2, "stride": 2})])
def test_a_convolution_over_patches_equals_pytorchs(learn, shape):
    found, x = [], normal(2, 2, 4, 5).to(DEVICE, DTYPE).requires_grad_()
    for own in ("triton", "torch"):
        layer = draw_weights(KANConv2d(2, 4, 2, grid=GRID, backend=own, learnable_knots=learn, **shape))
        layer = layer.to(DEVICE, DTYPE)
        y = layer(x)
        found.append((y, *torch.autograd.grad(y, (x, *layer.parameters()), normal(*y.shape, seed=1).to(y))))
    assert_close(*found, 1e-10 if DTYPE == torch.float64 else 10 * CLOSE)


def test_more_inputs_than_programs_along_an_axis_are_computed_otherwise():
    layer = SplineKAN(1, 1, 600, 3)
    given = Given(layer.spec, torch.zeros(1, 1), layer.cells, Weights(None, layer.spline_weight, None))
    assert kernels.way(given) == "sparse"
    assert kernels.way(given._replace(x=torch.empty(1, 70_000, device="meta"))) != "sparse"


def test_rswaf_keeps_its_digits_in_the_tails():
    layer = RSWAFKAN(1, 1, 1, (0.0, 1.0), layer_norm=False, backend="triton").to(DEVICE, torch.float32)
    with torch.no_grad():
        layer.spline_weight.fill_(1.0)
    x = torch.linspace(-6, 6, 40, device=DEVICE)[:, None]
    truth = torch.cosh(x.double() / layer.denominator) ** -2
    # the interpreter's fused product and sum rounds twice, so that it cannot make good an exponent's rounding
    assert ((layer(x).double() - truth) / truth).abs().max() < (5e-6 if library.interpreted() else 2e-6)


def test_what_cannot_run_is_refused_in_one_line_or_left_to_pytorch(monkeypatch):
    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"backend 'triton' cannot run this layer .*orders 1 to 5, or backend 'auto'"):
        SplineKAN(2, 2, 3, 6, backend="triton")(x)
    monkeypatch.setattr(library, "available", lambda: False)
    with pytest.raises(ValueError, match="backend 'triton' cannot run this layer"):
        SplineKAN(2, 2, backend="triton")(x)
