"""Sizes of edges over data: the mean magnitude, block by block, differentiable; penalties and pruning by it."""

import copy

import pytest
import torch
from support.spline_layers import draw_weights, layer_with, normal
from torch.nn import functional as F

from kansciml import KAN, KANConv2d, SplineKAN
from kansciml.layers._kernels import edges
from kansciml.layers.prune import node_scores, prune_edges, prune_nodes
from kansciml.layers.regularisation import penalty


def network(*widths, **options):
    net = KAN(widths, dtype=torch.float64, **options)
    for layer in net.layers:
        draw_weights(layer)
    return net


def written_out(layer, x):
    weight = layer.spline_weight if layer.spline_scale is None else layer.spline_weight * layer.spline_scale[:, None]
    values = torch.einsum("nip,ipo->nio", layer.basis(x), weight)
    if layer.base_weight is not None:
        values = values + F.silu(x).unsqueeze(-1) * layer.base_weight
    return values.abs().mean(0)


@pytest.mark.parametrize("block", [None, 1, 100])
@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("options", [{}, {"spline_scale": False, "base_activation": None, "outside": "linear"}])
def test_norms_and_gradients_are_those_of_all_values_at_once(options, even, block, monkeypatch):
    if block:
        monkeypatch.setattr(edges, "BLOCK", {"cpu": block})
    layer, x = layer_with(3, even, 3, 4, **options), normal(11, 3).requires_grad_()
    norms, truth = layer.edge_norms(x), written_out(layer, x)
    torch.testing.assert_close(norms, truth)
    wanted, cotangent = (x, *layer.parameters()), normal(3, 4, seed=1)
    found, expected = (torch.autograd.grad(one, wanted, cotangent) for one in (norms, truth))
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(layer.edge_norms(x.reshape(1, 11, 3)), truth)


def test_second_derivatives_are_true_too_and_the_input_alone_is_kept(saved_bytes):
    layer, x = layer_with(3, True, 2, 3), normal(5, 2).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda x: layer.regularisation(0.5, 2.0, x), x, fast_mode=True)
    wide, x = layer_with(3, True, 8, 64, dtype=torch.float32), normal(2000, 8).float().requires_grad_()
    assert saved_bytes(wide, x, wide.edge_norms)[0] < 8 * x.numel()  # of 4 * 64 * x.numel() for all values


def test_backward_evaluates_anew_for_the_inputs_gradient_alone(monkeypatch):
    layer, x, calls, branches = layer_with(3, True, 2, 3), normal(5, 2), [], edges.branches
    monkeypatch.setattr(edges, "branches", lambda *given: calls.append(given[3:]) or branches(*given))
    layer.edge_norms(x).sum().backward()
    assert calls == [(0,)]
    layer.edge_norms(x.requires_grad_()).sum().backward()
    assert calls == [(0,)] * 2 + [(0, 1)]


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_of_many_cotangents_at_once_and_of_knots_are_those_of_all_values(learned):
    layer, x = layer_with(3, not learned, 2, 3, learnable_knots=learned), normal(5, 2).requires_grad_()
    wanted, cotangents = (x, *layer.parameters()), normal(4, 2, 3)
    found, truth = (
        torch.autograd.grad(one, wanted, cotangents, is_grads_batched=True)
        for one in (layer.edge_norms(x), written_out(layer, x))
    )
    torch.testing.assert_close(found, truth)


def test_a_norm_that_is_rounding_alone_is_not_negative():
    layer = layer_with(3, True, 40, 1, base_activation="identity", spline_scale=False)
    with torch.no_grad():  # x - x: the means of S knots are the coefficients of the spline x
        layer.base_weight.fill_(1.0)
        layer.spline_weight.copy_(-layer.knots[:, 1:-1].unfold(1, 3, 1).mean(2).unsqueeze(2))
    norms = layer.edge_norms(normal(9, 40).clamp(-1, 1))
    assert 0 <= norms.min() and norms.max() < 1e-12


def test_a_networks_penalty_is_over_what_reaches_each_layer_and_pulls_at_earlier_ones():
    net, x = network(2, 3, 2), normal(20, 2)
    hidden = net.layers[0](x)
    found = net.regularisation(0.5, 2.0, x)
    truth = penalty(written_out(net.layers[0], x), 0.5, 2.0) + penalty(written_out(net.layers[1], hidden), 0.5, 2.0)
    torch.testing.assert_close(found, truth)
    wanted = tuple(net.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, wanted), torch.autograd.grad(truth, wanted))


