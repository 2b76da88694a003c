"""Made-up records of Table 1."""

from __future__ import annotations

import numpy as np

from kansciml.experiments.table1.record import SCRATCH
from kansciml.runs.records import Record
from support.hessian_records import estimate, measured, quadrature

# size, variant: parameters in use, dead, printed, top-1 and top-5 printed
PRINTED = {
    ("tiny", "mlp"): (5_543_716, 0, 5.5e6, 83.93, 96.85),
    ("tiny", "kan-spline"): (10_833_700, 3_550_464, 14.3e6, 73.03, 93.23),
    ("tiny", "kan-rswaf"): (9_073_636, 3_550_464, 12.6e6, 72.92, 93.13),
    ("small", "mlp"): (21_704_164, 0, 21.7e6, 86.49, 96.16),
    ("small", "kan-spline"): (25_206_244, 14_178_816, 39.4e6, 73.88, 93.49),
    ("small", "kan-rswaf"): (21_681_316, 14_178_816, 35.8e6, 78.69, 94.75),
    ("base", "mlp"): (85_875_556, 0, 85.8e6, 86.89, 96.08),
}


LABELS = {"mlp": "MLP", "kan-spline": "KAN, splines (G=5, S=3)", "kan-rswaf": "KAN, RSWAF (G=8)"}


def published():
    rows = []
    for (size, variant), (used, dead, printed, top1, top5) in PRINTED.items():
        shared = {"size": size, "variant": variant, "flops": 300.0 * used, "mixing_flops": 200.0 * used, "batch": 144}
        shared |= {"step_bytes": 600 * used, "kept_bytes": 550 * used, "kan_hidden": None if variant == "mlp" else 192}
        own = {"protocol": "paper", "group": variant, "label": LABELS[variant], "parameters": used, "dead": dead}
        numbers = {"printed_parameters": printed, "printed_top1": top1, "printed_top5": top5}
        rows.append(shared | own | numbers)
        for by in ("params", "flops") if variant != "mlp" else ():
            own = {"protocol": "fair", "group": f"{variant}-{by}", "parameters": used // 2, "dead": 0}
            rows.append(shared | own | {"label": f"{LABELS[variant]}, equal {by}, fair"})
    return rows


def make(folder, errors, deviations=("dataset digits instead of cifar100",), diverged=(), spectra=None):
    """A record; `errors`: (size, group) -> error of each seed; `spectra`: group -> its positive eigenvalues."""
    runs, arrays, models, rng = [], {}, [], np.random.default_rng(3)
    for (size, group), values in errors.items():
        for seed, error in enumerate(values):
            name = f"digits-deit-{size}.{group}.{seed}"
            arrays |= {f"{name}.epoch": np.arange(1, 4), f"{name}.train_s": np.arange(1.0, 4.0)}
            arrays |= {f"{name}.loss": np.array([2.0, 1.0, 0.5]), f"{name}.test_top1": np.full(3, 1 - error)}
            variant = "mlp" if group == SCRATCH else "-".join(group.split("-")[:2])
            label = "MLP, from scratch" if group == SCRATCH else LABELS.get(group, group)
            if spectra:
                measures = {"top": estimate(10.0), "positive_count": estimate(spectra[group] + seed, 0.1)}
                models.append(measured(name, f"digits-deit-{size}", group, label, seed, 15_000, measures))
                arrays |= quadrature(f"run.{name}.plain", rng, 10.0)
            runs.append(
                {
                    "id": name, "task": f"digits-deit-{size}", "dataset": "digits", "model": f"deit-{size}",
                    "size": size, "protocol": "paper", "variant": variant, "group": group, "label": label, "seed": seed,
                    "status": "diverged" if (group, seed) in diverged else "finished", "parameters": 15_000,
                    "flops": 2e6, "step_bytes": 4_000_000, "mixing_flops": 1e6, "top1": 1 - error, "top5": 0.9,
                    "loss": 0.4, "train_loss": 0.3, "best_top1": 1 - error, "epochs": 3, "steps": 60,
                    "images_per_s": 100.0, "seconds_per_step": 0.64, "peak_memory_mb": 9.0, "wall_s": 1.0,
                    "batch_size": 64, "precision": "32", "processes": 1, "network": {"image_size": 8},
                }
            )  # fmt: skip
    data = {"digits": {"title": "Digits", "n_train": 320, "n_test": 360}}
    result = {"data": data, "runs": runs, "published": published(), "deviations": list(deviations)}
    result |= {"models": [one.to_json() for one in models]} if models else {}
    return Record(folder, "table1", {}, "0" * 12, "finished", result=result, arrays=arrays)


BASE = 0.1 + 0.001 * np.arange(8)
