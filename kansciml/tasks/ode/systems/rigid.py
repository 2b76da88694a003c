"""Euler's equations of a free rigid body: a closed orbit on the intersection of two quadrics.

    y1' = -2 y2 y3
    y2' = 1.25 y1 y3
    y3' = -0.5 y1 y2

from (1, 0, 0.9); trained on [0, 20] with 101 save points, extrapolated to 40.
Invariants: 0.5 y1^2 + 2 y2^2 + 3 y3^2 = 2.93 and, independent of it, 5 y1^2 + 8 y2^2 = 5.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    y1, y2, y3 = u[..., 0], u[..., 1], u[..., 2]
    return np.stack([-2.0 * y2 * y3, 1.25 * y1 * y3, -0.5 * y1 * y2], axis=-1)


def ellipsoid(u: np.ndarray) -> np.ndarray:
    return 0.5 * u[..., 0] ** 2 + 2.0 * u[..., 1] ** 2 + 3.0 * u[..., 2] ** 2


def cylinder(u: np.ndarray) -> np.ndarray:
    return 5.0 * u[..., 0] ** 2 + 8.0 * u[..., 1] ** 2


SYSTEM = System(
    name="rigid",
    title="Rigid body",
    citation="Euler (1758); constants of SciMLBenchmarks, non-stiff problems",
    rhs=rhs,
    u0=np.array([1.0, 0.0, 0.9]),
    train_end=20.0,
    test_end=40.0,
    train_saveat=np.arange(101) / 5,
    test_saveat=np.arange(201) / 5,
    labels=("y1", "y2", "y3"),
    # One treatment for the three angular momenta, about 0, where the equations are symmetric: the largest, |y1| = 1,
    # becomes 0.91. Standardising each component would blow y3, which stays in [0.748, 0.9], up by a factor of 13
    # against y1 and weigh its error accordingly. The rate is likewise that of the three together.
    center=(0.0, 0.0, 0.0),
    scale=(1.1, 1.1, 1.1),
    rate=(0.68, 0.68, 0.68),
    dimensionless=True,
    invariants={"ellipsoid": ellipsoid, "cylinder": cylinder},
    box=(np.array([-1.0, -1.0, -1.0]), np.array([1.0, 1.0, 1.0])),  # |y1|, |y2|, |y3| stay bounded by the invariants
)
