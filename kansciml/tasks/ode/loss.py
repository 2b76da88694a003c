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
    _check_shapes(u, data)
    return float(np.mean((np.asarray(u) - np.asarray(data)) ** 2))


def relative_mse(u: np.ndarray, data: np.ndarray) -> float:
    """Squared error relative to the variation of the data, pooled over components (dimensionless, in any unit).

    sum_{t,i} (u_ti - d_ti)^2 / sum_{t,i} (d_ti - mean_t d_ti)^2: predicting each component's mean over time gives 1.
    Components are pooled so that one that hardly varies does not dominate.

    Args:
        u, data: predicted and true states, both (T, n).

    Raises:
        UsageError: the shapes differ, or the data are constant in time (to rounding).
    """
    _check_shapes(u, data)
    spread = np.ptp(data, axis=0)
    if not np.any(spread > 4 * np.finfo(np.float64).eps * np.abs(data).max(axis=0)):  # a mean is not exact either
        what = "there is one row of data" if len(data) == 1 else f"the {len(data)} rows of data are constant in time"
        raise UsageError(f"{what}: the relative error is undefined, use the mean squared error")
    unit = spread.max()  # squares of very small or large numbers leave float64
    error, variation = np.sum(((u - data) / unit) ** 2), np.sum(((data - np.mean(data, axis=0)) / unit) ** 2)
    return float(error / variation)


def _check_shapes(u: np.ndarray, data: np.ndarray) -> None:
    # Broadcasting (n,) against (T, n) would return a plausible wrong number.
    if np.shape(u) != np.shape(data) or np.ndim(data) != 2 or np.size(data) == 0:
        raise UsageError(f"got states of shape {np.shape(u)} and data {np.shape(data)}: expected both (T, n)")
