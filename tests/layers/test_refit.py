"""A refit has the error of least squares, and of rounding on nested knots."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from support.spline_layers import normal

from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import even as knots_of
from kansciml.layers._refit import banded, cells
from kansciml.layers._refit import refit as module
from kansciml.layers._refit.new_knots import adaptive_knots, extended_knots
from kansciml.layers._refit.refit import refit
from kansciml.layers.bspline import SplineSpec

ORDERS = range(6)


def even(features, grid, order, ends=(-1.0, 1.0)):
    return knots_of(features, grid, order, ends)


def basis(x, knots, order):
    """(N, I, P); the right end of the grid belongs to its last interval."""
    spec = SplineSpec(knots.shape[1] - 2 * order - 1, order, False, "zero", None)
    return evaluate(spec, x.t(), knots)[0].permute(2, 0, 1)


def spline(knots, coefficients, order, x):
    """(n, O) by SciPy, for one feature."""
    return BSpline(knots.numpy(), coefficients.double().numpy(), order)(x)


@pytest.fixture(params=["maps", "bands"])
def way(request, monkeypatch):
    """Both ways to fit, on grids of any size."""
    least = {"maps": 10**6, "bands": -(10**6)}[request.param]
    monkeypatch.setattr(module, "LEAST_IN_BANDS", least)
    monkeypatch.setattr(module, "MOST_BY_MAPS", 10**6)


both_ways = pytest.mark.usefixtures("way")


@both_ways
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("factor", [1, 2, 5])
def test_refinement_keeps_the_function_to_rounding(order, factor):
    x = normal(400, 3)
    old = adaptive_knots(x, 6, order, 0.02)
    new = extended_knots(old, order, 6 * factor)
    coefficients = normal(3, 6 + order, 4, seed=1)
    for samples in (None, x, x[:5]):
        result, error = refit(coefficients, old, new, order, samples)
        assert error.max_abs < 1e-12 and error.rms < 1e-13 and error.relative < 1e-12
        for i in range(3):
            ends = old[i, [order, -order - 1]].numpy()
            at = np.random.default_rng(0).uniform(*ends, 500)
            before, after = spline(old[i], coefficients[i], order, at), spline(new[i], result[i], order, at)
            np.testing.assert_allclose(after, before, atol=1e-11)


@both_ways
@pytest.mark.parametrize("grid, new_grid, samples", [(5, 5, 1024), (5, 8, 1024), (12, 4, 1024), (120, 90, 3000)])
def test_error_on_the_data_is_that_of_lstsq_within_1_percent(grid, new_grid, samples):
    x = torch.rand(samples, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    old, new = even(6, grid, 3), adaptive_knots(x**3, new_grid, 3, 0.1)
    coefficients = normal(6, grid + 3, 5)
    result, error = refit(coefficients, old, new, 3, x)
    matrix, target = basis(x, new, 3).transpose(0, 1), basis(x, old, 3).transpose(0, 1) @ coefficients
    best = (matrix @ torch.linalg.lstsq(matrix, target).solution - target).square().mean().sqrt()
    ours = (matrix @ result - target).square().mean().sqrt()
    assert best > 1e-3  # not a refinement: there is an error to compare
    assert best * (1 - 1e-9) <= ours <= 1.01 * best
    largest = (matrix @ result - target).abs().max()
    assert error.rms == pytest.approx(float(ours), rel=1e-9)  # from moments, without the samples' values
    assert error.relative == pytest.approx(float(ours / target.square().mean().sqrt()), rel=1e-9)
    assert largest * (1 - 1e-9) <= error.max_abs <= 1.2 * largest
    # factors of the edges leave the fit as it is, and count in the error
    scale = torch.linspace(-2, 3, 30, dtype=torch.float64).reshape(6, 5)
    same, scaled = refit(coefficients, old, new, 3, x, scale=scale)
    ours = ((matrix @ result - target) * scale.unsqueeze(1)).square().mean().sqrt()
    assert torch.equal(same, result) and scaled.rms == pytest.approx(float(ours), rel=1e-9)


@both_ways
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("outside", ["zero", "clamp", "linear"])
def test_error_is_that_of_every_sample_on_and_off_both_grids(order, outside):
    x = 0.8 * normal(700, 2)
    x[:100, 0], x[100:200, 0], x[:, 1] = 1.0, 0.5, x[:, 1].round(decimals=1)  # ends, knots, few values
    old, new = even(2, 4, order), even(2, 7, order, (-0.9, 1.0))
    coefficients = normal(2, 4 + order, 3, seed=1)
    result, error = refit(coefficients, old, new, order, x, outside)
    before, after = (
        evaluate(SplineSpec(n, order, False, outside, None), x.t(), knots)[0].mT @ c
        for n, knots, c in ((4, old, coefficients), (7, new, result))
    )
    change = after - before
    assert error.rms == pytest.approx(float(change.square().mean().sqrt()), rel=1e-9)
    assert error.relative == pytest.approx(float(change.norm() / before.norm()), rel=1e-9)
    largest = float(change.abs().max())
    assert largest * (1 - 1e-9) <= error.max_abs and error.rms < error.max_abs


@both_ways
@pytest.mark.parametrize("order", ORDERS)
def test_samples_at_the_right_end_of_the_grid_count_in_the_fit(order):
    x, coefficients = normal(300, 1).clamp(-1, 1), normal(1, 11 + order, 2)
    old, new = even(1, 11, order), even(1, 4, order)
    result, _ = refit(coefficients, old, new, order, x)
    assert (x == 1).sum() > 30
    just_inside, _ = refit(coefficients, old, new, order, x.clamp(max=1 - 1e-12))
    torch.testing.assert_close(result, just_inside, rtol=0, atol=1e-8)
    without, _ = refit(coefficients, old, new, order, x[x[:, 0] < 1])
    assert (result - without).abs().max() > 1e-3


def test_a_singular_fit_falls_back_without_harm(monkeypatch):
    x, coefficients = normal(300, 2), normal(2, 9, 3)
    old, new = even(2, 6, 3, (-4, 4)), even(2, 9, 3, (-4, 4))
    result, error = refit(coefficients, old, new, 3, x)
    monkeypatch.setattr(module, "SMALLEST_PIVOT", 2.0)  # no pivot is as large: `eigh` everywhere
    other, same = refit(coefficients, old, new, 3, x)
    torch.testing.assert_close(other, result, rtol=1e-8, atol=1e-9)
    assert same == pytest.approx(error, rel=1e-8)
    monkeypatch.undo()
    gram = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))[None]
    torch.testing.assert_close(module._inverse(gram), gram)


@both_ways
def test_blocks_of_features_change_nothing(monkeypatch):
    x, coefficients = normal(300, 5), normal(5, 9, 3)
    old, new = even(5, 6, 3, (-4, 4)), even(5, 9, 3, (-4, 4))
    result, error = refit(coefficients, old, new, 3, x)
    monkeypatch.setattr(module, "BLOCK", 1)
    monkeypatch.setattr(module, "CACHED", 1)
    monkeypatch.setattr(cells, "CACHED", 1)
    monkeypatch.setattr(banded, "CACHED", 1)
    monkeypatch.setattr(banded, "ROWS", 1)
    other, same = refit(coefficients, old, new, 3, x)
    torch.testing.assert_close(other, result, rtol=0, atol=1e-11)
    assert same == pytest.approx(error, rel=1e-9)


def test_sums_of_runs_are_those_that_other_devices_form():
    number = torch.tensor([0, 10, 0, 0, 35, 5, 0])
    values = normal(50)
    sums = cells._adder(number)(values)
    torch.testing.assert_close(sums, torch.segment_reduce(values, "sum", lengths=number))
    torch.testing.assert_close(sums, torch.stack([part.sum() for part in values.split(number.tolist())]))


@both_ways
def test_a_lone_sample_in_each_cell_has_its_own_error():
    coefficients = normal(1, 8, 1)
    old, new = even(1, 5, 3), even(1, 6, 3)
    x = torch.tensor([[-0.9], [0.1], [0.75]], dtype=torch.float64)
    result, error = refit(coefficients, old, new, 3, x)
    change = (basis(x, new, 3)[:, 0] @ result[0] - basis(x, old, 3)[:, 0] @ coefficients[0]).abs().max()
    assert error.max_abs == pytest.approx(float(change), rel=1e-9)


@both_ways
def test_where_no_data_lie_the_function_is_kept():
    coefficients = normal(1, 13, 2)
    old, new = even(1, 10, 3), even(1, 20, 3)
    data = torch.full((3000, 1), 0.31, dtype=torch.float64)
    result, _ = refit(coefficients, old, new, 3, data)
    at = np.linspace(-1, 1, 301)
    before, after = spline(old[0], coefficients[0], 3, at), spline(new[0], result[0], 3, at)
    np.testing.assert_allclose(after, before, atol=1e-9)


@both_ways
def test_data_decide_where_they_lie():
    coefficients = normal(1, 23, 1)
    old, new = even(1, 20, 3), even(1, 6, 3)
    x = torch.linspace(-0.2, 0.2, 2000, dtype=torch.float64)[:, None]
    before = basis(x, old, 3)[:, 0] @ coefficients[0]
    miss = [
        (basis(x, new, 3)[:, 0] @ refit(coefficients, old, new, 3, samples)[0][0] - before).square().mean()
        for samples in (None, x)
    ]
    assert miss[1] < 0.9 * miss[0]


@both_ways
@pytest.mark.parametrize("outside, beyond", [("clamp", 0.0), ("linear", 1.0)])
def test_a_wider_grid_takes_up_what_the_splines_did_outside(outside, beyond):
    # 0.5 + x on [-1, 1]: coefficients of a line are its values at the Greville points
    old = even(1, 4, 3)
    greville = (old[:, 1:-3] + old[:, 2:-2] + old[:, 3:-1]) / 3
    new = even(1, 8, 3, (-2.0, 2.0))
    result, error = refit((0.5 + greville).unsqueeze(-1), old, new, 3, None, outside)
    at = np.linspace(-0.5, 0.5, 50)
    if outside == "linear":
        assert error.max_abs < 1e-12
        at = np.linspace(-2, 2, 50)
    np.testing.assert_allclose(
        spline(new[0], result[0], 3, at)[:, 0], 0.5 + at, atol=0.05 if outside == "clamp" else 1e-11
    )
    right = spline(new[0], result[0], 3, np.array([2.0]))[0, 0]
    assert abs(right - (1.5 + beyond)) < 0.05


@both_ways
def test_error_counts_data_off_the_grid_that_the_fit_leaves_out():
    coefficients = torch.ones(1, 8, 1, dtype=torch.float64)
    old, new = even(1, 5, 3), even(1, 10, 3)
    far = torch.tensor([[1.3]], dtype=torch.float64)  # the splines fade faster over finer knots
    result, error = refit(coefficients, old, new, 3, far)
    torch.testing.assert_close(result, refit(coefficients, old, new, 3)[0])
    change = (basis(far, new, 3).sum() - basis(far, old, 3).sum()).abs().item()
    assert error.max_abs == pytest.approx(change) and change > 0.1


@both_ways
def test_narrow_cells_and_dtypes():
    x = torch.cat([normal(500, 1) * 1e-3, normal(20, 1)])
    old = adaptive_knots(x, 12, 3, 0.0)
    coefficients = normal(1, 15, 3).float()
    result, error = refit(coefficients, old, extended_knots(old, 3, 24), 3, x.float())
    assert result.dtype == torch.float32 and error.max_abs < 1e-10 * float(coefficients.abs().max())
    zero, error = refit(torch.zeros(1, 15, 3), old, even(1, 5, 3), 3)
    assert not zero.any() and error == (0.0, 0.0, 0.0)


def test_samples_that_are_not_finite_are_one_clear_line():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="4 samples that are NaN or infinite"):
            refit(torch.zeros(1, 8, 1), even(1, 5, 3), even(1, 6, 3), 3, torch.full((4, 1), bad))
