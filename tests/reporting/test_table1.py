"""The report of Table 1 from made-up records: margins in closed form, claims, errors over seeds, a picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kansciml._errors import KansciError
from kansciml.reporting.records import Record
from kansciml.reporting.style import publication_style
from kansciml.reporting.table1 import render, summary
from kansciml.reporting.table1_claims import claim_table, margin
from kansciml.reporting.table1_figure import overview
from kansciml.reporting.table1_rows import SCRATCH, mean_error, plus_minus, rows_of

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


def make(folder, errors, deviations=("dataset digits instead of cifar100",), diverged=()):
    """A record; `errors`: (size, group) -> error of each seed."""
    runs, arrays = [], {}
    for (size, group), values in errors.items():
        for seed, error in enumerate(values):
            name = f"digits-deit-{size}.{group}.{seed}"
            arrays |= {f"{name}.epoch": np.arange(1, 4), f"{name}.train_s": np.arange(1.0, 4.0)}
            arrays |= {f"{name}.loss": np.array([2.0, 1.0, 0.5]), f"{name}.test_top1": np.full(3, 1 - error)}
            variant = "mlp" if group == SCRATCH else "-".join(group.split("-")[:2])
            label = "MLP, from scratch" if group == SCRATCH else LABELS.get(group, group)
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
    return Record(folder, "table1", {}, "0" * 12, "finished", result=result, arrays=arrays)


BASE = np.array([0.100, 0.101, 0.102, 0.103])


def rows_by(table, *columns):
    at = [list(table.columns).index(name) for name in columns]
    return {tuple(row[i] for i in at): dict(zip(table.columns, row)) for row in table.rows}


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.11, "supported"), (0.05, "refuted"), (0.2, "refuted"), (0.1, "undecided")]
)
def test_a_margin_is_supported_inside_refuted_outside_and_undecided_at_its_end(shift, verdict):
    found = margin(BASE, BASE + shift, 0.10, 0.12)
    assert found.verdict == verdict
    if verdict != "undecided":
        assert found.p_value == pytest.approx(2 / math.comb(8, 4))
    assert margin(BASE[:3], (BASE + shift)[:3], 0.10, 0.12).verdict == "undecided"  # three seeds decide nothing


def test_diverged_kans_are_worse_by_more_than_any_margin():
    found = margin(BASE, [math.inf] * 4, 0.10, 0.12)
    assert found.verdict == "refuted" and "more than 12 points" in found.reason


def test_mean_and_standard_error():
    mean, error = mean_error([1.0, 2.0, 3.0, 4.0])
    assert (mean, error) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert plus_minus([1.0, 3.0]) == "2.00 +- 1.0" and plus_minus([2.0]) == "2.00" and plus_minus([]) is None


def test_the_papers_own_numbers_hold_three_of_its_claims_and_break_some(tmp_path):
    table = claim_table(make(tmp_path, {("tiny", "mlp"): BASE}))
    found = rows_by(table, "Size", "Model", "Claim")
    printed = {key: row["Printed numbers"] for key, row in found.items()}
    spline, rswaf = LABELS["kan-spline"], LABELS["kan-rswaf"]
    assert printed["tiny", spline, "by 10 to 12 points"] == "yes (10.90)"
    assert printed["small", spline, "by 10 to 12 points"] == "no (12.61)"
    assert printed["tiny", rswaf, "by 8 to 10 points"] == "no (11.01)"
    assert printed["small", rswaf, "by 8 to 10 points"] == "no (7.80)"
    assert all(word.startswith("yes") for key, word in printed.items() if key[2] == "MLP is better")
    fewer = {key[:2]: row["Verdict"] for key, row in found.items() if key[2] == "MLP has fewer parameters"}
    assert fewer["small", rswaf] == "refuted"  # 21,681,316 in use against 21,704,164
    assert set(fewer.values()) == {"supported", "refuted"} and list(fewer.values()).count("supported") == 3
    assert found["tiny", spline, "MLP is better"]["Why"] == "not trained in this run"


def test_verdicts_come_from_the_seeds_of_each_protocols_own_mlp(tmp_path):
    errors = {
        ("tiny", "mlp"): BASE, ("tiny", SCRATCH): BASE + 0.3, ("tiny", "kan-spline"): BASE + 0.11,
        ("tiny", "kan-spline-params"): BASE + 0.11,
    }  # fmt: skip
    table = claim_table(make(tmp_path, errors))
    found = {key[1:]: row for key, row in rows_by(table, "Size", "Model", "Claim").items() if key[0] == "tiny"}
    spline = LABELS["kan-spline"]
    assert found[spline, "MLP is better"]["Verdict"] == "supported"
    assert found[spline, "by 10 to 12 points"]["Verdict"] == "supported"
    assert found[spline, "MLP is better"]["Found"] == "+11.00 +- 0.091"
    assert found[f"{spline}, equal params, fair", "MLP is better"]["Verdict"] == "refuted"


def test_accuracies_stand_beside_the_printed_ones_and_a_small_run_says_it_decides_nothing(tmp_path):
    record = make(tmp_path, {("tiny", "mlp"): BASE, ("tiny", "kan-spline"): BASE + 0.1}, diverged=(("kan-spline", 3),))
    sizes, accuracy, claims = summary(record)
    found = rows_by(accuracy, "Size", "Model")
    mlp, spline = found["tiny", "MLP"], found["tiny", LABELS["kan-spline"]]
    assert (mlp["Top-1 printed (%)"], mlp["measured"], mlp["Seeds"]) == (83.93, "89.85 +- 0.065", 4)
    assert spline["measured"] == "79.90 +- 0.058" and any("1 of 4 diverged" in note for note in accuracy.notes)
    assert found["base", "MLP"]["measured"] is None and len(accuracy.rows) == 7 + 8
    for table in (accuracy, claims):
        assert any("does not decide the paper's claim" in note for note in table.notes)
    paper = summary(make(tmp_path, {("tiny", "mlp"): BASE}, deviations=()))
    assert not any("does not decide" in note for table in paper for note in table.notes)
    by = rows_by(sizes, "Protocol", "Size", "Model")
    row = by["paper", "tiny", LABELS["kan-spline"]]
    assert row["Computed (M)"] == pytest.approx(14.384164) and row["Used"] == 10_833_700
    assert row["/ MLP"] == pytest.approx(10_833_700 / 5_543_716)


def test_the_printed_rows_come_first_and_another_record_is_one_line(tmp_path):
    record = make(tmp_path, {("tiny", "mlp"): BASE})
    assert [row.published["protocol"] for row in rows_of(record)] == ["paper"] * 7 + ["fair"] * 8
    del record.result["published"]
    with pytest.raises(KansciError, match="holds no result of table1"):
        summary(record)


def test_the_picture_has_a_line_per_row_and_its_text_fits(tmp_path):
    errors = {("tiny", "mlp"): BASE, ("tiny", "kan-spline"): BASE + 0.1, ("tiny", "kan-rswaf-flops"): BASE[:1]}
    record = make(tmp_path, errors)
    with publication_style():
        figure = overview(record)
        figure.draw_without_rendering()
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 15 and names[0] == "Tiny: MLP" and "Small: KAN, RSWAF, equal FLOPs" in names
    parameters, _, printed, measured = figure.axes
    assert len(parameters.patches) == 15 + 4 and len(printed.lines) == 7 + 15  # dead parts; a rule per row
    assert len([text for text in measured.texts if text.get_text() == "not trained"]) == 12
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= 0 and box.y1 <= height + 1
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))


def test_files_are_written(tmp_path):
    names = {path.name for path in render(make(tmp_path, {("tiny", "mlp"): BASE}), tmp_path)}
    assert {"table1.svg", "table1.png", "curves.svg", "accuracy_against_cost.svg", "tables.md", "tables.json"} <= names
    assert "Claims on Table 1" in (tmp_path / "tables.md").read_text()
