"""Errors of predicted trajectories against data, in NumPy."""

from __future__ import annotations

import numpy as np

from kansciml._errors import UsageError


def mse(u: np.ndarray, data: np.ndarray) -> float:
    """Mean squared error over save points and components, in squared state units.

    Args:
        u, data: predicted and true states, both (T, n).

    Raises:
        UsageError: the shapes differ.
    """
    return float(np.mean(_squared_error(u, data)))


def relative_mse(u: np.ndarray, data: np.ndarray) -> float:
    """Squared error relative to the variation of the data, pooled over components (dimensionless).

    sum_{t,i} (u_ti - d_ti)^2 / sum_{t,i} (d_ti - mean_t d_ti)^2: predicting each component's mean over time gives 1.
    Components are pooled so that one that hardly varies does not dominate.

    Args:
        u, data: predicted and true states, both (T, n).

    Raises:
        UsageError: the shapes differ, or the data are constant in time.
    """
    error = np.sum(_squared_error(u, data))
    variation = np.sum((data - np.mean(data, axis=0)) ** 2)
    if variation == 0:
        raise UsageError("the data are constant in time: their relative error is undefined, use the mean squared error")
    return float(error / variation)


def _squared_error(u: np.ndarray, data: np.ndarray) -> np.ndarray:
    # Broadcasting (n,) against (T, n) would return a plausible wrong number.
    if np.shape(u) != np.shape(data) or np.ndim(data) != 2 or np.size(data) == 0:
        raise UsageError(f"got states of shape {np.shape(u)} and data {np.shape(data)}: expected both (T, n)")
    return (np.asarray(u) - np.asarray(data)) ** 2
