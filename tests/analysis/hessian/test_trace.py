"""Trace estimators: unbiased, with standard errors that cover the truth as they should; exact where they can be."""

import math

import numpy as np
import pytest
import torch
from support.hessians import operator_with

from kansciml import UsageError
from kansciml.analysis.hessian.trace import METHODS, trace

RNG = np.random.default_rng(0)
SPECTRA = {
    "flat": RNG.uniform(-1, 2, 200),
    "outliers": np.concatenate([[100, 40, 20, 10, 5, -2], 0.1 * RNG.standard_normal(194)]),
    "decay": 1 / np.arange(1, 201) ** 2.0,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SPECTRA)
def test_unbiased_with_calibrated_standard_errors(name, method):
    values = SPECTRA[name]
    operator, truth = operator_with(values), values.sum()
    found = [trace(operator, matvecs=60, method=method, seed=seed) for seed in range(100)]
    errors = np.array([one.value - truth for one in found])
    stated = np.array([one.standard_error for one in found])
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(len(errors))
    # XTrace's estimates are not independent: where the spectrum decays fast, its error comes out a fifth too small
    assert 0.75 < np.sqrt(np.mean(stated**2) / np.mean(errors**2)) < 1.25
    # 68 % +- 4.7 % (one sigma of 100 seeds); skewness of few samples takes some off
    assert 0.52 <= np.mean(np.abs(errors) <= stated) <= 0.82


def test_deflation_beats_hutchinson_where_outliers_dominate():
    operator, truth = operator_with(SPECTRA["outliers"]), SPECTRA["outliers"].sum()
    rms = {
        method: np.std([trace(operator, matvecs=60, method=method, seed=s).value - truth for s in range(20)])
        for method in METHODS
    }
    assert rms["xtrace"] < rms["hutchinson"] / 10 and rms["hutch++"] < rms["hutchinson"] / 10


@pytest.mark.parametrize("method", METHODS)
def test_exact_with_as_many_products_as_dimensions(method):
    for values in ([3.0], [1.0, 2.0, -5.0], np.zeros(6)):
        found = trace(operator_with(values), matvecs=6, method=method)
        assert found.value == pytest.approx(np.sum(values), abs=1e-13) and found.standard_error == 0


@pytest.mark.parametrize("method", ["xtrace", "hutch++"])
@pytest.mark.parametrize("values", [np.zeros(50), np.concatenate([[3, 2, 1], np.zeros(47)])])
def test_a_range_smaller_than_the_test_vectors_is_found_exactly(method, values):
    found = trace(operator_with(values), matvecs=30, method=method)
    assert found.value == pytest.approx(values.sum(), abs=1e-12) and found.standard_error < 1e-12


def test_deterministic_given_a_seed_and_float32():
    operator = operator_with(SPECTRA["decay"], torch.float32)
    a, b, c = (trace(operator, matvecs=40, seed=seed) for seed in (1, 1, 2))
    assert a == b != c
    assert a.value == pytest.approx(SPECTRA["decay"].sum(), rel=1e-2)


def test_a_single_hutchinson_probe_has_no_standard_error():
    assert math.isnan(trace(operator_with(SPECTRA["flat"]), matvecs=1, method="hutchinson").standard_error)


@pytest.mark.parametrize("settings", [{"method": "guess"}, {"matvecs": 0}, {"matvecs": 3}, {"seed": -1}])
def test_bad_arguments_are_one_line(settings):
    with pytest.raises(UsageError, match="expected"):
        trace(operator_with(SPECTRA["flat"]), **settings)
