"""Made-up records of Figure 3."""

from __future__ import annotations

import numpy as np

from kansciml.runs.records import Record
from support.hessian_records import estimate, measured, quadrature

SIZES = {"mlp": 673_418, "kan-spline": 6_565_514}
LABELS = {"mlp": "MLP", "kan-spline": "KAN, splines (G=5, S=3)"}


def make(folder, seeds=8, tasks=("mixer-nano", "conv-mixer-256-8"), half=0.0, share_error=0.5, dataset="cifar10"):
    rng = np.random.default_rng(3)
    runs, models, arrays = [], [], {}
    for model in tasks:
        for group, size in SIZES.items():
            for seed in range(seeds):
                name = f"{dataset}-{model}.{group}.{seed}"
                top1 = (0.90 if group == "mlp" else 0.85) - 0.01 * seed
                arrays |= {f"{name}.epoch": np.arange(1, 4), f"{name}.train_s": np.arange(1.0, 4.0)}
                arrays |= {f"{name}.loss": np.array([2.0, 0.5, 0.499]), f"{name}.test_top1": np.full(3, top1)}
                shared = {"task": f"{dataset}-{model}", "group": group, "label": LABELS[group], "seed": seed}
                runs.append(
                    shared
                    | {
                        "id": name, "dataset": dataset, "model": model, "variant": group, "status": "finished",
                        "parameters": size, "mixing_flops": 1e6, "top1": top1, "top5": 0.9, "loss": 0.4,
                        "train_loss": 0.3, "best_top1": top1, "minimum_loss": 0.1, "epochs": 3, "images_per_s": 100.0,
                        "seconds_per_step": 0.6, "peak_memory_mb": 9.0, "wall_s": 1.0, "batch_size": 64,
                        "precision": "32", "processes": 1,
                    }
                )  # fmt: skip
                share = (0.5 if group == "mlp" else 0.4) + 0.001 * seed
                top = 10.0 if group == "mlp" else 40.0
                measures = {
                    "top": estimate(top), "positive_count": estimate(size / 2 + seed, half=half),
                    "positive_share": estimate(share, share_error), "count_above_0.01_top": estimate(30.0 + seed),
                    "adaptive_top": estimate(top / 100), "negative_mass": estimate(0.1),
                }  # fmt: skip
                models.append(measured(name, shared["task"], group, LABELS[group], seed, size, measures))
                for spectrum in ("plain", "adaptive"):
                    arrays |= quadrature(f"run.{name}.{spectrum}", rng, top)
    data = {dataset: {"title": {"cifar10": "CIFAR-10"}.get(dataset, dataset.upper()), "n_test": 10_000}}
    result = {"data": data, "runs": runs, "models": [one.to_json() for one in models]}
    return Record(folder, "fig3", {}, "0" * 12, "finished", result=result, arrays=arrays)
