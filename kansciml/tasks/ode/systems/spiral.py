"""Spiral: a cubic oscillator with cubic damping, slowing down as it decays.

    y1' = -0.1 y1^3 - 2 y2^3
    y2' = 2 y1^3 - 0.1 y2^3

from (2, 0); trained on [0, 1.5] with 30 save points, extrapolated to 3.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    cube = u * u * u
    y1, y2 = cube[..., 0], cube[..., 1]
    return np.stack([-0.1 * y1 - 2.0 * y2, 2.0 * y1 - 0.1 * y2], axis=-1)


SYSTEM = System(
    name="spiral",
    title="Spiral",
    citation="Chen, Rubanova, Bettencourt & Duvenaud, Neural Ordinary Differential Equations (2018)",
    rhs=rhs,
    u0=np.array([2.0, 0.0]),
    train_end=1.5,
    test_end=3.0,
    train_saveat=1.5 * np.arange(30) / 29,
    test_saveat=1.5 * np.arange(117) / 58,
    labels=("y1", "y2"),
    # Both components alike and about 0, the centre of the spiral: the largest, y1 = 2, becomes 0.91. With centre 0 an
    # odd input power still gives the cubes that make the problem linear.
    center=(0.0, 0.0),
    scale=(2.2, 2.2),
    rate=(6.4, 6.4),
    dimensionless=True,
    box=(np.array([-2.0, -2.0]), np.array([2.0, 2.0])),  # all decay
)
