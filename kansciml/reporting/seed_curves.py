"""Curves of several seeds as one: their median, and a band from the lowest to the highest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kansciml.reporting.style import VariantStyle

MARKS = 12
"""Points up to which each has its mark."""


def median_over_seeds(curves: np.ndarray) -> np.ndarray:
    """Median of the finite values of each column: (seeds, points) -> (points,)."""
    return np.array([np.median(column[np.isfinite(column)]) for column in curves.T])


def band_over_seeds(axes: Axes, at: np.ndarray, values: np.ndarray, style: VariantStyle) -> None:
    """Draw `values`, (seeds, points), at `at`, (points,); points at which no seed is finite are left out."""
    kept = np.isfinite(values).any(axis=0)
    if not kept.any():
        return
    at, values = at[kept], values[:, kept]
    marker = style.marker if len(at) <= MARKS else ""
    axes.plot(at, np.nanmedian(values, axis=0), color=style.colour, linestyle=style.line, marker=marker)
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        axes.fill_between(at, low, high, color=style.colour, alpha=0.18, linewidth=0)
