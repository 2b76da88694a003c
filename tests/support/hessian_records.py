"""Made-up measurements of Hessians."""

from __future__ import annotations

import math

import numpy as np

from kansciml.analysis.hessian import Estimate, Sharpness, SharpnessVerdict
from kansciml.experiments.hessian.record import GroupVerdict, MeasuredModel


def estimate(value, error=0.5, probes=2, half=0.0):
    return Estimate(value, error, probes, value - half, value + half)


def measured(name, task, group, label, seed, size, measures, *, run="run", exact=False, sampled=()):
    sharpness = Sharpness(size, 0.1, measures, exact, sampled=dict(sampled))
    against = None if group == "mlp" else "mlp"
    return MeasuredModel(name, run, task, group, label, seed, size, sharpness, against, recorded_loss=0.1)


def verdict(task, group, label, measure, word, seeds, *, spectrum="plain", text="", invariant=("loss",), pairs=16):
    """A measure of `group` against the MLPs: 2 against 1, p = 0.029, all pairs larger."""
    outcome = SharpnessVerdict(
        measure, spectrum, text or measure, invariant, 2.0, 1.0, 2.0, word, math.nan, 0.029, 1.0, pairs, 0, pairs,
        seeds, seeds, "p = 0.029 <= 0.05",
    )  # fmt: skip
    return GroupVerdict(task, group, label, "mlp", "MLP", outcome)


def quadrature(key, rng, top, locked=1, probes=2, nodes=20):
    """Arrays of one spectrum by quadrature."""
    return {
        f"{key}.nodes": np.sort(rng.normal(0, top / 3, (probes, nodes))),
        f"{key}.weights": np.full((probes, nodes), 1 / nodes),
        f"{key}.locked": np.linspace(top, top / 2, locked),
    }
