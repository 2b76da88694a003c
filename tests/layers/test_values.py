"""What kernels read of knots and grid points is never older than these, whoever wrote them and however."""

import copy

import pytest
import torch
from support.spline_layers import BACKENDS, layer_with
from torch import nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.optim.swa_utils import AveragedModel

from kansciml import KAN, SplineKAN
from kansciml.layers._kernels import tensor_values
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.training.ema import Ema


def network(backend="torch", seed=0):
    torch.manual_seed(seed)
    return KAN((3, 4, 2), backend=backend)


def moved(net):
    """The same network on uneven knots."""
    net = copy.deepcopy(net)
    net.update_grid(2 * torch.randn(200, 3, generator=torch.Generator().manual_seed(3)), blend=0.1)
    return net


def fresh(net):
    """A network made anew from the state, which nobody has run before."""
    state = {name: value.detach().clone() for name, value in net.state_dict().items()}
    made = KAN(net.widths, grid=net.layers[0].grid, backend=net.layers[0].backend, dtype=next(net.parameters()).dtype)
    made.load_state_dict(state)
    return made


def draw(n=20, width=3):
    return 1.5 * torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def copy_knots(net, source):
    for layer, other in zip(net.layers, source.layers):
        layer.knots.copy_(other.knots)


def replace_knots(net, source):
    for layer, other in zip(net.layers, source.layers):
        layer.knots = other.knots.clone()


def average(net, source):
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    averaged(draw())
    copy_knots(net, source)
    averaged.update_parameters(net)
    replace_knots(net, averaged.module)


def numpy_knots(net, source):
    for layer, other in zip(net.layers, source.layers):
        layer.knots.numpy()[:] = other.knots.numpy()


WAYS = {
    "in place": copy_knots,
    "replaced": replace_knots,
    "data": lambda net, source: [a.knots.data.copy_(b.knots) for a, b in zip(net.layers, source.layers)],
    "other data": lambda net, source: [setattr(a.knots, "data", b.knots) for a, b in zip(net.layers, source.layers)],
    "numpy": numpy_knots,
    "average": average,
    "state": lambda net, source: net.load_state_dict(source.state_dict()),
    "assigned state": lambda net, source: net.load_state_dict(source.state_dict(), assign=True),
    "part of a state": lambda net, source: net.load_state_dict(dict(source.named_buffers()), strict=False),
    "set_knots": lambda net, source: [a.set_knots(b.knots) for a, b in zip(net.layers, source.layers)],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", WAYS)
def test_knots_written_in_any_way_are_the_ones_that_count(way, backend):
    net, source, x = network(backend), moved(network(backend)), draw()
    for target in (source, network(backend, 1)):  # to uneven ones, and back to even ones
        before = net(x).detach()
        with torch.no_grad():
            WAYS[way](net, target)
        y = net(x)
        torch.testing.assert_close(y, fresh(net)(x), rtol=0, atol=0)
        assert (y - before).abs().max() > 1e-3
        y.sum().backward()
        expected = fresh(net)
        expected(x).sum().backward()
        for a, b in zip(net.parameters(), expected.parameters()):
            torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)
        net.zero_grad()
    assert all(layer.spec.uniform for layer in net.layers)


def test_our_average_of_knots_counts_and_then_the_models_own_again():
    net, x = network(), draw()
    averaged, own = Ema(net, 0.9), net(x).detach()
    with torch.no_grad():
        for layer in net.layers:
            layer.knots.mul_(2)
    averaged.update(1)
    assert (net(x) - own).abs().max() > 1e-3
    own = net(x).detach()
    with averaged.applied():
        weight = 1 - 2 / 11
        torch.testing.assert_close(net.layers[0].knots, network().layers[0].knots * (1 + weight))
        torch.testing.assert_close(net(x), fresh(net)(x), rtol=0, atol=0)
    torch.testing.assert_close(net(x), own, rtol=0, atol=0)
    net.extend_grid(10)
    with pytest.raises(ValueError, match=r"spline_weight of shape \(3, 13, 4\), averaged at shape \(3, 8, 4\)"):
        averaged.update(2)


