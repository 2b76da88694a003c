"""Knots that are learned: in order, from the even ones on, with SciPy's gradients, through all that layers can do."""

import copy

import numpy as np
import pytest
import torch
from support.spline_layers import BACKENDS, as_function, draw_weights, gradient, inputs, normal, scipy_splines
from torch.nn.utils import parametrizations

from kansciml import KAN, KANConv2d, SplineKAN
from kansciml.layers.bspline import OUTSIDE, uniform_knots
from kansciml.layers.prune import prune_nodes

F64 = torch.float64


def learned(order=3, n_in=2, n_out=2, grid=4, move=0.7, dtype=F64, **options):
    """A layer whose weights are drawn, and whose knots have moved."""
    layer = draw_weights(SplineKAN(n_in, n_out, grid, order, learnable_knots=True, dtype=dtype, **options))
    with torch.no_grad():
        layer.knot_logits.mul_(move)
    return layer


def test_knots_are_even_to_the_bit_at_first_and_a_default_layer_has_nothing_new():
    layer = SplineKAN(3, 2, grid=7, grid_range=(-0.3, 1.1), learnable_knots=True)
    even = SplineKAN(3, 2, grid=7, grid_range=(-0.3, 1.1))
    assert torch.equal(layer.knots[1], torch.from_numpy(uniform_knots(7, 3, (-0.3, 1.1))))
    assert set(even.state_dict()) == {"base_weight", "spline_weight", "spline_scale", "knots"}
    assert set(layer.state_dict()) - set(even.state_dict()) == {"first_knots", "knot_logits"}
    assert layer.knot_logits.shape == (3, 7) and "learnable_knots=True" in repr(layer)
    with pytest.raises(ValueError, match="got learnable_knots with spline_order 0"):
        SplineKAN(2, 2, spline_order=0, learnable_knots=True)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("size", [0.5, 1e3])
def test_knots_stay_in_order_between_the_ends_whatever_the_logits(order, size):
    layer = learned(order, 5, 2, 6, move=size, dtype=torch.float32)
    knots, first = layer.knots, layer.first_knots
    assert torch.equal(knots[:, [order, -1 - order]], first[:, [order, -1 - order]])
    widths = knots.diff(dim=1).detach()
    assert (widths > 0.0099 * 2 / 6).all() and (widths.float() > 0).all()
    assert (widths.std(1) > 0.05).all()
    torch.testing.assert_close(widths[:, :order], widths[:, order : order + 1].expand(-1, order))
    assert layer(normal(9, 5).float()).isfinite().all()


def test_knots_far_from_zero_stay_apart_in_float32():
    layer = learned(1, 2, 2, 20, move=8, dtype=torch.float32, grid_range=(1e4, 1e4 + 1), backend="torch")
    assert (layer.knots.float().diff(dim=1) > 0).all()
    assert layer(1e4 + torch.linspace(0, 1, 99)[:, None].expand(-1, 2)).isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_gradient_is_that_of_scipys_splines_by_differences(order, outside, backend):
    layer = learned(order, outside=outside, backend=backend)
    x, cotangent, along = inputs(layer, 30), normal(30, 2, seed=1), normal(2, 4, seed=2)
    x[:2] /= 15  # not so far away that differences lose their digits
    weight = (layer.spline_weight * layer.spline_scale[:, None]).detach().numpy()

    def truth(step):
        moved = copy.deepcopy(layer)
        with torch.no_grad():
            moved.knot_logits += step * along
        knots = moved.knots.detach().numpy()
        parts = [scipy_splines(t, order, at, outside=outside) @ w for t, at, w in zip(knots, x.T.numpy(), weight)]
        return float(np.sum(sum(parts) * cotangent.numpy()))

    found = torch.autograd.grad(layer(x), layer.knot_logits, cotangent)[0]
    step = 1e-5
    assert float((found * along).sum()) == pytest.approx((truth(step) - truth(-step)) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("options", [{"outside": "linear"}, {"order": 2, "outside": "clamp", "spline_scale": False}])
def test_gradcheck_and_gradgradcheck(options):
    layer = learned(grid=3, **options)
    call, values = as_function(layer)
    arguments = (0.8 * normal(3, 2, seed=4)).requires_grad_(), *values
    assert torch.autograd.gradcheck(call, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, arguments, fast_mode=True)


def test_a_convolution_learns_its_knots_too():
    layer = draw_weights(KANConv2d(2, 2, 2, groups=2, grid=3, learnable_knots=True, dtype=F64))
    call, values = as_function(layer)
    arguments = (0.8 * normal(1, 2, 3, 3, seed=4)).requires_grad_(), *values
    assert torch.autograd.gradcheck(call, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, arguments, fast_mode=True)


def test_blocks_transforms_and_graphs_agree(monkeypatch):
    layer, x, cotangent = learned(backend="torch"), 0.8 * normal(20, 2), normal(20, 2, seed=1)
    call, values = as_function(layer)
    found = torch.autograd.grad(layer(x), values, cotangent)
    torch.testing.assert_close(gradient(call, cotangent, x.requires_grad_(), *values)[1:], found)
    one = torch.func.grad(lambda *own: (call(x, *own) * cotangent).sum(), tuple(range(len(values))))(*values)
    torch.testing.assert_close(one, found)
    monkeypatch.setattr("kansciml.layers._kernels.free_knots.ON_CPU", 30)
    torch.testing.assert_close(torch.autograd.grad(layer(x), values, cotangent), found)
    exported = torch.export.export(layer, (x.detach(),)).module()
    torch.testing.assert_close(exported(x), layer(x))


@pytest.mark.slow
def test_compiled_in_one_graph_with_the_same_gradients():
    layer, x = learned(), normal(5, 2)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    wanted = tuple(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x).square().sum(), wanted), torch.autograd.grad(layer(x).square().sum(), wanted)
    )
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))


