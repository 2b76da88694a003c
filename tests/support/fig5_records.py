"""Made-up records of Figure 5."""

from __future__ import annotations

import numpy as np

from kansciml.runs.records import Record

# (variant, residual): (label, parameters of lift and projection, error of seed 0, ms per step)
EPOCHS, SIZE = 30, 9
GROUPS = {
    ("kan-spline", True): ("KAN, splines (G=5, S=3), residual", 43_200, 0.0050, 120.0),
    ("mlp", False): ("MLP", 4_481, 0.0060, 100.0),
    ("mlp", True): ("MLP, residual", 4_481, 0.0059, 110.0),
    ("kan-spline", False): ("KAN, splines (G=5, S=3)", 43_200, 0.0090, 130.0),
}


def make(folder, groups=tuple(GROUPS), seeds=7, diverged=(), others=("17",), epochs=EPOCHS):
    rng = np.random.default_rng(3)
    u = 0.01 * rng.random((3, SIZE, SIZE))
    arrays = {"darcy9.a": np.where(u > 0.005, 12.0, 3.0), "darcy9.u": u}
    rows = []
    for variant, residual in groups:
        label, ends, error, ms = GROUPS[variant, residual]
        for seed in range(seeds):
            group = variant + "-residual" * residual
            name = f"darcy9-fno-wt.{group}.{seed}"
            bad = (group, seed) in diverged
            at = np.arange(1, (epochs // 2 if bad else epochs) + 1)
            final = error * (1 + 0.01 * seed)
            curve = 0.3 * np.exp(-at / 3) + final
            arrays |= {f"{name}.epoch": at, f"{name}.loss": 0.5 * curve, f"{name}.test_error": curve}
            arrays |= {f"{name}.train_s": at * 0.1 * ms, f"{name}.prediction": u * (1 + final)}
            rows.append(
                {
                    "id": name, "task": "darcy9-fno-wt", "data": "darcy9", "model": "fno-wt", "resized": {},
                    "variant": variant, "residual": residual, "group": group, "label": label, "seed": seed,
                    "status": "diverged" if bad else "finished", "message": "", "ends_parameters": ends,
                    "parameters": 2_371_968 + ends, "relative_l2": final,
                    "relative_l2_at": {"9": final, **{size: 2 * final for size in others}},
                    "train_loss": 0.5 * final, "best_relative_l2": 0.9 * final, "best_epoch": 20, "epochs": len(at),
                    "samples_per_s": 32e3 / ms, "seconds_per_step": ms / 1e3, "peak_memory_mb": 900.0, "wall_s": 60.0,
                    "batch_size": 32, "precision": "32", "processes": 1,
                }
            )  # fmt: skip
    data = {"darcy9": {"name": "darcy9", "title": "Darcy flow, 9 x 9", "n_train": 64, "n_test": 16}}
    return Record(folder, "fig5", {}, "0" * 12, "finished", result={"data": data, "runs": rows}, arrays=arrays)
