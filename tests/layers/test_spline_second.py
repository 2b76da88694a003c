"""Second derivatives of SplineKAN: closed forms against finite differences, the composite and SciPy."""

import copy
from itertools import product

import pytest
import torch
from support.spline_layers import BACKENDS, as_function, gradient, inputs, layer_with, normal, relative
from torch.func import grad

from kansciml import SplineKAN
from kansciml.layers._kernels import cpp, cpp_library, spline_op
from kansciml.layers._kernels.activations import ACTIVATIONS, curvature
from kansciml.layers.bspline import OUTSIDE

ORDERS = (1, 2, 3, 4, 5)
cpp_only = pytest.mark.skipif(not cpp_library.available(), reason="C++ kernels are not built here")


def composite_call(layer):
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *values):
        own = dict(zip(names, values))
        tensors = (own.get("base_weight"), own["spline_weight"], own.get("spline_scale"))
        y = spline_op.composite(layer.spec, x, layer.cells, *tensors)
        return y + own["bias"] if "bias" in own else y

    return call


def double_gradients(call, x, values):
    """Gradients of <h, gradient> with respect to the cotangent, x and the weights, at h drawn."""
    y = call(x, *values)
    cotangent = normal(*y.shape, seed=1, dtype=y.dtype).requires_grad_()
    grads = gradient(call, cotangent, x, *values)
    along = [normal(*g.shape, seed=2 + k, dtype=g.dtype) for k, g in enumerate(grads)]
    return torch.autograd.grad(grads, (cotangent, x, *values), along, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order, even, outside", list(product(ORDERS, (True, False), OUTSIDE)))
def test_gradgradcheck_in_every_order_and_policy(order, even, outside, backend):
    layer = layer_with(order, even, outside=outside, bias=True, backend=backend)
    call, values = as_function(layer)
    x = torch.tensor([[0.11, -0.52], [1.73, 0.37], [-1.91, 0.08]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(call, (x, *values))


def assert_equals_composite(layer, rows):
    call, values = as_function(layer)
    x = inputs(layer, rows).requires_grad_()
    found, expected = (double_gradients(one, x, values) for one in (call, composite_call(layer)))
    for got, truth in zip(found, expected):
        assert (got - truth).abs().max() <= 1e-11 * truth.abs().max().clamp(min=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale, base, bias", list(product((True, False), ("gelu", "relu", None), (True, False))))
def test_every_choice_of_weights_equals_the_composite(scale, base, bias, backend):
    options = {"spline_scale": scale, "base_activation": base, "bias": bias}
    assert_equals_composite(layer_with(3, True, 7, 5, 4, outside="linear", backend=backend, **options), 40)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order, even, outside", list(product((0, 1, 3, 4, 6), (True, False), OUTSIDE)))
def test_many_rows_and_blocks_equal_the_composite(order, even, outside, backend):
    layer = layer_with(order, even, 5, 19, outside=outside, backend=backend)
    assert_equals_composite(layer, 1100)  # more rows than a block has


@cpp_only
@pytest.mark.parametrize("sparse", [True, False])
def test_both_ways_of_the_cpp_kernels_equal_the_composite(sparse, monkeypatch):
    monkeypatch.setattr(cpp, "prefer_sparse", lambda spec: sparse)
    assert_equals_composite(layer_with(3, True, 5, 19, backend="cpp"), 1100)


@cpp_only
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("n_out, scale", list(product((1, 16, 40, 70), (True, False))))
def test_every_width_and_any_number_of_threads_equal_the_composite(n_out, scale, dtype, close):
    layer = layer_with(3, True, 9, n_out, 6, spline_scale=scale, backend="cpp").to(dtype)
    call, values = as_function(layer)
    x = inputs(layer, 1100).requires_grad_()
    found = []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            found.append(double_gradients(call, x, values))
    finally:
        torch.set_num_threads(1)
    expected = double_gradients(composite_call(layer), x, values)
    for one in found:
        assert relative(one, expected) < close
    assert all(torch.equal(a, b) for a, b in zip(found[1], found[2]))  # the order of sums is fixed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order, even", list(product((2, 3, 5), (True, False))))
def test_float32_loses_no_more_than_its_rounding(order, even, backend):
    single = layer_with(order, even, 6, 4, 5, backend=backend).float()
    exact, results = copy.deepcopy(single).double(), []
    for layer in (exact, single):
        call, values = as_function(layer)
        x = inputs(single).to(layer.spline_weight.dtype).requires_grad_()
        results.append(double_gradients(call, x, values))
    for truth, got in zip(*results):
        assert got.dtype == torch.float32
        assert (got - truth).norm() <= (2e-5 if order > 2 else 2e-3) * truth.norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order, even, outside", list(product((2, 3), (True, False), OUTSIDE)))
def test_curvature_at_knots_is_that_on_the_right_and_at_the_end_that_on_the_left(order, even, outside, backend):
    layer = layer_with(order, even, 1, 1, 4, base_activation=None, outside=outside, backend=backend)
    knots = layer.knots[0, order : order + 5]

    def curvature(at):
        x = at[:, None].clone().requires_grad_()
        slope = torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0]
        return torch.autograd.grad(slope.sum(), x)[0]

    beside = knots + 1e-9
    beside[-1] = knots[-1] - 1e-9
    torch.testing.assert_close(curvature(knots), curvature(beside), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order, even", list(product((1, 2, 3), (True, False))))
def test_nan_stays_in_its_row(order, even, backend):
    layer = layer_with(order, even, 3, 4, backend=backend)
    call, values = as_function(layer)
    x = inputs(layer, 6)
    x[3, 1] = float("nan")
    y = call(x.requires_grad_(), *values)
    cotangent = torch.ones_like(y).requires_grad_()
    gx = torch.autograd.grad(y, x, cotangent, create_graph=True)[0]
    ggy, second = torch.autograd.grad(gx, (cotangent, x), torch.ones_like(x))
    clear = [0, 1, 2, 4, 5]
    assert ggy[clear].isfinite().all() and second[clear].isfinite().all()
    assert ggy[3].isnan().all() and second[3, 1].isnan()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_used_twice_and_a_cotangent_made_from_its_output(backend):
    # gy depends on x and on the weights, and x on the weights: nothing of that may be counted twice
    layer = layer_with(4, True, 3, 3, 4, backend=backend)
    call, values = as_function(layer)
    x = inputs(layer, 5)[2:]
    tangents = [normal(*v.shape, seed=k) for k, v in enumerate(values)]

    def loss(t):
        own = [v.detach() + t * tangent for v, tangent in zip(values, tangents)]
        return call(call(x, *own).tanh(), *own).square().sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found, of_loss = loss(t), loss
    for _ in range(3):
        found = torch.autograd.grad(found, t, create_graph=True)[0]
        of_loss = grad(of_loss)  # by the composite
        torch.testing.assert_close(found, of_loss(t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_third_derivatives(backend):
    layer = layer_with(4, True, 2, 2, 3, backend=backend)
    call, values = as_function(layer)
    x = inputs(layer, 4)[2:].requires_grad_()
    cotangent = torch.tensor([[0.3, -1.0], [0.7, 0.2]], dtype=torch.float64, requires_grad=True)

    def slopes(cotangent, x, *values):
        return gradient(call, cotangent, x, *values)

    arguments = (cotangent, x, *(v.detach().requires_grad_() for v in values))
    assert torch.autograd.gradgradcheck(slopes, arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_graph_of_a_gradient_keeps_arguments_alone(backend, saved_bytes):
    layer = SplineKAN(12, 8, backend=backend)
    x = normal(50, 12, dtype=torch.float32).requires_grad_()
    call, values = as_function(layer)
    cotangent = torch.ones(50, 8, requires_grad=True)
    kept, grads = saved_bytes(layer, x, lambda x: gradient(call, cotangent, x, *values))
    assert kept == 4 * (x.numel() + cotangent.numel())
    # and the same graph serves again and again
    along = [torch.ones_like(g) for g in grads]
    first, second = (torch.autograd.grad(grads, x, along, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows(backend):
    layer = layer_with(3, True, backend=backend)
    call, values = as_function(layer)
    x = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
    found = double_gradients(call, x, values)
    assert all(not g.any() for g in found) and found[1].shape == (0, 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivatives_of_activations_equal_autograd(name):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64).requires_grad_()
    slope = torch.autograd.grad(ACTIVATIONS[name](x).sum(), x, create_graph=True)[0]
    bends = slope.requires_grad and slope.grad_fn is not None and name not in ("relu", "identity")
    found = curvature(name, x)
    assert (found is not None) == bends
    if bends:
        torch.testing.assert_close(found, torch.autograd.grad(slope.sum(), x)[0], rtol=1e-12, atol=1e-12)
