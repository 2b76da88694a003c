"""The report of image classifiers from made-up records: numbers in tables, verdicts, pictures that hold their text."""

from __future__ import annotations

import numpy as np
import pytest
from support.pictures import assert_text_fits, rows_of

from kansciml import KansciError
from kansciml.experiments.minibatch.record import ORDER
from kansciml.experiments.vision.record import STYLES, VisionRecord
from kansciml.experiments.vision.report import accuracy_against_cost, curves, drawings, render, summary
from kansciml.reporting.style import publication_style
from kansciml.runs.records import Record

# group: (label, parameters, final accuracy, images/s)
GROUPS = {
    "kan-spline": ("KAN, splines (G=5, S=3)", 6_565_514, 0.85, 200.0),
    "mlp": ("MLP", 673_418, 0.90, 2000.0),
    "kan-rswaf": ("KAN, RSWAF (G=8)", 5_600_000, 0.895, 500.0),
}
EPOCHS = 25


def make(folder, groups=tuple(GROUPS), models=("mixer-nano",), seeds=5, diverged=(), epochs=EPOCHS):
    rng = np.random.default_rng(5)
    rows, arrays = [], {}
    for model in models:
        for group in groups:
            label, parameters, accuracy, speed = GROUPS[group]
            for seed in range(seeds):
                name = f"cifar10-{model}.{group}.{seed}"
                bad = (group, seed) in diverged
                count = epochs // 2 if bad else epochs
                at = np.arange(1, count + 1)
                top1 = (accuracy - 0.01 * seed) * (1 - np.exp(-at / 4)) + 0.002 * rng.normal(size=count)
                top1[-1:] = accuracy - 0.01 * seed
                arrays |= {f"{name}.epoch": at, f"{name}.test_top1": top1, f"{name}.train_s": at * 50_000 / speed}
                arrays[f"{name}.loss"] = 2.3 * np.exp(-at / 6) + 0.01
                rows.append(
                    {
                        "id": name, "task": f"cifar10-{model}", "dataset": "cifar10", "model": model,
                        "variant": group, "group": group, "label": label, "seed": seed,
                        "status": "diverged" if bad else "finished", "message": "", "parameters": parameters,
                        "printed": None, "dead": None, "mixing_flops": 15.0 * parameters,
                        "top1": top1[-1] if count else 0.1, "top5": 0.99, "loss": 0.4, "n_test": 10_000,
                        "train_loss": 0.1, "train_accuracy": 0.97, "minimum_loss": 0.05,
                        "best_top1": top1.max(initial=0.0),
                        "best_epoch": 20, "epochs": count, "steps": 390 * count, "images_per_s": speed,
                        "seconds_per_step": 128 / speed, "peak_memory_mb": 900.0, "wall_s": 100.0,
                        "batch_size": 128, "precision": "32", "processes": 1, "network": {}, "weights": "w",
                    }
                )  # fmt: skip
    data = {"cifar10": {"name": "cifar10", "title": "CIFAR-10", "classes": ["a", "b"], "n_test": 10_000}}
    result = {"data": data, "runs": rows}
    return Record(folder, "vision", {}, "0" * 12, "finished", result=result, arrays=arrays)


def test_tables_hold_the_numbers_of_the_record(tmp_path):
    accuracy, cost, verdict = summary(make(tmp_path, seeds=8))
    mlp, spline, rswaf = rows_of(accuracy)  # the MLP first, whatever the order of the record
    assert (mlp["Model"], mlp["Task"], mlp["Seeds"]) == ("MLP", "mixer-nano on CIFAR-10", 8)
    assert (
        mlp["Top-1 (%)"] == pytest.approx(86.5) and mlp["min"] == pytest.approx(83) and mlp["max"] == pytest.approx(90)
    )
    assert spline["Top-1 (%)"] == pytest.approx(81.5) and rswaf["Parameters"] == 5_600_000
    costs = rows_of(cost)
    assert costs[0]["over MLP"] == 1 and costs[1]["over MLP"] == pytest.approx(6_565_514 / 673_418)
    assert costs[1]["time over MLP"] == pytest.approx(10) and costs[1]["ms/step"] == pytest.approx(640)
    spline, rswaf = rows_of(verdict)
    assert spline["Verdict"] == spline["After Holm"] == "supported" and spline["Paper"] == "yes"
    assert [spline[name] for name in ("KAN - MLP (points)", "from", "to")] == pytest.approx([-5, -5, -5])
    assert (spline["p"], spline["p after Holm"], spline["Seeds"]) == (2 / 256, 2 * 2 / 256, 8)
    assert rswaf["KAN - MLP (points)"] == pytest.approx(-0.5) and "2 claims, decided by 7 seeds" in verdict.notes[0]
    few = rows_of(summary(make(tmp_path / "few"))[2])
    assert {row["Verdict"] for row in few} == {"undecided"} and "claim of 2 takes 7 seeds" in few[0]["Why"]


