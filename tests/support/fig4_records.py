"""Made-up records of Figure 4."""

import numpy as np

from kansciml.experiments.memory.record import MB
from kansciml.runs.records import Record


def row(model, variant, slope, kept=None, reference=None):
    return {
        "model": model,
        "variant": variant,
        "parameters": 1000,
        "resident_bytes": 4000,
        "optimiser_bytes": 8000,
        "input_bytes": 100,
        "slope_bytes": slope * MB,
        "intercept_bytes": 0.0,
        "off_line_bytes": 0.0,
        "kept_bytes": (0.9 * slope if kept is None else kept) * MB,
        "full_batch": int(16_000 / slope),
        "reference": reference or {},
    }


def make(tmp_path, models=("one", "two"), slopes=None, **changes):
    slopes = slopes or {"mlp": 4.0, "textbook": 140.0, "kan-spline": 3.0, "other": 4.4}
    curves, arrays = [], {}
    for model in models:
        for variant, slope in slopes.items():
            known = {"mb_per_sample": 3.9, "full_batch": 4038} if variant == "mlp" else None
            curves.append(row(model, variant, slope, reference=known))
            batch = np.array([1, 64, 128, 8192])[: 4 if slope < 100 else 3]
            arrays[f"{model}.{variant}.batch"] = batch
            arrays[f"{model}.{variant}.peak"] = (slope * MB * batch).astype(np.int64)
            arrays[f"{model}.{variant}.total"] = arrays[f"{model}.{variant}.peak"] + 12_000 + 100 * batch
    config = {"limit_gb": 16.0, "precision": "32", "device": "cpu", "batches": [1, 64, 128, 8192],
              "resolutions": [29, 85], "parts": ["ends", "whole"]}  # fmt: skip
    result = {"titles": {model: f"{model}: widths 1-2-3" for model in models}, "curves": curves}
    settings = {"experiment": "fig4a", "config": config, "result": result, "arrays": arrays} | changes
    return Record(tmp_path, config_hash="0" * 12, status="finished", **settings)
