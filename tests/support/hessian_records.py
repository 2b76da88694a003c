"""Made-up measurements of Hessians."""

from __future__ import annotations

import numpy as np

from kansciml.analysis.hessian import Estimate, Sharpness
from kansciml.experiments.hessian.record import MeasuredModel


def estimate(value, error=0.5, probes=2, half=0.0):
    return Estimate(value, error, probes, value - half, value + half)


def measured(name, task, group, label, seed, size, measures, *, run="run", exact=False, sampled=()):
    sharpness = Sharpness(size, 0.1, measures, exact, sampled=dict(sampled))
    against = None if group == "mlp" else "mlp"
    return MeasuredModel(name, run, task, group, label, seed, size, sharpness, against, recorded_loss=0.1)


def quadrature(key, rng, top, locked=1, probes=2, nodes=20):
    """Arrays of one spectrum by quadrature."""
    return {
        f"{key}.nodes": np.sort(rng.normal(0, top / 3, (probes, nodes))),
        f"{key}.weights": np.full((probes, nodes), 1 / nodes),
        f"{key}.locked": np.linspace(top, top / 2, locked),
    }
