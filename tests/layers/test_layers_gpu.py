"""KAN layers on a CUDA device: the CPU's numbers, no waiting for the device, graphs, compiled, to the bit again."""

import pytest
import torch
import torch.distributed as dist
from support.device import DEVICE, GPU, NOT_REHEARSED, REHEARSED, relative
from support.spline_layers import as_function, draw_weights, normal
from torch.nn.parallel import DistributedDataParallel

from kansciml import RSWAFKAN, KANConv2d, SplineKAN
from kansciml.layers._kernels._triton import library

pytestmark = GPU
SHAPES = ((3, 2, 5),) if REHEARSED else ((64, 64, 256), (100, 300, 777), (256, 256, 4096))
KINDS = {
    "torch": lambda i, o: SplineKAN(i, o, backend="torch"),
    "triton": lambda i, o: SplineKAN(i, o, backend="triton"),
    "fine": lambda i, o: SplineKAN(i, o, 120, backend="triton"),
    "uneven": lambda i, o: SplineKAN(i, o, backend="triton", outside="linear"),
    "learned": lambda i, o: SplineKAN(i, o, backend="triton", learnable_knots=True),
    "rswaf": lambda i, o: RSWAFKAN(i, o),
    "rswaf-triton": lambda i, o: RSWAFKAN(i, o, backend="triton"),
    "gauss": lambda i, o: RSWAFKAN(i, o, bump="gauss", denominator=0.6, base_activation="silu"),
}
CONVOLUTIONS = {
    "torch": {},
    "triton": {"backend": "triton"},
    "depthwise": {"groups": 8},
    "learned": {"backend": "triton", "groups": 2, "learnable_knots": True},
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def made(kind, n_in=SHAPES[0][0], n_out=SHAPES[0][1], rows=SHAPES[0][2], dtype=torch.float32):
    if KINDS[kind](1, 1).backend == "triton" and not library.available():
        pytest.skip("Triton is not installed")
    layer = draw_weights(KINDS[kind](n_in, n_out))
    if kind == "uneven":
        layer.update_grid(normal(1000, n_in), blend=0.0)
    return layer.to(dtype), (0.5 * normal(rows, n_in)).to(dtype)


def both(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    return y.detach(), *torch.autograd.grad(y, (x, *layer.parameters()), torch.ones_like(y))


@EVERY
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, close", [(torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_values_and_gradients_are_those_of_float64_on_a_cpu(kind, shape, dtype, close):
    layer, x = made(kind, *shape, dtype=dtype)
    found = both(layer.to(DEVICE), x.to(DEVICE))
    expected = both(layer.cpu().double(), x.double())
    for got, truth in zip(found, expected):
        assert got.dtype == dtype and relative(got, truth) <= close


@EVERY
@NOT_REHEARSED
def test_nothing_waits_for_the_device_and_sums_are_the_same_to_the_bit(kind):
    layer, x = made(kind)
    layer, x = layer.cuda(), x.cuda()
    first = both(layer, x)  # looks at the knots
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = both(layer, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(first, again))


@EVERY
@NOT_REHEARSED
def test_a_training_step_can_be_captured_as_a_graph(kind):
    layer, x = made(kind)
    layer, x = layer.cuda(), x.cuda().requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            layer(x).sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    layer.zero_grad()
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
        y.sum().backward()
    with torch.no_grad():
        x.copy_(normal(*x.shape, seed=3, dtype=torch.float32))
    graph.replay()
    torch.testing.assert_close(y.detach(), layer(x.detach()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "learned"])
def test_it_keeps_its_input_alone_also_compiled(kind, saved_bytes):
    layer, x = made(kind)
    layer, x = layer.to(DEVICE), x.to(DEVICE).requires_grad_()
    compiler = "aot_eager" if REHEARSED else "inductor"
    for call in (layer, torch.compile(layer, fullgraph=True, backend=compiler)):
        kept, y = saved_bytes(layer, x, call)
        assert kept == 4 * x.numel()
        values = x, *layer.parameters()
        found, expected = (torch.autograd.grad(one.square().sum(), values) for one in (y, layer(x)))
        assert max(map(relative, (y, *found), (layer(x), *expected))) < 1e-5


@EVERY
def test_autocast_runs_in_bfloat16_and_gives_float32_gradients(kind):
    layer, x = made(kind)
    layer, x = layer.to(DEVICE), x.to(DEVICE).requires_grad_()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and relative(y, layer(x)) < 0.02
    grads = torch.autograd.grad(y.float().sum(), (x, *layer.parameters()))
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)


@EVERY
def test_transforms_give_autograds_numbers(kind):
    layer, x = made(kind)
    call, values = as_function(layer.to(DEVICE))
    x = x.to(DEVICE).requires_grad_()

    def loss(*tensors):
        return call(*tensors).square().mean()

    found = torch.func.grad(loss, tuple(range(1 + len(values))))(x, *values)
    expected = torch.autograd.grad(loss(x, *values), (x, *values))
    assert max(map(relative, found, expected)) < 1e-4
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: call(row, *values)))(x.detach()[:3])
    assert jacobians.shape == (3, layer.out_features, layer.in_features)
    assert relative(jacobians.sum(1), torch.autograd.grad(layer(x)[:3].sum(), x)[0][:3]) < 1e-4


