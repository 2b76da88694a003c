"""The report of Figure 3 from made-up records: claims decided by the seeds, errors, and text inside the picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kansciml._errors import KansciError
from kansciml.reporting.fig3 import claim_table, figure3, overview_table, render, summary
from kansciml.reporting.records import Record
from kansciml.reporting.style import publication_style

SIZES = {"mlp": 673_418, "kan-spline": 6_565_514}
LABELS = {"mlp": "MLP", "kan-spline": "KAN, splines (G=5, S=3)"}


def estimate(value, half=0.0):
    return {"value": value, "standard_error": 0.5, "probes": 2, "lower": value - half, "upper": value + half}


def make(folder, seeds=4, tasks=("mixer-nano", "conv-mixer-256-8"), half=0.0):
    rng = np.random.default_rng(3)
    runs, models, verdicts, arrays = [], [], [], {}
    for model in tasks:
        for group, size in SIZES.items():
            for seed in range(seeds):
                name = f"cifar10-{model}.{group}.{seed}"
                top1 = (0.90 if group == "mlp" else 0.85) - 0.01 * seed
                arrays |= {f"{name}.epoch": np.arange(1, 4), f"{name}.train_s": np.arange(1.0, 4.0)}
                arrays |= {f"{name}.loss": np.array([2.0, 1.0, 0.5]), f"{name}.test_top1": np.full(3, top1)}
                shared = {"task": f"cifar10-{model}", "group": group, "label": LABELS[group], "seed": seed}
                runs.append(
                    shared
                    | {
                        "id": name, "dataset": "cifar10", "model": model, "variant": group, "status": "finished",
                        "parameters": size, "mixing_flops": 1e6, "top1": top1, "top5": 0.9, "loss": 0.4,
                        "train_loss": 0.3, "best_top1": top1, "minimum_loss": 0.1, "epochs": 3, "images_per_s": 100.0,
                        "seconds_per_step": 0.6, "peak_memory_mb": 9.0, "wall_s": 1.0, "batch_size": 64,
                        "precision": "32", "processes": 1,
                    }
                )  # fmt: skip
                top = 10.0 if group == "mlp" else 40.0
                measures = {
                    "top": estimate(top), "positive_count": estimate(size / 2 + seed, half),
                    "positive_share": estimate(0.5), "count_above_0.01_top": estimate(30.0 + seed),
                    "adaptive_top": estimate(top / 100), "negative_mass": estimate(0.1),
                }  # fmt: skip
                sharpness = {"loss": 0.1, "exact": False, "measures": measures, "sampled": {}}
                against = None if group == "mlp" else "mlp"
                models.append(
                    shared
                    | {"name": name, "run": "r", "against": against, "n_parameters": size, "recorded_loss": 0.1}
                    | {"sharpness": sharpness}
                )
                for spectrum in ("plain", "adaptive"):
                    nodes = np.sort(rng.normal(0, top / 3, (2, 20)))
                    arrays |= {f"r.{name}.{spectrum}.nodes": nodes, f"r.{name}.{spectrum}.locked": np.array([top])}
                    arrays[f"r.{name}.{spectrum}.weights"] = np.full((2, 20), 1 / 20)
        for measure, verdict in (("positive_count", "sharper"), ("positive_share", "flatter"), ("top", "sharper")):
            verdicts.append(
                {
                    "task": f"cifar10-{model}", "group": "kan-spline", "label": LABELS["kan-spline"], "against": "mlp",
                    "against_label": "MLP", "measure": measure, "spectrum": "plain", "text": measure,
                    "invariant": ["loss"], "a": 2.0, "b": 1.0, "ratio": 2.0, "verdict": verdict, "z": None,
                    "p_value": 0.029, "effect": 1.0, "pairs_sharper": 16, "pairs_flatter": 0, "pairs": 16,
                    "n_a": seeds, "n_b": seeds, "reason": "p = 0.029 <= 0.05",
                }
            )  # fmt: skip
    data = {"cifar10": {"title": "CIFAR-10", "n_test": 10_000}}
    result = {"data": data, "runs": runs, "models": models, "verdicts": verdicts}
    return Record(folder, "fig3", {}, "0" * 12, "finished", result=result, arrays=arrays)


def dicts(table):
    return [dict(zip(table.columns, row)) for row in table.rows]


def test_claims_are_decided_by_the_seeds_and_the_count_apart_from_the_share(tmp_path):
    found = dicts(claim_table(make(tmp_path, tasks=("mixer-nano",))))
    by = {row["Claim: than the MLP"]: row for row in found}
    assert by["more positive eigenvalues"]["Verdict"] == "supported"
    assert by["more positive eigenvalues, of all"]["Verdict"] == "refuted"
    lower = by["lower final accuracy (%)"]
    assert lower["Verdict"] == "supported" and lower["p"] == pytest.approx(2 / math.comb(8, 4))
    assert (lower["MLP"], lower["KAN "]) == (pytest.approx(88.5), pytest.approx(83.5))
    assert by["more parameters"]["Verdict"] == "supported" and "9.75 times" in by["more parameters"]["Why"]
    few = dicts(claim_table(make(tmp_path, seeds=2, tasks=("mixer-nano",))))
    assert {row["Claim: than the MLP"]: row for row in few}["lower final accuracy (%)"]["Verdict"] == "undecided"


def test_errors_are_of_the_seeds_of_the_probes_of_one_and_include_what_is_left_open(tmp_path):
    row = dicts(overview_table(make(tmp_path)))[0]
    assert row["Top-1 (%)"] == "88.50 +- 0.65" and row["Positive eigenvalues"].endswith("+- 0.65")
    single = dicts(overview_table(make(tmp_path, seeds=1)))[0]
    assert single["Top-1 (%)"] == "90.00" and single["Largest"] == "10.00 +- 0.50"
    wide = dicts(overview_table(make(tmp_path, half=1000.0)))[0]
    assert wide["Positive eigenvalues"].endswith("+- 1000")


def test_the_picture_names_accuracy_parameters_and_counts_and_its_text_fits(tmp_path):
    with publication_style():
        figure = figure3(make(tmp_path))
        figure.draw_without_rendering()
    left, right, *_ = figure.axes
    assert left.get_title().startswith("mixer-nano on CIFAR-10") and len(figure.axes) == 4
    assert "KAN, splines: 83.5 +- 0.65 %, 6,565,514 parameters" in left.get_xlabel()
    assert "of 673,418 positive" in right.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MLP", "KAN, splines (G=5, S=3)"]
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= 0 and box.y1 <= height + 1


def test_files_and_tables_are_written(tmp_path):
    record = make(tmp_path, tasks=("mixer-nano",))
    names = {path.name for path in render(record, tmp_path)}
    assert {"figure3.svg", "figure3.png", "curves.svg", "tables.md", "tables.json"} <= names
    titles = [table.title for table in summary(record)]
    assert titles[:2] == ["Figure 3: accuracy, parameters and spectra", "Claims on Figure 3"] and len(titles) == 4


def test_a_record_without_spectra_is_one_line(tmp_path):
    record = make(tmp_path)
    del record.result["models"]
    with pytest.raises(KansciError, match="holds no spectra|no result of kansciml hessian"):
        overview_table(record)
