"""LayerNorm is PyTorch's to the bit, and its gradient's gradient equals autograd's through PyTorch's own."""

import copy

import pytest
import torch
from support.spline_layers import as_function, draw_weights, normal
from torch import nn
from torch.func import grad

from kansciml.layers import layer_norm
from kansciml.layers.layer_norm import LayerNorm

F64 = torch.float64


def pair(width=5, bias=True):
    """Ours and PyTorch's with the same weights drawn."""
    return tuple(draw_weights(make(width, bias=bias, dtype=F64)) for make in (LayerNorm, nn.LayerNorm))


def inputs(*shape, dtype=F64, seed=1):
    return normal(*shape, seed=seed, dtype=dtype).requires_grad_()


def rounded(*shape, seed, dtype):
    """The same numbers in float32 and in float64."""
    return normal(*shape, seed=seed, dtype=torch.float32).to(dtype).requires_grad_()


def both_orders(layer, x, pick=(0, 1, 2)):
    """Output, gradients, and the gradients of <h, gradients picked> with respect to cotangent, x and weights."""
    y = layer(x)
    cotangent, targets = rounded(*y.shape, seed=2, dtype=x.dtype), (x, *layer.parameters())
    grads = torch.autograd.grad(y, targets, cotangent, create_graph=True)
    pick = [k for k in pick if k < len(grads)]
    along = [rounded(*grads[k].shape, seed=3 + k, dtype=x.dtype).detach() for k in pick]
    second = torch.autograd.grad(
        [grads[k] for k in pick], (cotangent, *targets), along, allow_unused=True, materialize_grads=True
    )
    return [y, *grads], second


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (5,), (0, 5)])
def test_values_and_gradients_are_pytorchs_to_the_bit_and_second_ones_to_rounding(shape, bias):
    ours, theirs = pair(bias=bias)
    found, expected = (both_orders(layer, inputs(*shape)) for layer in (ours, theirs))
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0]))
    for a, b in zip(found[1], expected[1]):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("pick", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_directions_in_which_not_everything_varies(pick):
    found, expected = (both_orders(layer, inputs(7, 5), pick)[1] for layer in pair())
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_any_order_of_axes_in_memory():
    x = normal(3, 5, 7, seed=1).transpose(1, 2).requires_grad_()
    found, expected = (both_orders(layer, x)[1] for layer in pair())
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_graph_that_serves_twice_gives_the_same_twice():
    layer, x = pair()[0], inputs(7, 5)
    cotangent = inputs(7, 5, seed=2)
    grads = torch.autograd.grad(layer(x), (x, *layer.parameters()), cotangent, create_graph=True)
    targets = (cotangent, x, layer.weight)
    once, again = (
        torch.autograd.grad(grads, targets, [torch.ones_like(g) for g in grads], retain_graph=True) for _ in "ab"
    )
    fresh = torch.autograd.grad(grads, targets, [torch.ones_like(g) for g in grads])
    for a, b, c in zip(once, again, fresh):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)


def test_second_and_third_derivatives_by_finite_differences():
    ours, _ = pair(4)
    call, values = as_function(ours)
    x = inputs(3, 4)
    assert torch.autograd.gradgradcheck(call, (x, *values))

    def slope(x):
        return torch.autograd.grad(call(x, *values).pow(2).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, (x,))


def test_the_closed_form_runs_only_where_a_gradient_is_differentiated(monkeypatch):
    calls = []
    original = layer_norm.double_backward
    monkeypatch.setattr(layer_norm, "double_backward", lambda *a: calls.append(1) or original(*a))
    ours, _ = pair()
    x = inputs(3, 5)
    ours(x).sum().backward()
    assert not calls
    both_orders(ours, x)
    assert calls == [1]


def test_float32_loses_no_more_than_its_rounding():
    single = pair(64)[0].float()
    exact = copy.deepcopy(single).double()
    x = inputs(50, 64, dtype=torch.float32)
    found, truth = both_orders(single, x)[1], both_orders(exact, x.detach().double().requires_grad_())[1]
    for a, b in zip(found, truth):
        assert a.dtype == torch.float32 and (a - b).norm() <= 2e-5 * b.norm() + 1e-6


@pytest.mark.parametrize(
    "layer",
    [LayerNorm((3, 5)), LayerNorm(5, elementwise_affine=False), LayerNorm(5).bfloat16()],
    ids=["two axes", "no weight", "bfloat16"],
)
def test_elsewhere_it_is_pytorchs(layer):
    x = normal(2, 3, 5, dtype=torch.float32 if layer.weight is None else layer.weight.dtype)
    expected = nn.functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
    assert torch.equal(layer(x), expected)


def test_transforms_and_vectorised_hessians():
    ours, theirs = pair()
    x = inputs(5).detach()

    def loss(layer):
        return lambda x: layer(x).pow(3).sum()

    torch.testing.assert_close(grad(loss(ours))(x), grad(loss(theirs))(x))
    found, expected = (
        torch.autograd.functional.hessian(loss(layer), x, vectorize=vectorize)
        for layer, vectorize in ((ours, True), (theirs, False))
    )
    torch.testing.assert_close(found, expected)
