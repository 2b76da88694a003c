"""A change of grid loses nothing: the same parameters, frozen or not, train on with their optimiser, or are refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from kansciml import KAN, SplineKAN
from kansciml.layers.prune import prune_edges, prune_nodes
from kansciml.training.refinement import train_refined


def network(grid=5, **options):
    torch.manual_seed(0)
    return KAN((3, 4, 2), grid=grid, **options)


def draw(n=40):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1)) * 0.4


def loss_of(net):
    return (net(draw()) - draw().sum(1, keepdim=True)).square().mean()


def step(net, optimiser):
    def closure():
        optimiser.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    optimiser.step(closure)


def extended(net):
    net.extend_grid(10)


def loaded(net):
    net.load_state_dict(network(10).state_dict())


def loaded_coarse(net):
    net.load_state_dict(network(2).state_dict())


CHANGES = [extended, loaded, loaded_coarse]
OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "fused momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 0.1),
    "adam, all at once": lambda p: torch.optim.Adam(p, 0.1, foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, 0.1, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
    "l-bfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("optimiser", [name for name in OPTIMISERS if name != "adagrad"])  # it has moments at once
def test_an_optimiser_that_has_not_stepped_trains_on_as_one_made_afterwards(optimiser, change):
    make = OPTIMISERS[optimiser]
    net = network()
    early = make(net.parameters())
    parameters = list(net.parameters())
    kept = loss_of(net)  # as a loop keeps the last one
    change(net)
    assert all(a is b for a, b in zip(parameters, net.parameters())) and kept.isfinite()
    other = copy.deepcopy(net)
    late = make(other.parameters())
    for _ in range(3):
        step(net, early)
        step(other, late)
    for a, b in zip(net.parameters(), other.parameters()):
        assert torch.equal(a, b)
    assert loss_of(net) < loss_of(network())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("optimiser", [name for name in OPTIMISERS if name != "sgd"])
def test_an_optimiser_with_moments_of_the_old_shape_refuses_its_step_and_changes_nothing(optimiser, change):
    net = network()
    made = OPTIMISERS[optimiser](net.parameters())
    step(net, made)
    change(net)
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="make the optimiser anew"):
        step(net, made)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    step(net, OPTIMISERS[optimiser](net.parameters()))
    assert not torch.equal(net.layers[0].spline_weight, state["layers.0.spline_weight"])


def test_resuming_a_refined_network_with_its_optimiser_goes_on_to_the_bit():
    refined = network(10)
    theirs = torch.optim.Adam(refined.parameters(), 0.01)
    step(refined, theirs)
    net = network()
    ours = torch.optim.Adam(net.parameters(), 0.01)
    net.load_state_dict(refined.state_dict())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    step(refined, theirs)
    step(net, ours)
    torch.testing.assert_close(net.state_dict(), refined.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("change", CHANGES)
def test_hooks_stay_and_a_graph_of_the_old_grid_is_refused(change):
    net, seen = network(), []
    weight = net.layers[0].spline_weight
    weight.register_hook(lambda grad: seen.append(grad.shape))
    weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.shape))
    loss_of(net).backward()
    old = loss_of(net)
    change(net)
    assert weight.grad is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        old.backward()
    seen.clear()
    loss_of(net).backward()
    assert seen == [weight.shape] * 2 and weight is net.layers[0].spline_weight


@pytest.mark.parametrize("change", [*CHANGES, lambda net: net.update_grid(draw())])
def test_frozen_stays_frozen(change):
    net = network()
    net.layers[0].spline_weight.requires_grad_(False)
    net.layers[1].requires_grad_(False)
    before = [parameter.requires_grad for parameter in net.parameters()]
    change(net)
    assert [parameter.requires_grad for parameter in net.parameters()] == before
    assert [p.requires_grad for p in prune_nodes(net, 0).parameters()] == before


def test_a_refined_training_leaves_what_is_frozen():
    net = network(4)
    net.layers[0].requires_grad_(False)
    frozen, parameters = copy.deepcopy(net.layers[0]), list(net.parameters())
    make = lambda p: torch.optim.Adam(p, 0.05, weight_decay=0.1)  # noqa: E731
    stages = train_refined(net, lambda: loss_of(net), (4, 8), 20, make)
    assert stages[1].end < stages[0].end < stages[0].start
    frozen.extend_grid(8)
    torch.testing.assert_close(net.layers[0].state_dict(), frozen.state_dict())
    assert all(a is b for a, b in zip(parameters, net.parameters()))


def test_a_state_that_does_not_fit_leaves_the_layer_whole():
    net = network()
    state = copy.deepcopy(net.state_dict())
    wide = KAN((3, 5, 2), grid=10)
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict(wide.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items() if ".0." in name)
    assert net(draw()).isfinite().all()


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


WAYS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": nn.utils.weight_norm,
    "pruning": lambda layer, name: prune.l1_unstructured(layer, name, 0.3),
    "own": lambda layer, name: nn.utils.parametrize.register_parametrization(layer, name, Doubled()),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", WAYS)
def test_weights_made_from_others_are_written_to_nowhere(way):
    net = network()
    WAYS[way](net.layers[1], "spline_weight")
    net.eval()(draw())
    state = copy.deepcopy(net.state_dict())
    for change in (
        lambda: net.update_grid(draw()),
        lambda: net.extend_grid(10),
        lambda: net.layers[1].update_grid(torch.randn(30, 4)),
        lambda: train_refined(net, lambda: loss_of(net), (5, 10)),
        lambda: prune_edges(net, 1e9),
        lambda: net.layers[1].reset_parameters(),
    ):
        with pytest.raises(ValueError, match="got spline_weight that is made from other parameters"):
            change()
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    torch.testing.assert_close(prune_nodes(net, 0)(draw()), net(draw()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", WAYS)
def test_a_grid_moves_under_scales_made_from_others(way):
    layer = SplineKAN(3, 4, grid=20)
    WAYS[way](layer, "spline_scale")
    before = layer.eval()(draw()).detach()
    error = layer.update_grid(draw())
    assert 0 < (layer(draw()) - before).abs().max() < 3 * error.max_abs + 1e-6
    assert not layer.spec.uniform


def test_layers_that_share_their_coefficients_keep_them():
    net = KAN((3, 3, 3))
    net.layers[1].spline_weight = net.layers[0].spline_weight
    before = net(draw())
    for change in (lambda: net.update_grid(draw()), lambda: net.extend_grid(10)):
        with pytest.raises(ValueError, match="share spline_weight"):
            change()
    assert torch.equal(net(draw()), before)
    net.layers[0].extend_grid(10)  # on its own it cannot know
    with pytest.raises(ValueError, match=r"knots of shape \(3, 12\) and spline_weight of shape \(3, 13, 3\)"):
        net(draw())


def test_a_layer_keeps_its_dtype_and_device_and_single_optimiser():
    layer = SplineKAN(2, 2, dtype=torch.bfloat16)
    layer.extend_grid(10)
    assert layer.spline_weight.dtype == torch.bfloat16 and layer.knots.dtype == torch.float64
    layer(torch.zeros(3, 2, dtype=torch.bfloat16)).sum().backward()
    assert layer.spline_weight.grad.shape == (2, 13, 2)
