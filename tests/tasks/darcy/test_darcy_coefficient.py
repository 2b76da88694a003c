"""Random fields: their covariance against the operator it inverts and against many draws; their random streams."""

from __future__ import annotations

import numpy as np
import pytest

from kansciml.tasks.darcy.coefficient import coefficient, gaussian_function, mode_weights, sample_generator, spectrum
from kansciml.tasks.darcy.config import DarcyConfig

TAU, ALPHA = 3.0, 2.0


def eigenfunctions(s: int) -> np.ndarray:
    """(s, s): mode k (row) at the nodes."""
    k = np.arange(s)
    return np.where(k[:, None] > 0, np.sqrt(2), 1) * np.cos(np.pi * np.outer(k, np.linspace(0, 1, s)))


def covariance(s: int) -> np.ndarray:
    """(s^2, s^2) of the field at the nodes."""
    phi = eigenfunctions(s)
    modes = np.einsum("ji,kl->jkil", phi, phi).reshape(s * s, s * s)
    return np.einsum("mp,m,mq->pq", modes, spectrum(s, TAU, ALPHA).ravel(), modes, optimize=True)


def test_a_field_is_its_sum_of_cosines() -> None:
    s = 12
    weights = np.random.default_rng(0).standard_normal((s, s))
    phi = eigenfunctions(s)
    expected = phi.T @ (np.sqrt(spectrum(s, 2.0, 1.5)) * weights) @ phi
    np.testing.assert_allclose(gaussian_function(weights, 2.0, 1.5), expected, rtol=0, atol=1e-14)


def test_the_covariance_is_the_inverse_square_of_the_neumann_operator() -> None:
    """Finite elements on the same nodes, which know nothing of cosines: (K + tau^2 M)^-1 M (K + tau^2 M)^-1."""
    errors = []
    for s in (13, 25):
        h = 1 / (s - 1)
        mass = h * np.diag([0.5, *np.ones(s - 2), 0.5])
        stiff = (2 * np.eye(s) - np.eye(s, k=1) - np.eye(s, k=-1)) / h
        stiff[0, 0] = stiff[-1, -1] = 1 / h
        masses = np.kron(mass, mass)
        inverse = np.linalg.inv(np.kron(stiff, mass) + np.kron(mass, stiff) + TAU**2 * masses)
        expected = inverse @ masses @ inverse - TAU**-4  # without its constant mode
        errors.append(np.abs(covariance(s) - expected).max() / expected.max())
    # Modes in both tend to the truth as h^2 log(1 / h), at the corners, where the variance is largest.
    assert errors[1] < 0.02 and 2.5 < errors[0] / errors[1] < 4


def test_many_fields_have_that_covariance() -> None:
    s, n = 9, 4000
    rng = np.random.default_rng(1)
    fields = np.array([gaussian_function(mode_weights(rng, s), TAU, ALPHA).ravel() for _ in range(n)])
    truth = covariance(s)
    variance = np.diag(truth)
    error = np.sqrt((np.outer(variance, variance) + truth**2) / n)
    z = (fields.T @ fields / n - truth) / error
    assert np.abs(z).max() < 4.5  # of 3321 different pairs
    assert 0.5 < np.sqrt((z**2).mean()) < 1.5
    mean = fields.mean(0) / np.sqrt(variance / n)
    assert np.abs(mean).max() < 4
    # the guard can fail: another smoothness is far outside
    other = covariance(s) * 1.1
    assert np.abs((fields.T @ fields / n - other) / error).max() > 4.5


def test_weights_are_independent_and_normal() -> None:
    n, s = 3000, 6
    rng = np.random.default_rng(2)
    weights = np.array([mode_weights(rng, s).ravel() for _ in range(n)])
    off = (np.corrcoef(weights.T) - np.eye(s * s)) * np.sqrt(n)
    assert np.abs(off).max() < 4.5
    assert np.abs((weights**2).mean(0) - 1).max() < 4.5 * np.sqrt(2 / n)
    assert np.abs((weights**4).mean() - 3) < 4.5 * np.sqrt(96 / (n * s * s))


def test_a_field_has_no_constant_mode() -> None:
    s = 40
    trapezium = np.array([0.5, *np.ones(s - 2), 0.5]) / (s - 1)
    field = gaussian_function(mode_weights(np.random.default_rng(3), s))
    assert abs(trapezium @ field @ trapezium) < 1e-15 and np.abs(field).max() > 0.01


def test_one_sample_is_one_function_at_every_resolution() -> None:
    coarse, fine = (mode_weights(sample_generator(5, "train", 2), s) for s in (21, 41))
    np.testing.assert_array_equal(coarse, fine[:21, :21])
    a, b = (coefficient(DarcyConfig(resolution=s, subsample=1), "train", 0) for s in (61, 121))
    assert np.mean(a != b[::2, ::2]) < 0.03


def test_streams_of_samples_are_apart() -> None:
    draws = [
        sample_generator(seed, split, index).standard_normal(3).tolist()
        for seed in (0, 1)
        for split in ("train", "test")
        for index in (0, 1, 1023)
    ]
    assert len({tuple(draw) for draw in draws}) == len(draws)
    assert sample_generator(1, "test", 1023).standard_normal(3).tolist() == draws[-1]


def test_half_of_the_square_has_each_coefficient() -> None:
    config = DarcyConfig(resolution=21, subsample=1, low=2.0, high=5.0)
    a = np.array([coefficient(config, "test", i) for i in range(300)])
    assert set(np.unique(a)) == {2.0, 5.0}
    share = (a == 5.0).mean((1, 2))
    assert abs(share.mean() - 0.5) < 4 * share.std() / np.sqrt(300)


@pytest.mark.parametrize("tau", [0.0, 3.0])
def test_spectrum(tau: float) -> None:
    values = spectrum(5, tau, 2.0)
    assert values[0, 0] == 0 and values[2, 1] == pytest.approx((5 * np.pi**2 + tau**2) ** -2)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1.0


def test_samples_stay_what_they_were() -> None:
    """Another NumPy with another stream would silently mix two data sets in one folder: raise config.FORMAT then."""
    draws = sample_generator(0, "train", 0).standard_normal(3), sample_generator(0, "test", 499).standard_normal(1)
    np.testing.assert_allclose(
        np.concatenate(draws),
        [0.7859067677198036, -0.9199529560235964, 1.4715789384981375, 0.576429667410251],
        rtol=1e-12,
    )
