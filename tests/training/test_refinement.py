"""Progressive refinement: the loss goes on where it was, down to the best there is on each grid."""

import numpy as np
import pytest
import torch
from scipy.interpolate import make_lsq_spline

from kansciml import KAN, SplineKAN
from kansciml.training.flat import FlatTraining
from kansciml.training.refinement import fit_flat, train_refined


def test_one_layer_reaches_the_best_splines_of_each_grid_and_no_refinement_raises_the_loss():
    layer = SplineKAN(1, 1, grid=4, base_activation=None, spline_scale=False, outside="linear", dtype=torch.float64)
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    target = torch.sin(5 * x)
    seen = []
    stages = train_refined(layer, lambda: (layer(x) - target).square().mean(), (4, 8, 16), 60, report=seen.append)
    assert [stage.grid for stage in stages] == [4, 8, 16] and seen == stages
    for before, after in zip(stages[:-1], stages[1:]):
        assert after.refit_error < 1e-10
        assert after.start == pytest.approx(before.end, rel=1e-6)
    for stage in stages:  # the best there is on each grid, by SciPy
        inner = np.linspace(-1, 1, stage.grid + 1)
        points = x[:, 0].numpy()
        best = make_lsq_spline(points, np.sin(5 * points), np.concatenate([[-1] * 3, inner, [1] * 3]), 3)
        assert stage.end == pytest.approx(np.mean((best(points) - np.sin(5 * points)) ** 2), rel=1e-6)


def test_a_network_is_refined_with_any_optimiser():
    network = KAN((2, 3, 1), grid=3, init="variance", outside="linear", dtype=torch.float64)
    for layer in network.layers:
        layer.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    target = torch.exp(torch.sin(3 * x[:, :1]) + x[:, 1:] ** 2)
    stages = train_refined(
        network, lambda: (network(x) - target).square().mean(), (3, 6), 150, lambda p: torch.optim.Adam(p, 0.02)
    )
    assert stages[1].end < stages[0].end < stages[0].start
    assert stages[1].parameters - stages[0].parameters == 3 * (2 * 3 + 3 * 1)


@pytest.mark.parametrize(
    "grids, steps, message", [((), 5, "got grids"), ((5, 5), 5, "increasing"), ((5,), 0, "steps 0")]
)
def test_bad_schedules_are_named(grids, steps, message):
    layer = SplineKAN(1, 1)
    with pytest.raises(ValueError, match=message):
        train_refined(layer, lambda: layer(torch.zeros(1, 1)).sum(), grids, steps)


def test_a_loss_that_is_not_finite_stops_the_training():
    layer = SplineKAN(1, 1)
    with pytest.raises(ValueError, match="got loss nan on grid 5"):
        train_refined(layer, lambda: layer(torch.full((1, 1), float("nan"))).sum(), (5,), 3)


def test_networks_whose_grid_cannot_be_refined_are_told():
    with pytest.raises(ValueError, match="got a Linear without extend_grid: expected a KAN or SplineKAN"):
        train_refined(torch.nn.Linear(1, 1), lambda: 0, (3, 6))
    with pytest.raises(ValueError, match="RSWAFKAN layers: expected SplineKAN alone"):
        train_refined(KAN((1, 1), layer="rswaf"), lambda: 0, (3, 6))


def fitted(network, steps, **options):
    x = torch.linspace(-1, 1, 80, dtype=torch.float64).unsqueeze(1)
    y = torch.sin(6 * x)
    settings = FlatTraining(adam_steps=5, lbfgs_steps=steps, plateau=0.01)
    loss = lambda: (network(x) - y).square().mean()  # noqa: E731
    return fit_flat(network, loss, settings, **options), float(loss().detach())


def test_a_flat_fit_ends_with_the_parameters_of_its_lowest_loss_and_its_curve_says_what_it_took():
    calls = []
    fit, loss = fitted(KAN((1, 1), grid=4, dtype=torch.float64), 60, watch=lambda: calls.append(1) or len(calls))
    curve = fit.curve
    assert fit.status == "finished" and fit.loss == loss == curve.losses[-1] < 0.1
    assert curve.watched.tolist() == list(range(1, len(calls) + 1)) and curve.iterations[0] == 1
    for column in (curve.iterations, curve.evaluations, curve.seconds):
        assert (np.diff(column) >= 0).all()
    assert curve.evaluations[-1] >= curve.iterations[-1] > 5 and set(curve.grid) == {0}


def test_a_flat_fit_goes_from_grid_to_grid_without_losing_what_was_learned():
    network = KAN((1, 1), grid=2, dtype=torch.float64)
    fit, loss = fitted(network, 90, grids=(2, 4, 8))
    assert network.layers[0].grid == 8 and fit.loss == loss
    ends = [fit.curve.losses[fit.curve.grid == grid] for grid in (2, 4, 8)]
    assert ends[0][-1] > 1.5 * ends[1][-1] > 2 * ends[2][-1]
    assert ends[1][0] <= 1.001 * ends[0][-1]  # 4 is a multiple of 2: the same function
    assert fit.curve.iterations[-1] <= 95
