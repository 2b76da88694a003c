"""SplineKAN: grid update and extension keep the function; curves, penalties; efficient-kan's weights."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from support.spline_layers import layer_with, normal

from kansciml import SplineKAN


def random_layer(**options):
    return layer_with(3, True, 3, 4, 5, **options)


def draw(n):
    return 0.4 * normal(n, 3, seed=1)


@pytest.mark.parametrize("outside", ["zero", "clamp", "linear"])
@pytest.mark.parametrize("spline_scale", [True, False])
def test_update_grid_keeps_the_function_within_the_error_it_returns(outside, spline_scale):
    layer = random_layer(outside=outside, spline_scale=spline_scale)
    x = draw(500)
    before = layer(x)
    error = layer.update_grid(x)
    change = (layer(x) - before).abs().max().item()
    # the error is of each edge; an output sums the edges of its 3 inputs
    assert 0 < change <= 3 * error.max_abs
    assert change < 0.5 * before.abs().max().item()  # efficient-kan's update changes the function by its own size


def test_update_grid_follows_the_inputs_and_handles_a_constant_feature():
    layer = random_layer()
    x = draw(400)
    x[:, 1] = 0.25
    layer.update_grid(x, blend=0.0)
    inside = (layer.knots[:, 3:-3].T[0] < x) & (x < layer.knots[:, 3:-3].T[-1])
    assert inside.all() and torch.isfinite(layer(x)).all()
    counts = np.histogram(x[:, 0].numpy(), layer.knots[0, 3:-3].numpy())[0]
    assert counts.min() >= 0.8 * counts.max()  # blend 0: equally many per interval
    layer.update_grid(x, blend=1.0)
    assert layer.spec.uniform  # even knots keep the closed form


def test_extend_grid_to_a_multiple_is_exact_also_between_samples():
    layer = random_layer(outside="linear")
    x = torch.linspace(-1, 1, 301, dtype=torch.float64)[:, None].expand(-1, 3)
    before = layer(x)
    error = layer.extend_grid(20)
    assert layer.grid == 20 and layer.spline_weight.shape == (3, 23, 4)
    assert error.max_abs < 1e-10
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-10)
    layer(x).sum().backward()
    assert layer.spline_weight.grad.shape == (3, 23, 4)
    with pytest.raises(ValueError, match="got grid 7: expected at least 20"):
        layer.extend_grid(7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_update_grid_refuses_samples_that_are_not_finite_and_changes_nothing(bad):
    layer = random_layer()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    x = draw(10)
    x[3, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        layer.update_grid(x)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())


def test_edge_curves_sum_to_the_output():
    layer = random_layer()
    x, curves = layer.edge_curves(11)
    torch.testing.assert_close(curves.sum(1), layer(x))
    assert x.shape == (11, 3) and curves.shape == (11, 3, 4)


def test_regularisation_is_finite_with_zero_edges_and_reaches_every_weight():
    layer = random_layer()
    layer.regularisation().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    empty = SplineKAN(2, 2)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
    empty.regularisation().backward()
    assert all(torch.isfinite(p.grad).all() for p in empty.parameters())


def efficient_state(dtype=torch.float32):
    """An efficient-kan layer's state: outputs first, its own names."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"base_weight": (4, 3), "spline_weight": (4, 3, 8), "spline_scaler": (4, 3)}
    state = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
    grid = torch.arange(-3, 9, dtype=dtype) * 0.4 - 1
    return {**state, "grid": grid.expand(3, -1).contiguous()}


@pytest.mark.parametrize("uneven", [False, True])
def test_efficient_kan_weights_give_scipys_sum_over_its_own_layout(uneven):
    state = efficient_state()
    if uneven:
        state["grid"] = state["grid"] + 0.1 * torch.rand(3, 12, generator=torch.Generator().manual_seed(2))
    layer = SplineKAN.from_efficient_kan(state)
    assert layer.spec.uniform != uneven and layer.spline_order == 3 and layer.grid == 5
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(3)) * 1.8 - 0.9
    expected, points = np.zeros((40, 4)), x.double().numpy()
    for o in range(4):
        for i in range(3):
            weights = state["spline_weight"][o, i].double().numpy() * state["spline_scaler"][o, i].item()
            silu = points[:, i] / (1 + np.exp(-points[:, i]))
            spline = BSpline(state["grid"][i].double().numpy(), weights, 3)
            expected[:, o] += state["base_weight"][o, i].item() * silu + spline(points[:, i])
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("grid"), "expected base_weight, spline_weight, grid"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra: expected base_weight"),
        (lambda s: s.update(base_weight=torch.zeros(5, 3)), r"base_weight \(5, 3\)"),
    ],
)
def test_a_state_that_is_not_efficient_kans_is_refused_by_name(change, message):
    state = efficient_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        SplineKAN.from_efficient_kan(state)