def test_a_diverged_seed_ranks_worst_and_is_named(tmp_path):
    record = make(tmp_path, groups=("mlp", "kan-spline"), seeds=6, diverged=(("mlp", 0), ("mlp", 1), ("mlp", 2)))
    accuracy, _, verdict = summary(record)
    (row,) = rows_of(verdict)
    assert row["Verdict"] == "undecided"  # three good seeds and three failures against six fair ones
    assert any("MLP: 3 of 6 seeds diverged" in note for note in accuracy.notes)
    assert rows_of(accuracy)[0]["max"] == pytest.approx(87)  # seeds 3 to 5 are left


def test_without_mlps_there_is_no_verdict_and_no_ratio(tmp_path):
    accuracy, cost = summary(make(tmp_path, groups=("kan-spline",)))
    assert rows_of(cost)[0]["over MLP"] is None and len(accuracy.rows) == 1


def test_pictures_and_tables_are_written_per_task(tmp_path):
    names = {path.name for path in render(make(tmp_path), tmp_path)}
    assert names == {"tables.md", "tables.json", "curves.svg", "accuracy_against_cost.svg"}
    two = drawings(VisionRecord.read(make(tmp_path / "two", models=("mixer-nano", "conv-mixer-256-8"))))
    assert len(two) == 4 and {"curves_cifar10-mixer-nano", "curves_cifar10-conv-mixer-256-8"} <= set(two)
    assert "mixer-nano on CIFAR-10" in (tmp_path / "curves.svg").read_text()


def test_curves_are_medians_over_seeds_with_bands(tmp_path):
    vision = VisionRecord.read(make(tmp_path))
    with publication_style():
        figure = curves(vision, "cifar10-mixer-nano")
    loss, _, accuracy, timed = figure.axes
    assert loss.get_yscale() == "log" and timed.get_xscale() == "log"
    line = accuracy.lines[0]  # the MLP's
    assert line.get_color() == "#0072B2" and line.get_xydata()[-1] == pytest.approx([EPOCHS, 88])
    assert timed.lines[0].get_xydata()[-1] == pytest.approx([EPOCHS * 25, 88])
    assert len(accuracy.collections) == 3  # a band each
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == ["MLP", "KAN, splines (G=5, S=3)", "KAN, RSWAF (G=8)"]


def test_text_stays_inside_the_figure_and_names_do_not_overlap(tmp_path):
    vision = VisionRecord.read(make(tmp_path, epochs=3))
    for draw in (curves, accuracy_against_cost):
        with publication_style():
            figure = draw(vision, "cifar10-mixer-nano")
            figure.draw_without_rendering()
            assert_text_fits(figure)
            legend = figure.legends[0].get_window_extent()
            assert legend.x0 >= 0 and legend.x1 <= figure.canvas.get_width_height()[0] and legend.y0 >= 0
            for axes in figure.axes:
                assert not axes.get_tightbbox().overlaps(legend)
                shown = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text() and t.get_visible()]
                assert all(a.x1 < b.x0 for a, b in zip(shown, shown[1:]) if a.x0 < b.x0)


def test_one_seed_that_diverged_at_once_can_be_drawn(tmp_path):
    record = make(tmp_path, groups=("mlp", "kan-spline"), seeds=1, diverged=(("kan-spline", 0),), epochs=1)
    assert len(record.arrays["cifar10-mixer-nano.kan-spline.0.loss"]) == 0
    assert render(record, tmp_path) and summary(record)
    alone = tmp_path / "alone"
    all_diverged = make(alone, groups=("mlp",), seeds=1, diverged=(("mlp", 0),), epochs=1)
    names = {path.name for path in render(all_diverged, alone)}
    assert "curves.svg" in names and "accuracy_against_cost.svg" not in names


def test_styles_are_told_apart_in_colour_line_and_mark():
    found = [(style.colour, style.line, style.marker) for style in STYLES.values()]
    for part in zip(*found):
        assert len(set(part)) == len(part)
    assert ORDER[0] == "mlp" and not {"#0072B2"} & {style.colour for style in STYLES.values()}


def test_another_record_is_one_line(tmp_path):
    record = Record(tmp_path, "ode", {}, "0" * 12, "finished", result={"runs": [{"status": "finished"}]})
    with pytest.raises(KansciError, match="without trained image classifiers"):
        summary(record)
    empty = Record(tmp_path, "vision", {}, "0" * 12, "finished", result={"runs": [], "data": {}})
    with pytest.raises(KansciError, match="without trained image classifiers"):
        summary(empty)
