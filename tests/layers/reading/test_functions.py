"""Values of a function of the library are read as that function, with its constants; a simpler one wins if it may."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kansciml.layers.reading.functions import FUNCTIONS, Fit, fit_edges, share_explained
from kansciml.layers.reading.symbolic import chosen_of

X = np.sort(np.random.default_rng(0).uniform(0.5, 2.5, 300))
X[0] = 0.5
TRUTH = {  # a, b, c, d in the form that is told
    "x": (1, 0, -2, 0.5),
    "x^2": (1, -1.2, 3, -1),
    "exp": (-1.3, 0.4, -1, 2),
    "sqrt": (1, -0.5, 2, 1),  # begins where the inputs do
    "log": (-1, 2.6, -0.7, 0),
    "1/x": (1, 0.2, -0.3, 5),
    "x^3": (1, -1.5, 0.1, 0),
    "1/x^2": (1, -3.1, 4, 0),
    "x^4": (1, -1.3, 2, 7),
    "abs": (1, -1.1, -1, 0),
    "sin": (4.0, -0.9, -0.2, 1),
    "tanh": (2.5, -4.0, 3, 0),
    "gaussian": (2.0, -3.2, 0.5, 0.5),
    "arctan": (6.0, -8.0, 1, 0),
}


def values(name, x, a, b, c, d):
    return c * FUNCTIONS[name].value(a * x + b) + d


def test_every_function_is_found_again_with_its_constants():
    assert TRUTH.keys() == FUNCTIONS.keys()
    found = fit_edges(X, np.stack([values(name, X, *truth) for name, truth in TRUTH.items()], 1), list(FUNCTIONS))
    for fits, (name, truth) in zip(found, TRUTH.items()):
        fit = chosen_of(fits, 0.999)
        assert fit.function == name and fit.r2 > 1 - 1e-7, (name, fit)
        loose = 2e-4 if name == "sqrt" else 1e-6  # no branch point is nearer to the inputs than a millionth
        np.testing.assert_allclose([fit.a, fit.b, fit.c, fit.d], truth, rtol=loose, atol=loose, err_msg=name)
        assert [one.r2 for one in fits] == sorted((one.r2 for one in fits), reverse=True)
        np.testing.assert_allclose(fit(X), values(name, X, *truth), atol=2e-3 if name == "sqrt" else 1e-6)


def test_what_is_found_does_not_depend_on_the_scale_or_the_place_of_inputs_and_values():
    for scale, shift in ((1e-6, 0.0), (1e5, 3e7)):
        y = np.stack([1e-9 * values(name, X, *truth) + 2e-9 for name, truth in TRUTH.items()], 1)
        found = fit_edges(scale * X + shift, y, list(FUNCTIONS))
        assert [chosen_of(fits, 0.999).function for fits in found] == list(TRUTH)


def test_formulas_are_written_as_one_reads_them():
    written = [str(Fit(name, *constants, 1.0)) for name, constants in TRUTH.items()]
    assert written[:6] == [
        "-2 x + 0.5",
        "3 (x - 1.2)^2 - 1",
        "-exp(-1.3 x + 0.4) + 2",
        "2 sqrt(x - 0.5) + 1",
        "-0.7 log(-x + 2.6)",
        "-0.3 (x + 0.2)^-1 + 5",
    ]
    assert [str(Fit("x^2", 1, 0, 1, 0, 1.0)), str(Fit("constant", 1, 0, 0, 0.25, 1.0))] == ["x^2", "0.25"]


@pytest.mark.parametrize(
    "r2, expected",
    [
        ({"x": 0.9999, "exp": 0.99998, "sin": 0.99999}, "x"),  # a constant more explains five times as well
        ({"x": 0.9999, "exp": 0.999995, "sin": 0.999996}, "exp"),  # twenty times
        ({"x": 0.998, "exp": 0.9992, "sin": 0.9993}, "exp"),  # x is below the threshold
        ({"x": 0.9, "exp": 0.95, "sin": 0.99}, "sin"),  # all are: the best
        ({"x": 1 - 1e-9, "exp": 1.0, "sin": 1.0}, "x"),  # all are exact
        ({"exp": 0.99991, "log": 0.99994, "sin": 0.99995}, "exp"),  # alike: the first
        ({"exp": 0.9995, "log": 0.99994}, "log"),
    ],
)
def test_the_simplest_good_function_is_taken(r2, expected):
    fits = [Fit(name, 1, 0, 1, 0, share) for name, share in r2.items()]
    assert chosen_of(fits, 0.999).function == expected


def test_the_share_that_is_explained_has_closed_forms():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert share_explained(y, y) == 1.0
    assert share_explained(y, np.full(4, 2.5)) == 0.0
    assert share_explained(y, y + np.array([0.5, -0.5, 0.5, -0.5])) == pytest.approx(0.8)
    assert share_explained(y, np.array([1.0, np.nan, 3.0, 4.0])) == -math.inf
    assert share_explained(np.ones(4), np.ones(4) + 1e-14) > 0.99
