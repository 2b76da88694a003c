"""Errors against values worked out by hand, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.tasks.ode.evaluation import mse, relative_mse

DATA = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 16.0]])  # means 2 and 12; variation 8 + 24


def test_values_by_hand() -> None:
    u = DATA + np.array([[1.0, 0.0], [0.0, -2.0], [0.0, 0.0]])
    assert mse(u, DATA) == pytest.approx(5 / 6)
    assert relative_mse(u, DATA) == pytest.approx(5 / 32)


def test_perfect_and_mean_predictions() -> None:
    assert mse(DATA, DATA) == relative_mse(DATA, DATA) == 0.0
    assert relative_mse(np.broadcast_to(DATA.mean(axis=0), DATA.shape), DATA) == pytest.approx(1.0)


def test_relative_error_ignores_units_and_offsets() -> None:
    u = DATA + np.random.default_rng(0).standard_normal(DATA.shape)
    assert relative_mse(7.0 * u + 3.0, 7.0 * DATA + 3.0) == pytest.approx(relative_mse(u, DATA))
    assert mse(7.0 * u + 3.0, 7.0 * DATA + 3.0) == pytest.approx(49.0 * mse(u, DATA))


def test_relative_error_of_constant_data_is_refused() -> None:
    with pytest.raises(UsageError, match="constant in time"):
        relative_mse(np.zeros((3, 2)), np.ones((3, 2)))
