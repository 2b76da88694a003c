"""Vector fields with closed forms, as the kernels that engines are given; parameters stand in one flat vector."""

import numpy as np


class Kernel:
    """A field given by f(params, t, u, w) on batches; derivatives by complex steps."""

    def __init__(self, function, params=()):
        self.function, self.params = function, np.array(params, dtype=float)

    def rhs(self, t, u, out):
        out[:] = self.batch(u[None], np.full(1, t))[0]

    def batch(self, u, t, w=None):
        return self.function(self.params, t, u.T, None if w is None else w.T).T

    def linearise(self, t, u, w=None):
        step, inputs = 1e-30j, None if w is None else w.T

        def slopes(params, states):
            return np.asarray(self.function(params, t, states, inputs)).imag.T / 1e-30  # (B, n)

        n = u.shape[1]
        jacobian = np.stack([slopes(self.params, u.T + step * np.eye(n)[:, [j]]) for j in range(n)], axis=2)
        by_params = [slopes(self.params + step * e, u.T.astype(complex)) for e in np.eye(len(self.params))]
        return jacobian, lambda cotangent: np.array([np.sum(cotangent * slope) for slope in by_params])


def lotka(params, t, u, w):
    a, b = params
    return np.stack([a * u[0] - u[0] * u[1], u[0] * u[1] - b * u[1]])


def van_der_pol(params, t, u, w):
    return np.stack([u[1], params[0] * ((1 - u[0] ** 2) * u[1] - u[0])])


def robertson(params, t, u, w):
    """Robertson's kinetics (Hairer & Wanner II, sec. IV.1), its rates as parameters."""
    k1, k2, k3 = params
    first, second, third = k1 * u[0], k2 * u[1] ** 2, k3 * u[1] * u[2]
    return np.stack([third - first, first - second - third, second])
