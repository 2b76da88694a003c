"""What a graph of a spline layer's gradient keeps for many products: nothing changes but time and memory."""

import pytest
import torch
from support.spline_layers import BACKENDS, as_function, gradient, inputs, layer_with, normal, relative

from kansciml.layers._kernels import plain, spline_op

KEPT = "_get_current_graph_task_keep_graph"


def products(layer, rows, kept):
    """A gradient's graph, and products with two vectors: with one graph kept, or each with a graph of its own."""
    call, values = as_function(layer)
    x = inputs(layer, rows).requires_grad_()
    cotangent = torch.linspace(-1, 1, rows * layer.out_features, dtype=x.dtype).view(rows, -1).requires_grad_()
    found = []
    arguments = (cotangent, x, *values)
    grads = gradient(call, cotangent, x, *values)
    for k in range(2):
        along = [normal(*g.shape, seed=10 * k + i, dtype=g.dtype) for i, g in enumerate(grads)]
        found.append(torch.autograd.grad(grads, arguments, along, retain_graph=kept))
        if not kept:
            grads = gradient(call, cotangent, x, *values)
    return grads, found


WEIGHTS = [{}, {"spline_scale": False}, {"base_activation": None}]
CASES = [  # sizes of `layer_with`, options, rows, whether the layer keeps its splines
    *(((3, True, 5, 7, 6), options, rows, False)  # few rows: the weights' share is not kept
      for rows in (12, 300) for options in (*WEIGHTS, {"base_activation": "relu"}, {"outside": "linear"})),
    *(((3, even, 20, 7, grid), options, rows, True)  # one block of splines, and several
      for rows in (12, 1030) for even, grid in ((True, 6), (True, 20), (False, 6)) for options in WEIGHTS),
    *(((order, True, 5, 70, 8), {"base_activation": activation}, 600, True)
      for order in (0, 1, 2, 5) for activation in ("tanh", "relu")),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes, options, rows, keep", CASES)
def test_a_kept_graph_gives_the_same_products(sizes, options, rows, keep, backend):
    layer = layer_with(*sizes, backend=backend, **options)
    once_each = products(layer, rows, False)[1]
    layer.keep_basis = keep
    for again, once in zip(products(layer, rows, True)[1], once_each):
        assert relative(again, once) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_gradients_of_one_output_do_not_share_what_follows_from_their_cotangents(backend):
    layer = layer_with(3, True, 5, 7, 6, backend=backend)
    x = inputs(layer, 30).requires_grad_()
    targets = [x, *layer.parameters()]

    def both(kept):
        layer.keep_basis, found = kept, []
        y, ramp = layer(x), torch.linspace(-1, 1, 210, dtype=torch.float64).view(30, 7)
        grads = [torch.autograd.grad(y, targets, c.requires_grad_(), create_graph=True) for c in (ramp, ramp.square())]
        for which in (0, 1, 0, 1):
            along = [torch.ones_like(g) for g in grads[which]]
            found += torch.autograd.grad(grads[which], targets, along, retain_graph=True)
        return found

    assert relative(both(True), both(False)) < 1e-12


@pytest.mark.skipif(not hasattr(torch._C._autograd, KEPT), reason="this PyTorch does not tell whether a graph is kept")
def test_splines_are_evaluated_once_for_all_products_of_a_graph_that_keeps_them(monkeypatch):
    layer, evaluations = layer_with(3, True, 5, 7, 6, backend="torch"), []
    original = plain.Filler.__call__
    monkeypatch.setattr(plain.Filler, "__call__", lambda *a: evaluations.append(1) or original(*a))

    def count(kept):
        layer.keep_basis = kept
        grads, _ = products(layer, 20, True)
        evaluations.clear()
        torch.autograd.grad(grads, list(layer.parameters()), [torch.ones_like(g) for g in grads])
        return len(evaluations)

    assert count(True) == 0 < count(False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kept_graph_serves_directions_in_which_not_everything_varies(backend):
    layer = layer_with(3, True, 5, 7, 6, backend=backend)
    grads, _ = products(layer, 50, True)
    others, _ = products(layer, 50, False)
    targets = list(layer.parameters())
    for pick in ([0], [2], [0, 1], [0, 2], [0, 3]):
        along = [torch.ones_like(grads[k]) for k in pick]
        found = torch.autograd.grad([grads[k] for k in pick], targets, along, retain_graph=True, materialize_grads=True)
        fresh = torch.autograd.grad(
            [others[k] for k in pick], targets, along, retain_graph=True, materialize_grads=True
        )
        assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-11) for a, b in zip(found, fresh))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(not hasattr(torch._C._autograd, KEPT), reason="this PyTorch does not tell whether a graph is kept")
def test_what_a_kept_graph_holds_beside_its_arguments_is_no_more_than_they_are(monkeypatch, backend):
    layer = layer_with(3, True, 5, 7, 6, backend=backend)
    held = []
    run = spline_op.CPP if backend == "cpp" else spline_op.PLAIN

    def known(*arguments):
        held.append([list(t.shape) for t in run.known(*arguments) if t is not None])
        return run.known(*arguments)

    monkeypatch.setattr(spline_op, "CPP" if backend == "cpp" else "PLAIN", run._replace(known=known))
    products(layer, 300, False)
    assert held == []  # a graph that serves once pays nothing
    products(layer, 300, True)
    products(layer, 12, True)
    assert held == [[[300, 5], [5, 9, 7]], [[12, 5]]]  # once each, though there were two products