def test_it_keeps_its_input_and_its_knots_alone(saved_bytes):
    layer, x = learned(n_in=6, dtype=torch.float32), normal(4096, 6).float().requires_grad_()
    assert 4 * x.numel() <= saved_bytes(layer, x)[0] < 4.2 * x.numel()


@pytest.mark.parametrize("change", [lambda layer, x: layer.update_grid(x), lambda layer, x: layer.extend_grid(8)])
def test_grids_move_and_grow_with_the_function_and_are_learned_from_there(change):
    layer, x = learned(outside="linear", n_out=1), 0.3 * normal(200, 2)
    logits, before = layer.knot_logits, layer(x)
    change(layer, x)
    assert (layer(x) - before).norm() < 0.2 * before.norm()
    assert layer.knot_logits is logits and logits.shape == (2, layer.grid) and not logits.any()
    assert torch.equal(layer.knots, layer.first_knots)
    layer(x).sum().backward()
    assert logits.grad.shape == logits.shape and logits.grad.any()


def test_states_go_from_constants_to_knots_that_are_learned_and_back():
    layer, x = learned(grid=6), normal(9, 2)
    constant, again, free = (SplineKAN(2, 2, 4, learnable_knots=learn, dtype=F64) for learn in (False, True, True))
    constant.load_state_dict(layer.state_dict())
    free.load_state_dict(constant.state_dict())
    again.load_state_dict(layer.state_dict())
    for one in (constant, free, again, copy.deepcopy(layer)):
        torch.testing.assert_close(one(x), layer(x), rtol=1e-12, atol=1e-12)
    assert not free.knot_logits.any() and torch.equal(again.knot_logits, layer.knot_logits)
    torch.testing.assert_close(free.knots, layer.knots)
    narrow = copy.deepcopy(layer).to(torch.bfloat16)
    assert narrow.first_knots.dtype == F64 and (narrow.knots - layer.knots).abs().max() < 0.02
    layer.reset_parameters()
    assert torch.equal(layer.knots, layer.first_knots)
    with pytest.raises(ValueError, match="do not increase strictly"):
        layer.knots = layer.knots.flip(1)
    with pytest.raises(ValueError, match="do not increase strictly"):
        free.load_state_dict({**constant.state_dict(), "knots": constant.knots.flip(1)})


def test_states_of_another_order_and_logits_made_from_others_are_refused():
    for order, learn in ((5, True), (3, False)):
        layer, other = SplineKAN(2, 2, 4, order, learnable_knots=learn), learned(1, dtype=torch.float32)
        state = other.state_dict() if not learn else SplineKAN(2, 2, 4, 1).state_dict()
        with pytest.raises(RuntimeError, match="size mismatch for (first_)?knots"):
            layer.load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch for first_knots"):
        learned().load_state_dict({**learned().state_dict(), "first_knots": torch.arange(11.0)})
    layer = learned()
    parametrizations.weight_norm(layer, "knot_logits")
    with pytest.raises(ValueError, match="got knot_logits that is made from other parameters"):
        layer.set_knots(layer.first_knots + 1)


def test_networks_with_learned_knots_are_imported_pruned_and_drawn():
    net = KAN((2, 5, 1), learnable_knots=True, outside="linear", dtype=F64)
    for layer in net.layers:
        draw_weights(layer)
    with torch.no_grad():
        net.layers[1].spline_weight[3], net.layers[1].base_weight[3] = 0, 0
    smaller, x = prune_nodes(net, 1e-9), normal(9, 2)
    torch.testing.assert_close(smaller(x), net(x))
    assert smaller.widths == (2, 4, 1) and smaller.layers[1].knot_logits.shape == (4, 5)
    at, curves = net.layers[0].edge_curves(7)
    torch.testing.assert_close(curves.sum(1), net.layers[0](at))
    own = net.layers[0]
    state = {"base_weight": own.base_weight.T, "spline_weight": own.spline_weight.permute(2, 0, 1), "grid": own.knots}
    state["spline_scaler"] = own.spline_scale.T
    found = SplineKAN.from_efficient_kan(state, learnable_knots=True, outside="linear")
    torch.testing.assert_close(found(x), own(x))


def test_a_kink_between_knots_is_found():
    """|x - 0.37| is a linear spline, once a knot lies there."""
    layer = SplineKAN(1, 1, 4, 1, base_activation=None, init="zero", learnable_knots=True, dtype=F64)
    x = torch.linspace(-1, 1, 101, dtype=F64)[:, None]
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        error = (layer(x) - (x - 0.37).abs()).square().mean()
        error.backward()
        return error

    with torch.no_grad():
        layer.spline_weight.normal_(generator=torch.Generator().manual_seed(0))
    optimiser.step(loss)
    assert loss().item() < 1e-6  # 2e-4 at best with knots that stay
    assert (layer.knots - 0.37).abs().min() < 0.01