def test_pruning_by_data_sees_what_the_weights_do_not():
    net, x = network(2, 3, 1), 0.2 * normal(300, 2).clamp(-2, 2)
    first = net.layers[0]
    with torch.no_grad():  # large coefficients, all far from the data
        first.spline_weight[0, :, 1], first.base_weight[0, 1] = 0, 0
        first.spline_weight[0, -1, 1] = 50
    before = copy.deepcopy(net)
    assert first.edge_norms()[0, 1] > 1 and first.edge_norms(x)[0, 1] == 0
    truth = [written_out(layer, seen) for layer, seen in zip(net.layers, net.layer_inputs(x))]
    threshold = truth[0].flatten().sort().values[1].item() + 1e-9
    assert prune_edges(net, threshold, x) == sum(int((t < threshold).sum()) for t in truth) > 1
    assert not net.layers[0].edge_norms()[truth[0] < threshold].any()  # also where it was zero over the data alone
    assert prune_edges(net, threshold, x) == 0
    assert prune_edges(before, 1e-9) == 0
    scores = node_scores(before, x)[0]
    torch.testing.assert_close(scores, torch.minimum(truth[0].amax(0), truth[1].amax(1)))
    assert prune_nodes(before, scores.median().item(), x).widths == (2, 2, 1)


def mean(y, axis=-1):
    return y.detach().movedim(axis, -1).flatten(0, -2).mean(0)


@pytest.mark.parametrize(
    "kind, axis, sizes, shape", [(SplineKAN, -1, (2, 3), (20, 2)), (KANConv2d, -3, (2, 3, 2), (5, 2, 3, 3))]
)
def test_biases_take_up_what_pruned_edges_added_in_the_mean(kind, axis, sizes, shape):
    layer, x = draw_weights(kind(*sizes, bias=True, dtype=torch.float64)), normal(*shape)
    net, before = KAN.of_layers([layer]), layer(x)
    assert prune_edges(net, layer.edge_norms(x).median().item(), x) > 1
    assert (layer(x) - before).abs().max() > 0.1
    torch.testing.assert_close(mean(layer(x), axis), mean(before, axis))
    bias = layer.bias.clone()
    prune_edges(net, 1e9)  # of the weights alone no mean is known
    assert torch.equal(layer.bias, bias) and not layer.edge_norms().any()


def test_a_node_that_is_constant_leaves_the_network_as_it_was_where_there_are_biases():
    x, found = normal(20, 2), []
    for bias in (True, False):
        net = network(2, 3, 2, 1, bias=bias)
        with torch.no_grad():  # the incoming edges are zero, the outgoing ones not
            net.layers[0].spline_weight[..., 1], net.layers[0].base_weight[:, 1] = 0, 0
            net.layers[1].spline_weight[1] += 3
        small = prune_nodes(net, 1e-9, x)
        assert small.widths == (2, 2, 2, 1)
        found.append((small(x) - net(x)).abs().max().item())
    assert found[0] < 1e-12 and found[1] > 0.1


def test_a_convolutions_pixels_are_samples_of_its_channels():
    layer, x = draw_weights(KANConv2d(2, 3, 2, dtype=torch.float64)), normal(2, 2, 3, 4)
    values = layer.edge_norms(x)
    flat = x.movedim(1, -1).reshape(-1, 2)
    basis = torch.einsum("nip,ipt->nit", super(KANConv2d, layer).basis(flat), layer.spline_weight)
    whole = basis * layer.spline_scale + F.silu(flat).unsqueeze(-1) * layer.base_weight
    torch.testing.assert_close(values, whole.abs().mean(0))
    assert layer.regularisation(x=x).isfinite()


def test_what_takes_edges_between_nodes_refuses_convolutions_in_one_line():
    net, x = KAN.of_layers([KANConv2d(2, 4, 1), KANConv2d(4, 4, 1)]), torch.rand(3, 2, 4, 4)
    for call in (lambda: node_scores(net), lambda: prune_nodes(net, 0.1), lambda: net.plot(x), lambda: net.symbolic(x)):
        with pytest.raises(ValueError, match="got a network with KANConv2d layers: expected SplineKAN alone"):
            call()
    assert prune_edges(net, 1e9) == 2 * 4 + 4 * 4


def test_no_inputs_and_others_than_numbers_are_one_line():
    net, x = network(2, 3, 1), normal(5, 2)
    with pytest.raises(ValueError, match=r"got inputs of shape \(0, 2\): expected at least one row"):
        net.regularisation(x=x[:0])
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 2\)"):
        net.layers[0].edge_norms(normal(5, 3))
    x[1, 1] = float("nan")
    for call in (prune_edges, prune_nodes):
        with pytest.raises(ValueError, match="NaN or infinite"):
            call(net, 0.1, x)
    with torch.no_grad():
        net.layers[0].spline_weight[0, 0, 0] = float("nan")
    for call in (prune_edges, prune_nodes):
        with pytest.raises(ValueError, match="NaN or infinite"):
            call(net, 0.1)
