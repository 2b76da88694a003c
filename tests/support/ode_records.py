"""The fixture `make_record`: made-up neural-ODE records, smooth random curves in the schema of `reporting.ode`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kansciml.runs.records import Record

# name: (title, labels, train_end, test_end, points)
SYSTEMS = {
    "lotka": ("Lotka-Volterra", ["prey x", "predator y"], 3.5, 14.0, 141),
    "fitzhugh": ("FitzHugh-Nagumo", ["voltage v", "recovery w"], 20.0, 50.0, 251),
    "rigid": ("Rigid body", ["y1", "y2", "y3"], 20.0, 40.0, 201),
    "spiral": ("Spiral", ["y1", "y2"], 1.5, 3.0, 117),
    "pleiades": ("Pleiades", [f"{name}{i}" for name in ("x", "y", "x'", "y'") for i in range(1, 8)], 1.4, 3.0, 61),
}
# variant: (label, parameters, log10 of its typical error)
VARIANTS = {
    "mlp": ("MLP 2-50-2", 252, -5.0),
    "kan-width": ("KAN 2-50-2 (G=5, S=3)", 2000, -6.0),
    "kan-params": ("KAN 2-6-2 (G=5, S=3)", 240, -4.0),
    "kan-unscaled": ("KAN 2-50-2 (G=5, S=3)", 2000, -2.0),
    "rswaf": ("RSWAF 2-50-2", 1000, -4.5),
    "kan-tanh": ("KAN 2-50-2 (G=5, S=3)", 2000, -3.0),
}


def _make_record(
    folder: Path,
    systems: tuple[str, ...] = tuple(SYSTEMS),
    variants: tuple[str, ...] = ("mlp", "kan-width", "kan-params", "kan-unscaled"),
    seeds: int = 5,
    diverged: tuple[tuple[str, str, int], ...] = (("pleiades", "kan-width", 1),),
    interrupted: tuple[tuple[str, str, int], ...] = (),
    truth: bool = True,
) -> Record:
    """A finished record; `diverged` and `interrupted` name runs by system, variant and seed."""
    rng = np.random.default_rng(7)
    result, arrays = {"systems": {}, "runs": []}, {}
    for name in systems:
        title, labels, train_end, test_end, points = SYSTEMS[name]
        n = len(labels)
        t = np.linspace(0.0, test_end if truth else train_end, points)
        states = np.cos(rng.uniform(2, 6, n) * t[:, None] / train_end * 2 + rng.uniform(0, 6, n)) * rng.uniform(1, 4, n)
        result["systems"][name] = {
            "title": title,
            "labels": labels,
            "n": n,
            "train_end": train_end,
            "test_end": test_end if truth else None,
            "phase_plane": [0, 7] if n > 7 else [0, 1],
            "loss_scale": [1.0] * n,
        }
        arrays |= {f"{name}.t": t}
        if truth:
            arrays |= {f"{name}.truth": states}
        kept = t <= train_end
        arrays |= {f"{name}.data_t": t[kept], f"{name}.data": states[kept]}
        for variant in variants:
            label, n_parameters, level = VARIANTS[variant]
            for seed in range(seeds):
                run = f"{name}.{variant}.seed{seed}"
                blown_up = (name, variant, seed) in diverged
                final = 10 ** (level + rng.normal(0, 0.4))
                count = 300 if blown_up else int(rng.integers(1200, 1500))
                at = np.arange(count)
                decay = np.log10(final) * np.minimum(1, (at / count) ** 0.5)
                arrays[f"{run}.loss"] = 10 ** (decay + 0.05 * rng.normal(size=count))
                arrays[f"{run}.iteration"] = at
                arrays[f"{run}.phase"] = (at >= 1000).astype(np.int8)
                wobble = (
                    np.sqrt(final) * 3 * np.sin(3 * t / train_end)[:, None] * np.maximum(1, t / train_end)[:, None] ** 2
                )
                path = states + wobble
                if variant == "kan-params":
                    path[t > 0.9 * test_end] = np.nan  # a blown-up extrapolation
                arrays[f"{run}.trajectory"] = path
                result["runs"].append(
                    {
                        "id": run,
                        "system": name,
                        "model": variant.partition("-")[0],
                        "variant": variant,
                        "label": label,
                        "n_parameters": n_parameters,
                        "seed": seed,
                        "backend": "torch",
                        "method": "replay",
                        "status": "diverged"
                        if blown_up
                        else "interrupted"
                        if (name, variant, seed) in interrupted
                        else "finished",
                        "message": "the loss is not finite" if blown_up else "",
                        "final_loss": final,
                        "train_mse": final,
                        "train_relative_mse": final / 2,
                        "test_mse": None if not truth or variant == "kan-params" else 50 * final,
                        "test_relative_mse": None if not truth or variant == "kan-params" else 25 * final,
                        "evaluations": count,
                        "wall_s": 12.5 + seed,
                    }
                )
    return Record(folder, "made-up", {}, "0" * 12, "finished", result=result, arrays=arrays)


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Makes a finished record from its folder, systems, variants, and number of seeds."""
    return _make_record
