"""A dynamical system of your own: one file that defines SYSTEM.

Run: kansciml ode --system examples/own_system.py
     kansciml reference examples/own_system.py --t 1 2 3
"""

import numpy as np

from kansciml.ode import System


def rhs(t, u):
    """Van der Pol oscillator, mu = 1; u has shape (..., 2)."""
    x, v = u[..., 0], u[..., 1]
    return np.stack([v, (1.0 - x**2) * v - x], axis=-1)


SYSTEM = System(
    name="van_der_pol",
    title="Van der Pol",
    rhs=rhs,
    u0=np.array([2.0, 0.0]),
    train_end=7.0,
    test_end=14.0,
    train_saveat=np.linspace(0.0, 7.0, 71),
    labels=("x", "v"),
)