@EVERY
def test_wrapped_for_several_processes_it_has_the_same_gradients(kind):
    layer, x = made(kind)
    layer, x = layer.to(DEVICE), x.to(DEVICE)
    expected = [grad.clone() for grad in both(layer, x)[2:]]
    dist.init_process_group("gloo" if REHEARSED else "nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(layer)
        wrapped(x).sum().backward()
    finally:
        dist.destroy_process_group()
    assert max(relative(p.grad, e) for p, e in zip(layer.parameters(), expected)) < 1e-6


def test_a_convolution_is_that_of_a_cpu():
    layer = draw_weights(KANConv2d(3, 4, 3, padding=1, bias=True))
    x = 0.5 * normal(2, 3, 9, 8, dtype=torch.float32)
    found = both(layer.to(DEVICE), x.to(DEVICE))
    expected = both(layer.cpu().double(), x.double())
    assert max(map(relative, found, expected)) < 2e-5


@pytest.mark.parametrize("kind", ["torch", "triton", "uneven", "rswaf", "rswaf-triton"])
def test_hessian_vector_products_are_those_of_a_cpu(kind):
    layer, x = made(kind, *(SHAPES[0] if REHEARSED else (20, 30, 50)))
    found = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        own = layer.to(device, dtype)
        parameters = list(own.parameters())
        grads = torch.autograd.grad(own(x.to(device, dtype)).square().mean(), parameters, create_graph=True)
        along = [normal(*p.shape, seed=1).to(p) for p in parameters]
        found.append(torch.autograd.grad(grads, parameters, along))
    for got, truth in zip(*found):
        assert relative(got, truth) <= 1e-4


def made_convolution(kind, dtype=torch.float32):
    if CONVOLUTIONS[kind].get("backend") == "triton" and not library.available():
        pytest.skip("Triton is not installed")
    layer = draw_weights(KANConv2d(8, 16, 3, padding=1, bias=True, outside="linear", **CONVOLUTIONS[kind]))
    size = (1, 8, 4, 3) if REHEARSED else (4, 8, 14, 10)
    return layer.to(dtype), (0.5 * normal(*size)).to(dtype)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("dtype, close", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_a_convolution_gives_the_numbers_of_float64_on_a_cpu(kind, dtype, close):
    layer, x = made_convolution(kind, dtype)
    found = both(layer.to(DEVICE), x.to(DEVICE))
    layer.backend = "torch"
    expected = both(layer.cpu().double(), x.double())
    for got, truth in zip(found, expected):
        assert got.dtype == dtype and relative(got, truth) <= close


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@NOT_REHEARSED
def test_a_convolution_and_what_is_learned_of_knots_and_edges_wait_for_nothing(kind):
    layer, x = made_convolution(kind)
    layer, x = layer.cuda(), x.cuda()
    both(layer, x)  # looks at knots that are constant
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = both(layer, x)
        layer.regularisation(x=x).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(t.isfinite().all() for t in again)
