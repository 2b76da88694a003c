"""Stochastic Lanczos quadrature against explicit matrices: moments, counts, densities, and honest standard errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.hessians import F64, operator_with

from kansciml import KansciError, UsageError
from kansciml.analysis.hessian._krylov.quadrature import mass_bounds
from kansciml.analysis.hessian.lanczos import lanczos
from kansciml.analysis.hessian.spectrum import Spectrum, count_above, spectral_density, symlog_edges


def hessian_like(n=300):
    """Ten outliers, a bulk of half of the eigenvalues, a third near zero, a negative tail of a tenth."""
    rng = np.random.default_rng(0)
    bulk, tail = np.exp(rng.uniform(-1, 1.6, n // 2)), -np.exp(rng.uniform(-1, 0.4, n // 10))
    outliers = np.array([200.0, 90, 80, 50, 40, 30, 25, 20, 15, 12])
    zeros = 1e-5 * rng.standard_normal(n - len(bulk) - len(tail) - len(outliers))
    return np.concatenate([outliers, bulk, zeros, tail])


VALUES = hessian_like()
THRESHOLDS = (-0.7, -0.2, 0.2, 1.0, 3.0)


def z_scores(spectrum, values):
    """Errors in units of the stated ones: moments 1 to 4, counts, negative mass."""
    found = [(spectrum.moment(p), np.mean(values**p)) for p in (1, 2, 3, 4)]
    found += [(spectrum.count_above(t), np.sum(values > t)) for t in THRESHOLDS]
    found += [(spectrum.negative_mass(0.1), np.mean(values < -0.1))]
    return [(one.value - truth) / one.standard_error for one, truth in found]


@pytest.fixture(scope="module")
def many():
    return spectral_density(operator_with(VALUES), steps=30, probes=400)


def scores_of(many, probes):
    """`z_scores` of groups of so many probes."""
    parts = [slice(first, first + probes) for first in range(0, many.probes, probes)]
    spectra = [replace(many, alpha=many.alpha[p], beta=many.beta[p], lengths=many.lengths[p]) for p in parts]
    return np.array([z_scores(spectrum, VALUES) for spectrum in spectra])


@pytest.mark.slow
def test_moments_and_counts_lie_within_three_standard_errors_in_each_of_20_groups(many):
    assert np.abs(scores_of(many, 20)).max() < 3


@pytest.mark.slow
def test_standard_errors_are_calibrated(many):
    """With 10 probes 66 % of the truths lie within one; over 40 groups that share has a standard deviation of 7.5 %."""
    inside = (np.abs(scores_of(many, 10)) <= 1).mean(0)
    in_gaps = [0, 1, 2, 3, 5, 6, 9]  # moments, counts above -0.2 and 0.2, negative mass
    assert np.all(inside > 0.53) and np.all(inside[in_gaps] < 0.83), inside  # amid the bulk they may be too large


def test_outliers_left_in_the_probes_break_the_calibration():
    """Why `deflate` is on by default: one eigenvalue then dominates every moment, and few probes see it right."""
    operator, values = operator_with(np.concatenate([[1000.0], VALUES])), np.concatenate([[1000.0], VALUES])
    errors = {
        deflate: spectral_density(operator, steps=40, probes=20, deflate=deflate).moment(2).standard_error
        for deflate in (0, 10)
    }
    assert errors[10] < 1e-3 * errors[0] and errors[0] > 0.1 * np.mean(values**2)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_extremes_and_deflated_eigenvalues(dtype):
    spectrum = spectral_density(operator_with(VALUES, dtype=dtype), steps=60, probes=2)
    rel = 1e-8 if dtype == F64 else 1e-5
    assert spectrum.extremes == pytest.approx((VALUES.min(), VALUES.max()), rel=rel)
    assert np.sort(spectrum.locked)[-10:] == pytest.approx(np.sort(VALUES)[-10:], rel=rel)


@pytest.mark.parametrize(
    "values",
    [[3], [0] * 9, [2] * 9, [1, -1] * 6, [3, 2, 1] + [0] * 40, [50] + [0.1] * 30, list(range(1, 8))],
    ids=["n = 1", "zero", "identity", "plus and minus", "rank 3", "one outlier", "n < steps"],
)  # fmt: skip
@pytest.mark.parametrize("deflate", [0, 10])
def test_few_distinct_eigenvalues(values, deflate):
    values = np.array(values, dtype=float)
    spectrum = spectral_density(operator_with(values), steps=20, probes=20, deflate=deflate)
    assert spectrum.weights.shape == (20, 20) and spectrum.lengths.max() <= min(len(values), 20)
    assert spectrum.moment(0).value == pytest.approx(1, abs=1e-12)
    for threshold in (-2, -0.5, 0.05, 1.5, 4.5):
        found, truth = spectrum.count_above(threshold), np.sum(values > threshold)
        assert abs(found.value - truth) <= 4 * found.standard_error + 1e-9, threshold
    found = spectrum.trace()
    assert abs(found.value - values.sum()) <= 4 * found.standard_error + 1e-9


def test_every_mass_lies_within_the_gauss_radau_bounds():
    """Per probe and exactly: the bounds hold for the measure of the very start vector, not only on average."""
    operator = operator_with(VALUES)
    eigenvalues, vectors = torch.linalg.eigh(operator.matrix)
    start = torch.randn(len(VALUES), generator=torch.Generator().manual_seed(5), dtype=F64)
    shares = ((vectors.T @ (start / start.norm())) ** 2).numpy()
    thresholds = np.concatenate([np.linspace(-1.2, 6, 80), np.geomspace(1e-4, 300, 60)])
    truth = np.array([shares[eigenvalues.numpy() <= t].sum() for t in thresholds])
    widths = []
    for steps in (5, 20, 80):
        found = lanczos(operator, start, steps)
        lower, upper = mass_bounds(found.alpha, found.beta, steps, thresholds, 1e-14)
        assert np.all(lower <= truth + 1e-12) and np.all(truth <= upper + 1e-12)
        widths.append(float((upper - lower).mean()))
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_an_unresolved_threshold_says_so():
    """Too few steps for eigenvalues ten million times below the largest: sampling alone would be too sure."""
    found = spectral_density(operator_with(VALUES), steps=15, probes=20, deflate=0).count_above(1e-6)
    truth = np.sum(VALUES > 1e-6)
    assert found.lower < truth < found.upper and found.upper - found.lower > 50
    assert abs(found.value - truth) < 3 * found.standard_error


def test_density_and_histogram_agree_with_the_exact_ones():
    spectrum = spectral_density(operator_with(VALUES), steps=60, probes=20)
    at = np.linspace(-2, 6, 50)
    mean, error = spectrum.density(at, 0.3)
    exact = np.exp(-0.5 * ((at[:, None] - VALUES) / 0.3) ** 2).mean(1) / (0.3 * math.sqrt(2 * math.pi))
    assert np.abs(mean - exact).max() < 4 * error.max() and np.all(np.abs(mean - exact) < 5 * error + 1e-4)
    edges = np.concatenate([[-np.inf], symlog_edges(-1, 200, 1e-3, per_decade=1), [np.inf]])
    share, error = spectrum.histogram(edges)
    assert share.sum() == pytest.approx(1) and np.all(share >= -1e-12)
    assert np.all(np.abs(share - np.histogram(VALUES, edges)[0] / len(VALUES)) <= 4 * error + 1e-9)


def test_negative_share_of_a_known_spectrum():
    spectrum = spectral_density(operator_with(VALUES), steps=50, probes=20)
    found, truth = spectrum.negative_share(), -VALUES[VALUES < 0].sum() / np.abs(VALUES).sum()
    assert abs(found.value - truth) < 3 * found.standard_error < 0.5 * truth
    assert spectral_density(operator_with(np.zeros(5)), probes=2).negative_share().value == 0
    assert spectral_density(operator_with(np.zeros(5)), probes=2).negative_mass().value == 0


def test_counts_of_several_thresholds_come_from_the_same_probes():
    operator = operator_with(VALUES)
    several = count_above(operator, [0.1, 1.0], steps=30, probes=3)
    assert several == [count_above(operator, t, steps=30, probes=3) for t in (0.1, 1.0)]


def test_a_single_probe_has_no_standard_error():
    spectrum = spectral_density(operator_with(VALUES), steps=20, probes=1)
    assert math.isnan(spectrum.moment(1).standard_error) and math.isnan(spectrum.count_above(1.0).standard_error)
    assert np.isnan(spectrum.density([0.0], 0.1)[1]).all()


def test_symlog_edges_cover_the_range_on_both_sides():
    edges = symlog_edges(-3, 250, 0.1, per_decade=2)
    assert np.all(np.diff(edges) > 0) and edges[0] <= -3 and edges[-1] >= 250
    assert np.allclose(edges[edges > 0][1:] / edges[edges > 0][:-1], math.sqrt(10))
    assert symlog_edges(0.01, 0.02, 0.1) == pytest.approx([-0.1, 0.1])


def test_a_spectrum_survives_an_npz_file(tmp_path):
    spectrum = spectral_density(operator_with(VALUES), steps=20, probes=3)
    np.savez(tmp_path / "arrays.npz", other=np.ones(2), **spectrum.to_arrays())
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as file:
        again = Spectrum.from_arrays(file)
    assert again.count_above(0.5) == spectrum.count_above(0.5) and again.fingerprint == spectrum.fingerprint
    with pytest.raises(KansciError, match="missing"):
        Spectrum.from_arrays({"alpha": np.ones((1, 1))})


@pytest.mark.parametrize(
    "call",
    [
        lambda: spectral_density(operator_with([1.0, 2.0]), steps=0),
        lambda: spectral_density(operator_with([1.0, 2.0]), probes=0),
        lambda: spectral_density(operator_with([1.0, 2.0]), seed=-1),
        lambda: spectral_density(operator_with([1.0, 2.0]), deflate=-1),
        lambda: spectral_density(operator_with([1.0, 2.0])).moment(-1),
        lambda: spectral_density(operator_with([1.0, 2.0])).density([0.0], 0.0),
        lambda: spectral_density(operator_with([1.0, 2.0])).histogram([1.0, 0.0]),
        lambda: symlog_edges(0, 1, 0.0),
    ],
)
def test_bad_arguments_are_one_line(call):
    with pytest.raises(UsageError, match="expected") as caught:
        call()
    assert "\n" not in str(caught.value)
