"""Pleiades: seven stars in a plane under gravity, masses m_i = i, G = 1, with close encounters.

    x_i'' = sum_{j != i} m_j (x_j - x_i) / r_ij^3,      r_ij^2 = (x_i - x_j)^2 + (y_i - y_j)^2,

and alike for y. State (x, y, x', y'), 28 components. Trained on [0, 1.4] with 29 save points, before the closest
encounter (stars 1 and 7, r = 0.0336 at t = 1.679); the whole span of the literature, [0, 3] with 61 points, is the
test span. The training loss divides positions and velocities by the standard deviation of each of the two groups.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System

MASSES = np.arange(1.0, 8.0)
N = len(MASSES)


def _split(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x', y', each (..., 7)."""
    return u[..., :N], u[..., N : 2 * N], u[..., 2 * N : 3 * N], u[..., 3 * N :]


def _differences(x: np.ndarray) -> np.ndarray:
    """x_j - x_i at [..., i, j]."""
    return x[..., None, :] - x[..., :, None]


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    x, y, vx, vy = _split(u)
    dx, dy = _differences(x), _differences(y)  # (..., 7, 7)
    squared = dx * dx + dy * dy + np.eye(N)  # the 1 on the diagonal avoids 0 / 0; dx = dy = 0 there
    pull = MASSES / (squared * np.sqrt(squared))
    return np.concatenate([vx, vy, np.sum(pull * dx, axis=-1), np.sum(pull * dy, axis=-1)], axis=-1)


def energy(u: np.ndarray) -> np.ndarray:
    """Kinetic plus potential energy."""
    x, y, vx, vy = _split(u)
    i, j = np.triu_indices(N, k=1)
    distance = np.hypot(x[..., i] - x[..., j], y[..., i] - y[..., j])
    kinetic = 0.5 * np.sum(MASSES * (vx * vx + vy * vy), axis=-1)
    return kinetic - np.sum(MASSES[i] * MASSES[j] / distance, axis=-1)


def momentum_x(u: np.ndarray) -> np.ndarray:
    return np.sum(MASSES * _split(u)[2], axis=-1)


def momentum_y(u: np.ndarray) -> np.ndarray:
    return np.sum(MASSES * _split(u)[3], axis=-1)


def angular_momentum(u: np.ndarray) -> np.ndarray:
    x, y, vx, vy = _split(u)
    return np.sum(MASSES * (x * vy - y * vx), axis=-1)


# fmt: off
# One row each for x, y, x', y'. Over the training span: mid-range, half-range / 0.9, and root mean square of du/dt.
CENTER = (
    1.58, 2.68, -0.51, -2.62, 1.67, -0.72, 0.99,
    2.86, -2.73, 1.94, -0.85, 0.96, -3.7, 3.51,
    -4.19, -0.57, 1.11, 0.56, -0.76, 1.82, -1.24,
    -5.08, 0.31, 0.53, -1.2, 1.5, 0.47, -0.84,
)
SCALE = (
    1.58, 0.36, 0.55, 0.42, 0.37, 1.43, 1.12,
    0.65, 0.3, 0.076, 0.95, 1.07, 0.33, 0.54,
    5.96, 0.64, 1.23, 0.63, 0.85, 0.077, 0.85,
    6.22, 0.35, 0.78, 0.066, 0.56, 0.52, 0.93,
)
RATE = (
    2.9, 0.56, 0.91, 0.63, 0.61, 1.8, 1.5,
    2.3, 0.43, 0.28, 1.2, 1.4, 0.51, 0.82,
    52.0, 0.87, 2.0, 0.81, 1.4, 0.11, 7.4,
    49.0, 0.48, 2.2, 0.1, 0.79, 0.67, 7.2,
)
INITIAL_STATE = (
    3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0,
    3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5,
    0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0,
)
# fmt: on

SYSTEM = System(
    name="pleiades",
    title="Pleiades",
    citation="Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.10",
    rhs=rhs,
    u0=np.array(INITIAL_STATE),
    train_end=1.4,
    test_end=3.0,
    train_saveat=np.arange(29) / 20,
    test_saveat=np.arange(61) / 20,
    labels=tuple(f"{name}{i}" for name in ("x", "y", "x'", "y'") for i in range(1, N + 1)),
    center=CENTER,
    scale=SCALE,
    rate=RATE,
    dimensionless=True,
    loss_scale=np.repeat([0.44, 0.87], 2 * N),
    invariants={
        "energy": energy,
        "momentum x": momentum_x,
        "momentum y": momentum_y,
        "angular momentum": angular_momentum,
    },
    phase_plane=(0, N),  # the path of star 1 in the plane
    box=(np.array(INITIAL_STATE) - 0.05, np.array(INITIAL_STATE) + 0.05),  # encounters stay after the training span
)
