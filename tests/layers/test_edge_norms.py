"""Sizes of edges over data: the mean magnitude, block by block, differentiable; penalties and pruning by it."""

import copy

import pytest
import torch
from support.spline_layers import draw_weights, layer_with, normal
from torch.nn import functional as F

from kansciml import KAN, KANConv2d
from kansciml.layers._kernels import edges
from kansciml.layers.prune import node_scores, prune_edges, prune_nodes
from kansciml.layers.regularisation import penalty


def network(*widths):
    net = KAN(widths, dtype=torch.float64)
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
