"""Robertson's chemical kinetics: three species, reactions whose rates differ by nine orders of magnitude.

    A -> B              k1 = 0.04
    B + B -> B + C      k2 = 3e7
    B + C -> A + C      k3 = 1e4

    y1' = -k1 y1 + k3 y2 y3
    y2' = k1 y1 - k3 y2 y3 - k2 y2^2
    y3' = k2 y2^2

from (1, 0, 0); trained on [0, 1e5] with 51 save points from 1e-5 to 1e5, five per decade; extrapolated to 1e6.
Invariant: the mass y1 + y2 + y3 = 1. Slopes fall by six orders of magnitude, so that small changes of a field move its
later states far: learning rates are low, L-BFGS is long, and states beyond the data are squashed into a KAN's grid.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System

K1, K2, K3 = 0.04, 3e7, 1e4


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    y1, y2, y3 = u[..., 0], u[..., 1], u[..., 2]
    forward, back, last = K1 * y1, K3 * y2 * y3, K2 * y2 * y2
    return np.stack([back - forward, forward - back - last, last], axis=-1)


def mass(u: np.ndarray) -> np.ndarray:
    return u[..., 0] + u[..., 1] + u[..., 2]


SAVEAT = 10.0 ** (np.arange(56) / 5 - 5)

SYSTEM = System(
    name="robertson",
    title="Robertson's kinetics",
    citation="Robertson (1966); scaled as by Kim, Ji, Deng, Ma & Rackauckas, Stiff neural ODEs, Chaos 31 (2021)",
    rhs=rhs,
    u0=np.array([1.0, 0.0, 0.0]),
    train_end=1e5,
    test_end=1e6,
    train_saveat=SAVEAT[:51],
    test_saveat=np.concatenate([[0.0], SAVEAT]),
    labels=("A", "B", "C"),
    # At the save points A runs over [0.0179, 1], B over [0, 3.65e-5], C over [0, 0.982]: mid-range, half-range / 0.9.
    center=(0.51, 1.83e-5, 0.49),
    scale=(0.55, 2.03e-5, 0.55),
    rate=(0.028, 0.017, 0.0214),  # root mean square slopes at the save points; most of them lie in the transient
    loss_scale=np.array([0.35, 1.46e-5, 0.35]),
    invariants={"mass": mass},
    stiff=True,
    log_time=True,
    field_settings={"input_scaling": "affine+tanh"},
    training_settings={
        **{"learning_rate": 3e-3, "final_learning_rate": 3e-4},
        **{"lbfgs_steps": 6000, "lbfgs_memory": 100},
    },
    box=(np.array([0.5, 0.0, 0.0]), np.array([1.0, 2e-5, 0.5])),
)
