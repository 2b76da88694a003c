"""Specs: parameter counts of the literature, layout, and one clear line for each malformed request."""

from dataclasses import replace

import numpy as np
import pytest

from kansciml import FieldSpec, OdeProblem, UsageError
from kansciml.backends._kernels import bind


def test_parameter_counts_of_the_literature():
    assert FieldSpec("mlp", (2, 50, 2)).n_parameters == 252
    assert FieldSpec("kan", (2, 6, 2)).n_parameters == 240
    assert FieldSpec("kan", (64, 64)).n_parameters == 40_960


def test_layout_covers_the_vector_once():
    spec = FieldSpec("kan", (2, 3, 2), grid=4, spline_order=2)
    covered = np.zeros(spec.n_parameters)
    for block in spec.layout():
        covered[block.offset : block.offset + block.size] += 1
    np.testing.assert_array_equal(covered, 1)
    views = spec.unpack(covered)
    views[1]["spline_scale"][...] = 7
    assert (covered == 7).sum() == 6  # views, not copies


def test_initial_parameters_depend_on_the_seed_alone():
    spec = FieldSpec("kan", (2, 3, 2))
    np.testing.assert_array_equal(spec.initial_parameters(1), spec.initial_parameters(1))
    assert not np.array_equal(spec.initial_parameters(1), spec.initial_parameters(2))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model": "cnn"}, "unknown model 'cnn': expected one of mlp, kan"),
        ({"activation": "swish"}, "unknown activation"),
        ({"widths": (2,)}, "at least two"),
        ({"widths": (2, 0, 2)}, "positive layer widths"),
        ({"widths": (2, 4, 3)}, "both be the state size"),
        ({"grid": 0}, "at least 1"),
        ({"grid_range": (1.0, -1.0)}, "lower then higher"),
        ({"scale": (1.0,)}, "got 1 values for scale: expected 2"),
        ({"scale": (1.0, 0.0)}, "positive"),
        ({"input_power": 2}, "odd"),
    ],
)
def test_bad_specs_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        FieldSpec(**{"model": "kan", "widths": (2, 3, 2), **options})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"u0": np.zeros(3)}, r"got u0 of shape \(3,\) and data of shape \(3, 2\)"),
        ({"data": np.zeros((3, 1))}, r"data of shape \(3, 1\)"),
        ({"data": np.full((3, 2), np.nan)}, "nothing is measured"),
        ({"data": np.full((3, 2), np.inf)}, "not finite"),
        ({"saveat": np.array([0.0, 2.0, 1.0])}, "strictly increasing"),
        ({"saveat": np.array([0.0, 1.0])}, "got 2 save times and 3 rows"),
        ({"t0": 0.5}, "start at t0 or later"),
        ({"rtol": -1e-7}, "positive tolerances"),
        ({"atol": float("nan")}, "positive tolerances"),
        ({"loss_scale": np.array([1.0, 0.0])}, "loss_scale"),
    ],
)
def test_bad_problems_are_named(options, message):
    good = {"u0": np.zeros(2), "saveat": np.arange(3.0), "data": np.zeros((3, 2))}
    with pytest.raises(UsageError, match=message):
        OdeProblem.single(FieldSpec("mlp", (2, 3, 2)), **{**good, **options})


@pytest.mark.parametrize("model", ["mlp", "kan"])
def test_a_stiff_problem_begins_with_a_field_whose_states_relax_to_their_center(model):
    field = FieldSpec(model, (2, 5, 2), center=(3.0, -1e-5), scale=(2.0, 1e-5), rate=(4.0, 1e3), squash=model == "kan")
    problem = OdeProblem.single(field, [1.0, 0.0], [1.0], [[2.0, 0.0]], solver="Rodas5P")
    params = problem.initial_parameters(1)
    kernel, rng = bind(field, params), np.random.default_rng(0)
    z = rng.uniform(-1, 1, (200, 2))
    slopes = kernel.batch(z * field.scale + field.center, np.zeros(200)) / field.rate
    np.testing.assert_allclose(slopes, -z, atol=0.4)
    assert np.corrcoef(slopes.ravel(), -z.ravel())[0, 1] > 0.98
    hidden = field.layout()[0].size
    np.testing.assert_array_equal(params[:hidden], field.initial_parameters(1)[:hidden])
    assert not np.array_equal(params, field.initial_parameters(1))
    np.testing.assert_array_equal(replace(problem, solver="8").initial_parameters(1), field.initial_parameters(1))
