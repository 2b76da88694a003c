"""New knots hold every sample and increase, also in float32."""

import numpy as np
import pytest
import torch
from support.spline_layers import normal

from kansciml.layers._kernels.knots import even
from kansciml.layers._refit.new_knots import adaptive_knots, extended_knots


def grid_of(knots, order):
    return knots[:, order : knots.shape[1] - order]


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("blend", [0.0, 0.02, 1.0])
def test_adaptive_knots_increase_and_hold_every_sample(order, blend):
    x = normal(300, 4) * torch.tensor([1.0, 1e-6, 1e5, 0.1]) + torch.tensor([0.0, 0.0, 7.0, -3.0])
    knots = adaptive_knots(x, 7, order, blend)
    assert knots.shape == (4, 7 + 2 * order + 1) and knots.dtype == torch.float64
    assert (knots.diff(dim=1) > 0).all()
    inner = grid_of(knots, order)
    assert (inner[:, 0] < x.amin(0)).all() and (inner[:, -1] > x.amax(0)).all()
    assert (inner[:, -1] - inner[:, 0] < 1.01 * (x.amax(0) - x.amin(0))).all()


def test_inner_knots_are_quantiles_or_even_or_their_blend():
    x = normal(5000, 2)
    quantiles = torch.quantile(x, torch.linspace(0, 1, 6, dtype=x.dtype), dim=0).t()
    knots = {blend: grid_of(adaptive_knots(x, 5, 3, blend), 3) for blend in (0.0, 0.25, 1.0)}
    torch.testing.assert_close(knots[0.0][:, 1:-1], quantiles[:, 1:-1], rtol=0, atol=1e-12)
    width = knots[1.0].diff(dim=1)
    torch.testing.assert_close(width, width[:, :1].expand_as(width), rtol=1e-12, atol=0)
    torch.testing.assert_close(knots[0.25], 0.75 * knots[0.0] + 0.25 * knots[1.0], rtol=0, atol=1e-12)


def test_repeated_samples_and_constant_features_still_give_cells_of_some_width():
    x = torch.zeros(100, 4)
    x[:, 1] = 1e6
    x[0, 2] = 1.0  # all but one at 0: every quantile but the last is 0
    x[:, 3] = torch.arange(100) % 2
    knots = adaptive_knots(x, 5, 3, 0.0)
    widths = knots.float().diff(dim=1)  # also in the kernels' float32
    assert (widths > 0).all()
    assert (knots[2].diff() >= 0.01 * 1.002 / 5 * (1 - 1e-9)).all()
    inner = grid_of(knots, 3)
    torch.testing.assert_close(inner[0, [0, -1]], torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert (inner[:, 0] < x.amin(0)).all() and (inner[:, -1] > x.amax(0)).all()


def test_knots_far_from_zero_stay_distinct_in_float32():
    x = torch.full((100, 1), 1000.0, dtype=torch.float64)
    x[::50] += 0.01  # a span of 160 float32 steps, and quantiles that coincide
    assert (adaptive_knots(x, 5, 3, 0.0).float().diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    "x, blend, message",
    [
        (torch.zeros(0, 2), 0.0, r"shape \(0, 2\)"),
        (torch.tensor([[0.0], [float("nan")]]), 0.0, "1 samples that are NaN or infinite"),
        (torch.tensor([[0.0], [float("inf")]]), 0.0, "1 samples that are NaN or infinite"),
        (torch.zeros(2, 1), 1.1, "got blend 1.1"),
    ],
)
def test_bad_samples_are_one_clear_line(x, blend, message):
    with pytest.raises(ValueError, match=message) as error:
        adaptive_knots(x, 5, 3, blend)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_extended_knots_of_a_multiple_hold_the_old_ones_to_the_bit(factor):
    old = adaptive_knots(normal(200, 3), 5, 3, 0.02)
    new = extended_knots(old, 3, 5 * factor)
    assert new.shape == (3, 5 * factor + 7) and (new.diff(dim=1) > 0).all()
    assert torch.equal(grid_of(new, 3)[:, ::factor], grid_of(old, 3))
    cells = grid_of(new, 3).diff(dim=1).reshape(3, 5, factor)
    torch.testing.assert_close(cells, cells[..., :1].expand_as(cells))


def test_extended_knots_otherwise_keep_the_ends_and_the_density():
    old = adaptive_knots(normal(2000, 1), 10, 3, 0.0)
    new = grid_of(extended_knots(old, 3, 7), 3)[0].numpy()
    inner = grid_of(old, 3)[0].numpy()
    np.testing.assert_allclose(new, np.interp(np.linspace(0, 10, 8), np.arange(11), inner), atol=1e-14)
    torch.testing.assert_close(extended_knots(even(1, 5, 3, (-1, 1)), 3, 8), even(1, 8, 3, (-1, 1)))  # even stays even