def test_a_network_called_with_other_tensors_takes_their_knots():
    net, source, x = network(), moved(network(seed=1)), draw()
    net(x)
    torch.testing.assert_close(functional_call(net, dict(source.state_dict()), (x,)), source(x), rtol=0, atol=0)
    torch.testing.assert_close(net(x), fresh(net)(x), rtol=0, atol=0)
    nets = [net, source, moved(network(seed=2))]
    states = stack_module_state(nets)
    y = vmap(lambda p, b: functional_call(net, (p, b), (x,)))(*states)
    torch.testing.assert_close(y, torch.stack([one(x) for one in nets]), rtol=1e-5, atol=1e-6)


def test_a_compiled_network_takes_knots_written_later():
    net, source, x = network(), moved(network(seed=1)), draw()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))
    with torch.no_grad():
        copy_knots(net, source)
    torch.testing.assert_close(compiled(x), fresh(net)(x), rtol=0, atol=0)
    for layer in net.layers:
        layer.knots.data.mul_(1.5)
    compiled(x).sum().backward()
    expected = fresh(net)
    expected(x).sum().backward()
    for a, b in zip(net.parameters(), expected.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_an_exported_network_takes_the_knots_of_another_state():
    net, source, x = network(), moved(network(seed=1)), draw()
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))
    exported.load_state_dict(source.state_dict(), strict=False)
    torch.testing.assert_close(exported(x), source(x))


@pytest.mark.parametrize("even", [True, False])
def test_knots_have_their_true_gradient_where_it_is_asked_for(even):
    layer, x = layer_with(3, even), draw(6, 2).double()
    knots, direction = layer.knots.clone(), torch.zeros_like(layer.knots)
    direction[1, 5] = 1.0

    def call(knots):
        return functional_call(layer, {"knots": knots}, (x,)).square().sum()

    expected = (call(knots + 1e-6 * direction) - call(knots - 1e-6 * direction)) / 2e-6
    found = torch.autograd.grad(call(learned := knots.clone().requires_grad_()), learned)[0]
    torch.testing.assert_close(found[1, 5], expected.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(grad(call)(knots), found)
    torch.testing.assert_close(jvp(call, (knots,), (direction,))[1], found[1, 5])
    compiled = torch.compile(call, backend="eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(learned), learned)[0], found)


def test_a_graph_goes_on_with_the_knots_that_it_was_made_with():
    net, x = network(), draw()
    y, expected = net(x), fresh(net)
    copy_knots(net, moved(net))
    y.sum().backward()
    expected(x).sum().backward()
    assert torch.equal(net.layers[0].spline_weight.grad, expected.layers[0].spline_weight.grad)


@pytest.mark.parametrize("layer", ["spline", "rswaf"])
def test_a_network_made_on_meta_gets_its_grid_where_it_gets_memory(layer):
    with torch.device("meta"):
        net = KAN((3, 4, 2), layer)
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"meta"}
    net, x = KAN((3, 4, 2), layer, device="meta"), draw()
    assert "SplineKAN(3, 4, grid=5" in str(net) or layer == "rswaf"
    assert net(x.to("meta")).shape == (20, 2)
    source = moved(network()) if layer == "spline" else KAN((3, 4, 2), layer)
    assigned = copy.deepcopy(net)
    assigned.load_state_dict(source.state_dict(), assign=True)
    net.to_empty(device="cpu")
    for one, made in zip(net.layers, KAN((3, 4, 2), layer).layers):
        one.reset_parameters(torch.Generator().manual_seed(0))
        made.reset_parameters(torch.Generator().manual_seed(0))
        torch.testing.assert_close(one.state_dict(), made.state_dict(), rtol=0, atol=0)
    net.load_state_dict(source.state_dict())
    for one in (net, assigned):
        torch.testing.assert_close(one(x), source(x))
        one(x).sum().backward()


STEPS = {
    "made": lambda net: net.__dict__.update(KAN((3, 4, 2), net.kind).__dict__),
    "moved": lambda net: net.to("cpu"),
    "cast": lambda net: net.double().float(),
    "emptied": lambda net: (net.to_empty(device="cpu"), net.load_state_dict(KAN((3, 4, 2), net.kind).state_dict())),
    "loaded": lambda net: net.load_state_dict(net.state_dict()),
    "assigned": lambda net: net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True),
    "update_grid": lambda net: net.update_grid(draw()),
    "extend_grid": lambda net: net.extend_grid(10),
    "another grid": lambda net: net.load_state_dict(KAN((3, 4, 2), grid=7).state_dict()),
    "set_knots": lambda net: net.layers[0].set_knots(net.layers[0].knots * 2),
    "run": lambda net: net(draw()),
    "printed": str,
}


