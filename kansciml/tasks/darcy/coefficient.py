"""Gaussian random functions on the unit square, and the piecewise constant coefficients cut from them.

With Neumann boundary conditions, -Laplace has eigenfunctions c_j c_k cos(pi j x) cos(pi k y), c_0 = 1 and else sqrt(2).
A function of covariance (-Laplace + tau^2)^-alpha without its constant mode is their sum with independent normal
weights of variance lambda_jk (Karhunen-Loeve); its values at the nodes i / (s - 1) are one discrete cosine transform of
type I.

Source: Li et al., Fourier neural operator for parametric partial differential equations (2021), section A.3.2.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int
from scipy import fft

from kansciml.tasks.darcy.config import SPLITS, DarcyConfig


def sample_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random numbers of one sample: a stream of its own, so that no sample depends on how many there are."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index)))


@lru_cache(maxsize=4)
def spectrum(resolution: int, tau: float = 3.0, alpha: float = 2.0) -> Float64[np.ndarray, "s s"]:
    """lambda_jk = (pi^2 (j^2 + k^2) + tau^2)^-alpha for j, k < s = resolution; lambda_00 = 0. Read-only."""
    k = np.arange(resolution, dtype=np.float64)
    values = np.pi**2 * (k[:, None] ** 2 + k**2) + tau**2
    values[0, 0] = 1.0  # tau may be 0
    values **= -alpha
    values[0, 0] = 0.0
    values.flags.writeable = False
    return values


def mode_weights(rng: np.random.Generator, resolution: int) -> Float64[np.ndarray, "s s"]:
    """Independent standard normal weights of the modes j, k < s = resolution.

    They are drawn in squares that grow with max(j, k): a coarser grid takes the first of the same numbers, so that one
    sample is one function, seen at every resolution.
    """
    return rng.standard_normal(resolution**2)[_position(resolution)]


def gaussian_function(
    weights: Float64[np.ndarray, "s s"], tau: float = 3.0, alpha: float = 2.0
) -> Float64[np.ndarray, "s s"]:
    """sum_jk sqrt(lambda_jk) w_jk c_j c_k cos(pi j x) cos(pi k y) at the nodes of the unit square.

    Args:
        weights: w, see `mode_weights`.
        tau: inverse length scale, default 3.
        alpha: smoothness, default 2.

    Returns:
        value [i, l] at x = i / (s - 1), y = l / (s - 1).
    """
    resolution = len(weights)
    # The transform counts every cosine twice but the first and the last.
    factor = np.full(resolution, np.sqrt(2.0) / 2)
    factor[0], factor[-1] = 1.0, np.sqrt(2.0)
    values = np.sqrt(spectrum(resolution, tau, alpha)) * weights * factor[:, None] * factor
    return fft.dctn(values, type=1, overwrite_x=True)


def coefficient(config: DarcyConfig, split: str, index: int) -> Float64[np.ndarray, "s s"]:
    """a of one sample at the full resolution: `high` where its random function is >= 0, else `low`."""
    weights = mode_weights(sample_generator(config.data_seed, split, index), config.resolution)
    return np.where(gaussian_function(weights, config.tau, config.alpha) >= 0, config.high, config.low)


@lru_cache(maxsize=4)
def _position(resolution: int) -> Int[np.ndarray, "s s"]:
    """Place of mode j, k among the numbers drawn: after m^2 smaller ones, m = max(j, k); row m, column m."""
    j, k = np.indices((resolution, resolution))
    largest = np.maximum(j, k)
    return largest**2 + np.where(j == largest, k, largest + 1 + j)
