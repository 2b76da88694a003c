"""Lotka-Volterra predator and prey: a closed orbit.

    x' = 1.5 x - x y        (prey)
    y' = -3 y + x y         (predator)

from (1, 1); trained on [0, 3.5], save points 0, 0.1, ..., 3.4; extrapolated to 14, about four periods.
First integral: x - 3 ln x + y - 1.5 ln y.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    x, y = u[..., 0], u[..., 1]
    return np.stack([1.5 * x - x * y, -3.0 * y + x * y], axis=-1)


def first_integral(u: np.ndarray) -> np.ndarray:
    x, y = u[..., 0], u[..., 1]
    return x - 3.0 * np.log(x) + y - 1.5 * np.log(y)


SYSTEM = System(
    name="lotka",
    title="Lotka-Volterra",
    citation="Lotka (1925); Volterra (1926); constants and spans of Koenig, Kim & Deng, KAN-ODEs (2024)",
    rhs=rhs,
    u0=np.array([1.0, 1.0]),
    train_end=3.5,
    test_end=14.0,
    train_saveat=np.arange(35) / 10,
    test_saveat=np.arange(141) / 10,
    labels=("prey x", "predator y"),
    # On the training span x runs over [0.948, 6.905], y over [0.257, 4.578]: mid-range, and half-range / 0.9.
    center=(3.9, 2.4),
    scale=(3.3, 2.4),
    rate=(4.6, 3.5),
    dimensionless=True,
    invariants={"first integral": first_integral},
    box=(np.array([0.5, 0.5]), np.array([2.0, 2.0])),  # around the orbit's start; orbits reach up to 10
)
