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

    # In turn one parameter of the first output is 1, all others are 0: what the last layer makes its outputs of
    rows = [view.reshape(-1, n) for name, view in field.unpack(params)[-1].items() if name != "spline_scale"]
    for row in rows:
        row[...] = 0.0
    features = []
    for row in rows:
        for i in range(len(row)):
            row[i, 0] = 1.0
            features.append(bind(plain, params).batch(z[:, :n], z[:, -1], w)[:, 0])
            row[i, 0] = 0.0
    weights = np.linalg.lstsq(np.stack(features, axis=1), -gain * z[:, :n], rcond=1e-2)[0]
    for row, own in zip(rows, np.split(weights, np.cumsum([len(row) for row in rows])[:-1])):
        row[...] = own
    return params
