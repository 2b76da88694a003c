"""Initial parameters for stiff problems."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from kansciml.backends._kernels import bind
from kansciml.models.field_spec import FieldSpec

EXPLICIT = ("3", "5", "8", "bosh3", "dopri5", "dop853", "BS3", "Tsit5", "Vern8")
"""Solvers that are not for stiff systems."""


def relaxing(field: FieldSpec, seed: int, gain: Float64[np.ndarray, " n"] | float = 1.0) -> Float64[np.ndarray, " F"]:
    """Parameters with which the network's outputs are near -gain z: each component of the state relaxes to its center.

    Those of the last layer, in which the network is linear, by least squares at random states; the others are those of
    `FieldSpec.initial_parameters`. Small singular values are left out: large parameters that cancel magnify errors.
    """
    plain = replace(field, center=(), scale=(), rate=())
    params, n = field.initial_parameters(seed), field.state_size
    z = np.random.default_rng(seed).uniform(-1.2, 1.2, (400, field.widths[0]))
    w = z[:, n : n + field.inputs] if field.inputs else None

    def output(values: np.ndarray) -> np.ndarray:
        return bind(plain, values).batch(z[:, :n], z[:, -1], w).ravel()

    last = [b for b in field.layout() if b.layer == len(field.widths) - 2 and b.name != "spline_scale"]
    free = np.concatenate([np.arange(b.offset, b.offset + b.size) for b in last])
    params[free] = 0.0
    columns = np.stack([output(params + unit) for unit in np.eye(len(params))[free]], axis=1)
    params[free] = np.linalg.lstsq(columns, (-gain * z[:, :n]).ravel(), rcond=1e-2)[0]
    return params