SPLINE_STEPS = {"update_grid", "extend_grid", "another grid", "set_knots"}


@pytest.mark.parametrize(
    "step, layer",
    [*((step, "spline") for step in STEPS), *((step, "rswaf") for step in STEPS if step not in SPLINE_STEPS)],
)
def test_what_is_done_in_inference_mode_leaves_a_network_that_trains(step, layer):
    net = KAN((3, 4, 2), layer)
    net.kind = layer
    with torch.inference_mode():
        STEPS[step](net)
    if layer == "spline":
        torch.testing.assert_close(net(draw()), fresh(net)(draw()), rtol=0, atol=0)
    before = net.layers[0].spline_weight.detach().clone()
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    net(draw()).square().sum().backward()
    optimiser.step()
    torch.testing.assert_close(net.layers[0].spline_weight, before - 0.1 * net.layers[0].spline_weight.grad)
    net.load_state_dict(net.state_dict())
    for buffer in net.buffers():
        buffer.mul_(1.0)


def test_knots_that_splines_cannot_have_are_refused_when_they_are_read():
    layer = SplineKAN(3, 2)
    layer.knots[0, 4] = 9.0
    with pytest.raises(ValueError, match="do not increase strictly"):
        layer(draw())
    with pytest.raises(ValueError, match="do not increase strictly"):
        layer.set_knots(torch.zeros(3, 12))
    layer.knots = SplineKAN(3, 2, grid=6).knots
    with pytest.raises(ValueError, match=r"knots of shape \(3, 13\) and spline_weight of shape \(3, 8, 2\)"):
        layer(draw())


def test_a_device_that_is_deceived_gives_nan_and_no_other_splines():
    layer, x = SplineKAN(3, 2), draw()
    layer(x)
    tensor_values._KNOWN[id(layer.knots)].compared = False  # as on a device, whose values are not waited for
    torch.testing.assert_close(layer(x), copy.deepcopy(layer)(x), rtol=0, atol=0)
    layer.knots.data.mul_(1.5)
    assert layer(x).isnan().all()
    layer.knots.mul_(1.0)
    torch.testing.assert_close(layer(x), copy.deepcopy(layer)(x), rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_rswaf_grid_points_written_in_place_choose_the_way_to_evaluate(compiled):
    layer, x = RSWAFKAN(3, 2), draw()
    call = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    call(x)
    for factor, shared in ((30.0, False), (1 / 60, True)):
        layer.grid_points.data.mul_(factor)
        assert layer._shared == shared
        u = (nn.functional.layer_norm(x, (3,)).unsqueeze(-1).double() - layer.grid_points) / layer.denominator
        expected = u.cosh().pow(-2).flatten(1) @ layer.spline_weight.double().flatten(0, 1)
        torch.testing.assert_close(call(x).double(), expected, rtol=1e-5, atol=1e-6)
