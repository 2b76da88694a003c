"""KAN layers on a CUDA device: the CPU's numbers, no waiting for the device, graphs, compiled, to the bit again."""

import pytest
import torch
from support.spline_layers import draw_weights, normal

from kansciml import RSWAFKAN, SplineKAN
from kansciml.layers._kernels._triton import library

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SHAPES = ((64, 64, 256), (100, 300, 777), (256, 256, 4096))
KINDS = {
    "torch": lambda i, o: SplineKAN(i, o, backend="torch"),
    "triton": lambda i, o: SplineKAN(i, o, backend="triton"),
    "fine": lambda i, o: SplineKAN(i, o, 120, backend="triton"),
    "uneven": lambda i, o: SplineKAN(i, o, backend="triton", outside="linear"),
    "rswaf": lambda i, o: RSWAFKAN(i, o),
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def made(kind, n_in=64, n_out=64, rows=256, dtype=torch.float32):
    if "triton" in kind and not library.available():
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
    found = both(layer.cuda(), x.cuda())
    expected = both(layer.cpu().double(), x.double())
    for got, truth in zip(found, expected):
        assert got.dtype == dtype and (got.double().cpu() - truth).norm() <= close * truth.norm()


@EVERY
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


@EVERY
def test_it_keeps_its_input_alone_also_compiled(kind, saved_bytes):
    layer, x = made(kind)
    layer, x = layer.cuda(), x.cuda().requires_grad_()
    for call in (layer, torch.compile(layer, fullgraph=True)):
        kept, y = saved_bytes(layer, x, call)
        assert kept == 4 * x.numel()
        torch.testing.assert_close(y, layer(x))


@pytest.mark.parametrize("kind", ["torch", "triton", "uneven"])
def test_hessian_vector_products_are_those_of_a_cpu(kind):
    layer, x = made(kind, 20, 30, 50)
    found = []
    for device, dtype in (("cuda", torch.float32), ("cpu", torch.float64)):
        own = layer.to(device, dtype)
        parameters = list(own.parameters())
        grads = torch.autograd.grad(own(x.to(device, dtype)).square().mean(), parameters, create_graph=True)
        along = [normal(*p.shape, seed=1).to(p) for p in parameters]
        found.append(torch.autograd.grad(grads, parameters, along))
    for got, truth in zip(*found):
        assert (got.double().cpu() - truth).norm() <= 1e-4 * truth.norm()
