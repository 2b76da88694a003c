"""KAN stacks: composition, grids of a whole network, import, pruning."""

import copy

import pytest
import torch

from kansciml import KAN, RSWAFKAN, SplineKAN
from kansciml.layers.prune import node_scores, prune_edges, prune_nodes


def network(*widths, **options):
    return KAN(widths, dtype=torch.float64, **options)


def draw(n, width):
    return torch.rand(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("layer", ["spline", "rswaf"])
def test_a_stack_is_its_layers_one_after_the_other_and_every_parameter_gets_a_gradient(layer):
    found = KAN((3, 5, 2), layer)
    x = draw(7, 3).float()
    y = found(x)
    torch.testing.assert_close(y, found.layers[1](found.layers[0](x)))
    y.square().sum().backward()
    assert found.widths == (3, 5, 2)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in found.parameters())


def test_bad_stacks_are_named():
    with pytest.raises(ValueError, match="expected at least two"):
        KAN((3,))
    with pytest.raises(ValueError, match="expected one of spline, rswaf"):
        KAN((3, 2), "chebyshev")


def test_grid_extension_of_a_network_keeps_its_function_and_refinement_lowers_the_loss():
    found = network(1, 3, 1, init="variance", grid=3, outside="linear")
    x = draw(200, 1)
    target = torch.sin(9 * x)
    losses = []
    for grid in (3, 6, 12):
        if grid > 3:
            before = found(x)
            assert all(error.max_abs < 1e-8 for error in found.extend_grid(grid))
            torch.testing.assert_close(found(x), before, atol=1e-8, rtol=0)
        optimiser = torch.optim.LBFGS(found.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure():
            optimiser.zero_grad()  # noqa: B023
            loss = (found(x) - target).square().mean()
            loss.backward()
            return loss

        optimiser.step(closure)
        losses.append(closure().item())
    assert losses[2] < losses[1] < losses[0]


def test_update_grid_of_a_network_keeps_each_layer_within_its_error_on_what_it_sees():
    found = network(2, 4, 1, init="variance")
    old = copy.deepcopy(found)
    x = draw(400, 2)
    errors = found.update_grid(x)
    seen = x
    for new, before, error in zip(found.layers, old.layers, errors):
        after = before(seen)
        assert (new(seen) - after).abs().max() <= new.in_features * error.max_abs
        low, high = new.knots[:, 3], new.knots[:, -4]
        assert ((low < seen.amin(0)) & (seen.amax(0) < high)).all()
        seen = after


def test_pruning_nodes_that_carry_nothing_keeps_the_function():
    found = network(2, 6, 3, bias=True)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(1.0).add_(0.01)
        dead = [1, 4]  # nothing leaves them
        found.layers[1].spline_weight[dead] = 0
        found.layers[1].base_weight[dead] = 0
    assert [i for i, score in enumerate(node_scores(found)[0]) if score == 0] == dead
    x = draw(50, 2)
    smaller = prune_nodes(found, 1e-6)
    assert smaller.widths == (2, 4, 3)
    torch.testing.assert_close(smaller(x), found(x))
    assert prune_nodes(found, 1e9).widths == (2, 1, 3)  # the strongest node stays


def test_pruning_edges_zeroes_the_weak_ones_alone():
    found = network(2, 3, 1)
    norms = found.layers[0].edge_norms().detach().clone()
    threshold = norms.flatten().sort().values[2].item()
    others = sum(int((layer.edge_norms() < threshold).sum()) for layer in found.layers)
    assert prune_edges(found, threshold) == others
    after = found.layers[0].edge_norms()
    assert ((after == 0) == (norms < threshold)).all()
    assert prune_edges(found, threshold) == 0
    with pytest.raises(ValueError, match="threshold -1"):
        prune_edges(found, -1)


def test_an_efficient_kan_network_keeps_its_layers_in_order():
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (n_in, n_out) in enumerate([(2, 5), (5, 3)]):
        state |= {
            f"layers.{index}.base_weight": torch.randn(n_out, n_in, generator=generator),
            f"layers.{index}.spline_weight": torch.randn(n_out, n_in, 8, generator=generator),
            f"layers.{index}.spline_scaler": torch.randn(n_out, n_in, generator=generator),
            f"layers.{index}.grid": (torch.arange(-3, 9) * 0.4 - 1).expand(n_in, -1),
        }
    found = KAN.from_efficient_kan(state)
    assert found.widths == (2, 5, 3)
    x = draw(9, 2).float()
    first = SplineKAN.from_efficient_kan({k.split(".")[2]: v for k, v in state.items() if ".0." in k})
    torch.testing.assert_close(found(x), found.layers[1](first(x)))
    with pytest.raises(ValueError, match="expected efficient-kan's"):
        KAN.from_efficient_kan({"weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"got layers \[1\]"):
        KAN.from_efficient_kan({k: v for k, v in state.items() if ".1." in k})


def test_an_rswaf_network_of_two_inputs_learns_their_product():
    found = KAN((2, 5, 1), layer="rswaf")
    assert [layer.layernorm is None for layer in found.layers] == [True, False]
    x = draw(400, 2).float()
    target = x[:, :1] * x[:, 1:]
    optimiser = torch.optim.Adam(found.parameters(), 0.02)
    for _ in range(300):
        optimiser.zero_grad()
        loss = (found(x) - target).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05 * target.var().item()


def test_methods_that_a_layer_does_not_have_are_refused_in_one_line():
    found, x = KAN((3, 4, 2), layer="rswaf"), draw(9, 3).float()
    for call in (
        found.regularisation,
        lambda: found.update_grid(x),
        lambda: found.extend_grid(10),
        found.edge_curves,
        lambda: prune_edges(found, 0.1),
        lambda: prune_edges(found.layers[0], 0.1),
    ):
        with pytest.raises(ValueError, match=r"expected .*KAN\(widths, layer='spline'\)"):
            call()


@pytest.mark.parametrize("n_in, left", [(1, "1 input leaves a constant"), (2, "2 inputs leaves the sign")])
def test_one_or_two_inputs_have_no_layer_norm_unless_asked(n_in, left):
    layer = RSWAFKAN(n_in, 2)
    assert layer.layernorm is None and RSWAFKAN(3, 2).layernorm is not None
    assert RSWAFKAN(3, 2, layer_norm=False).layernorm is None
    with pytest.warns(UserWarning, match=f"LayerNorm over {left}"):
        asked = RSWAFKAN(n_in, 2, layer_norm=True)
    x = torch.rand(40, n_in, generator=torch.Generator().manual_seed(0)) * 4 - 2
    x = x[(x[:, 0] - x[:, -1]).abs() > 0.5] if n_in == 2 else x
    assert len({tuple(row) for row in asked(x).detach().round(decimals=2).tolist()}) <= n_in
    assert len({tuple(row) for row in layer(x).detach().round(decimals=3).tolist()}) > 20


def test_states_with_a_layer_norm_that_the_layer_does_not_have_are_refused():
    with pytest.warns(UserWarning, match="LayerNorm over 2 inputs"):
        old, again = RSWAFKAN(2, 3, layer_norm=True), RSWAFKAN(2, 3, layer_norm=True)
    again.load_state_dict(old.state_dict())
    torch.testing.assert_close(again(draw(5, 2).float()), old(draw(5, 2).float()))
    network = torch.nn.Sequential(RSWAFKAN(2, 3))
    state = {f"0.{name}": value for name, value in old.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"got a state with 0\.layernorm\.weight .*expected .*layer_norm=True"):
            network.load_state_dict(state, strict=strict)
