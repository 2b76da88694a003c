"""Refits on large grids: least squares and its error as on small ones, in memory linear in the grid."""

import math

import pytest
import torch
from support.spline_layers import normal
from torch.utils._python_dispatch import TorchDispatchMode

from kansciml import KAN, SplineKAN
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import even as knots_of
from kansciml.layers._refit import refit as module
from kansciml.layers._refit.new_knots import adaptive_knots, extended_knots
from kansciml.layers._refit.refit import refit
from kansciml.layers.bspline import SplineSpec


def even(features, grid, order=3, ends=(-1.0, 1.0)):
    return knots_of(features, grid, order, ends)


def values(knots, coefficients, order, x, outside="zero"):
    """Splines (I, P, O) at x (N, I): (I, N, O)."""
    spec = SplineSpec(knots.shape[1] - 2 * order - 1, order, False, outside, None)
    return evaluate(spec, x.t(), knots)[0].mT @ coefficients


def grid_points(knots, order, count=3001):
    low, high = knots[:, order], knots[:, -order - 1]
    return low + (high - low) * torch.linspace(0, 1, count, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("order", range(6))
def test_it_is_the_fit_of_small_grids(order, monkeypatch):
    x, coefficients = 0.8 * normal(500, 3), normal(3, 40 + order, 2, seed=1)
    old, new = even(3, 40, order), adaptive_knots(x, 33, order, 0.1)
    scale = normal(3, 2, seed=2)
    result, error = refit(coefficients, old, new, order, x, "linear", scale)
    monkeypatch.setattr(module, "LEAST_IN_BANDS", 1000)
    monkeypatch.setattr(module, "MOST_BY_MAPS", 1000)
    other, same = refit(coefficients, old, new, order, x, "linear", scale)
    assert not torch.equal(other, result)  # another way
    torch.testing.assert_close(other, result, rtol=1e-8, atol=1e-9)
    assert same == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize(
    "x",
    [
        None,
        normal(7, 1).clamp(-1, 1),  # far fewer than cells
        torch.full((100_000, 1), 0.31, dtype=torch.float64),
        0.311 + 1e-4 * normal(50_000, 1),  # one cell
        torch.full((10, 1), 5.0, dtype=torch.float64),  # none on the grid
    ],
    ids=["even", "few", "constant", "one cell", "off the grid"],
)
@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_a_refinement_keeps_the_function_wherever_the_data_lie(order, x):
    old, coefficients = even(1, 60, order), normal(1, 60 + order, 2)
    new = extended_knots(old, order, 420)
    result, error = refit(coefficients, old, new, order, x, "linear")
    at = grid_points(old, order)[:-1]
    torch.testing.assert_close(values(new, result, order, at), values(old, coefficients, order, at), rtol=0, atol=1e-11)
    # a straight line goes on at the slope that rounding leaves: 400 times larger, and over twice the grid
    assert error.max_abs < (1e-8 if x is not None and x.min() > 1 else 1e-11)


def test_edges_of_any_size_beside_each_other():
    """The smallest function is kept to its own digits."""
    old = even(2, 50)
    coefficients = normal(2, 53, 3) * torch.tensor([1e-12, 1.0, 1e12]) * torch.tensor([1.0, 1e-6])[:, None, None]
    x = torch.full((10_000, 2), 0.31, dtype=torch.float64)
    new = extended_knots(old, 3, 200)
    result, _ = refit(coefficients, old, new, 3, x)
    at = grid_points(old, 3)
    before, after = values(old, coefficients, 3, at), values(new, result, 3, at)
    assert ((after - before).abs().amax(1) < 1e-11 * before.abs().amax(1)).all()


@pytest.mark.parametrize("outside", ["zero", "linear"])
def test_a_layer_follows_its_inputs_on_a_large_grid(outside):
    layer = SplineKAN(3, 2, grid=400, outside=outside, dtype=torch.float64)
    with torch.no_grad():
        layer.spline_weight.copy_(layer.knots[:, 2:-2].unsqueeze(-1).mul(3).sin().expand_as(layer.spline_weight))
    x = 0.3 * normal(250, 3)  # fewer than cells
    x[:, 1] = 0.25  # a constant feature
    before = layer(x).detach()
    error = layer.update_grid(x)
    assert not layer.spec.uniform and layer.grid == 400
    change = (layer(x).detach() - before).abs().max()
    assert change <= 3 * error.max_abs + 1e-12 and error.max_abs < 1e-5 and error.relative < 1e-5


def test_a_network_of_float32_takes_a_thousand_intervals():
    torch.manual_seed(0)
    net = KAN((2, 5, 1), grid=4)
    x = 2 * torch.rand(300, 2) - 1
    before = net(x).detach()
    for error in net.extend_grid(1000):
        assert error.max_abs < 1e-12  # in float64, before the coefficients are rounded
    assert [layer.spline_weight.shape for layer in net.layers] == [(2, 1003, 5), (5, 1003, 1)]
    assert all(layer.spline_weight.dtype == torch.float32 and layer.spline_weight.requires_grad for layer in net.layers)
    torch.testing.assert_close(net(x).detach(), before, rtol=0, atol=1e-5)


class Sizes(TorchDispatchMode):
    """Numbers that all operations return together, and the largest of them."""

    def __init__(self):
        super().__init__()
        self.all = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(one, torch.Tensor):
                self.all, self.largest = self.all + one.numel(), max(self.largest, one.numel())
        return found


def test_work_and_memory_are_linear_in_the_grid():
    """Counted, not timed: four times the grid asks for four times the numbers."""
    found = []
    for grid in (300, 1200):
        coefficients, old, new = normal(1, grid + 3, 2), even(1, grid), adaptive_knots(normal(500, 1), grid, 3, 0.1)
        with Sizes() as sizes:
            refit(coefficients, old, new, 3, normal(500, 1))
        found.append(sizes)
    few, many = found
    assert many.all < 4.5 * few.all and many.largest < 4.5 * few.largest
    assert many.largest < 300 * 1200 and math.isfinite(many.all)
