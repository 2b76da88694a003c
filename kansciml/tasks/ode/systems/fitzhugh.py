"""FitzHugh-Nagumo model of a neuron: a relaxation oscillation.

    v' = v - v^3 / 3 - w + 0.5         (membrane voltage)
    w' = (v + 0.7 - 0.8 w) / 12.5      (recovery)

from (1, 1); trained on [0, 20] with 101 save points, extrapolated to 50. w is slower and smaller than v, so the
training loss divides each component's error by its standard deviation.
"""

from __future__ import annotations

import numpy as np

from kansciml.tasks.ode.system import System


def rhs(t: float, u: np.ndarray) -> np.ndarray:
    v, w = u[..., 0], u[..., 1]
    return np.stack([v - v * v * v / 3.0 - w + 0.5, (v + 0.7 - 0.8 * w) / 12.5], axis=-1)


SYSTEM = System(
    name="fitzhugh",
    title="FitzHugh-Nagumo",
    citation="FitzHugh (1961); Nagumo, Arimoto & Yoshizawa (1962); constants of SciMLBenchmarks, non-stiff problems",
    rhs=rhs,
    u0=np.array([1.0, 1.0]),
    train_end=20.0,
    test_end=50.0,
    train_saveat=np.arange(101) / 5,
    test_saveat=np.arange(251) / 5,
    labels=("voltage v", "recovery w"),
    # On the training span v runs over [-1.963, 1.155], w over [-0.037, 1.370]: mid-range, and half-range / 0.9.
    center=(-0.4, 0.67),
    scale=(1.73, 0.78),
    rate=(0.37, 0.1),
    dimensionless=True,
    loss_scale=np.array([1.26, 0.48]),
    box=(np.array([-2.0, -0.5]), np.array([2.0, 1.5])),  # around the limit cycle
)
