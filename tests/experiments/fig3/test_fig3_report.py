"""The report of Figure 3 from made-up records: claims decided by the seeds, errors, and text inside the picture."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.fig3_records import make
from support.hessian_records import estimate
from support.pictures import assert_text_fits, rows_of

from kansciml.experiments.fig3.findings import findings
from kansciml.experiments.fig3.generalisation import accuracy_against_sharpness, batch_claims, correlations
from kansciml.experiments.fig3.record import Fig3Record
from kansciml.experiments.fig3.report import claims, claims_table, figure3, overview_table, render, summary
from kansciml.experiments.hessian.report import model_table
from kansciml.models.registry import find
from kansciml.reporting.style import publication_style
from kansciml.runs.records import DamagedRecord


def read(*arguments, **options):
    return Fig3Record.read(make(*arguments, **options))


def test_claims_are_decided_by_the_seeds_and_the_count_apart_from_the_share(tmp_path):
    found = rows_of(claims_table(read(tmp_path, tasks=("mixer-nano",))))
    by = {row["Claim: than the MLP"]: row for row in found}
    assert by["more positive eigenvalues"]["Verdict"] == "supported"
    assert by["more positive eigenvalues, of all"]["Verdict"] == "refuted"
    lower = by["lower final accuracy (%)"]
    assert lower["Verdict"] == lower["After Holm"] == "supported" and lower["p"] == lower["p after Holm"] == 2 / 256
    assert [lower[name] for name in ("MLP", "KAN ", "KAN - MLP", "from", "to")] == pytest.approx(
        [86.5, 81.5, -5, -5, -5]
    )
    sharper = by["more positive eigenvalues"]
    assert (sharper["After Holm"], sharper["p after Holm"]) == ("supported", 3 * 2 / 256)  # three claims on sharpness
    assert by["more parameters"]["Verdict"] == "supported" and "9.75 times" in by["more parameters"]["Why"]
    few = rows_of(claims_table(read(tmp_path, seeds=2, tasks=("mixer-nano",))))
    assert {row["Claim: than the MLP"]: row for row in few}["lower final accuracy (%)"]["Verdict"] == "undecided"


def test_errors_are_of_the_seeds_of_the_probes_of_one_and_include_what_is_left_open(tmp_path):
    row = rows_of(overview_table(read(tmp_path)))[0]
    assert row["Top-1 (%)"] == "86.50 +- 0.87" and row["Positive eigenvalues"].endswith("+- 0.87")
    single = rows_of(overview_table(read(tmp_path, seeds=1)))[0]
    assert single["Top-1 (%)"] == "90.00" and single["Largest"] == "10.00 +- 0.50"
    wide = rows_of(overview_table(read(tmp_path, half=1000.0)))[0]
    assert wide["Positive eigenvalues"].endswith("+- 1000")


def test_the_picture_names_accuracy_parameters_and_counts_and_its_text_fits(tmp_path):
    with publication_style():
        figure = figure3(read(tmp_path))
        figure.draw_without_rendering()
    left, _, accuracies, *_ = figure.axes
    assert left.texts[0].get_text().startswith("mixer-nano on CIFAR-10") and len(figure.axes) == 6
    boxes = [axes.get_position() for axes in figure.axes[:2]]
    assert boxes[1].x0 - boxes[0].x1 < boxes[0].width / 4  # the long line above does not push the panels apart
    mlps, kans = accuracies.lines
    assert set(mlps.get_xdata()) == {673_418} and set(kans.get_xdata()) == {6_565_514}
    assert np.mean(kans.get_ydata()) == pytest.approx(81.5) and len(kans.get_ydata()) == 8
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MLP", "KAN, splines (G=5, S=3)"]
    assert_text_fits(figure)


def test_files_and_tables_are_written(tmp_path):
    record = make(tmp_path, tasks=("mixer-nano",))
    names = {path.name for path in render(record, tmp_path)}
    assert {"figure3.svg", "accuracy_against_sharpness.svg", "curves.svg", "tables.md", "tables.json"} <= names
    titles = [table.title for table in summary(record)]
    assert titles[:2] == ["Figure 3: accuracy, parameters and spectra", "Claims on Figure 3"]
    assert titles[2] == "Does sharpness predict accuracy?" and len(titles) == 5


def test_a_record_without_spectra_is_one_line(tmp_path):
    record = make(tmp_path)
    del record.result["models"]
    with pytest.raises(DamagedRecord, match="it lacks what a run of fig3 has: no 'models'"):
        summary(record)


def with_all_eigenvalues(record, large=True):
    """The same with all eigenvalues, half of them positive; and, if `large`, the same trainings with larger batches."""
    for row in record.result["models"]:
        own = row["sharpness"]
        own |= {"exact": True, "zero": 1e-12, "asymmetry": 1e-15}
        share = own["measures"].pop("positive_share")
        own["measures"] |= {
            "positive_exact": vars(estimate(1000.0 + row["seed"], 0.0, 0)), "positive_exact_share": share,
            "trace": vars(estimate(50.0 + row["seed"], 0.0, 0)),
        }  # fmt: skip
    for kind in ("runs", "models") if large else ():
        copies = copy.deepcopy(record.result[kind])
        for row in copies:
            for name in {"id", "name"} & row.keys():
                row[name] = row[name].replace(".", "-batch640.", 1)
            row["task"] += "-batch640"
            if kind == "runs":
                row |= {"batch_size": 640, "top1": row["top1"] - 0.05}
            else:
                row["sharpness"]["measures"]["positive_exact"]["value"] -= 100.0
        record.result[kind] += copies
    for name, values in list(record.arrays.items()):
        record.arrays[name.replace(".", "-batch640.", 1)] = values
    return record


def test_all_eigenvalues_take_the_place_of_sampled_ones(tmp_path):
    fig3 = Fig3Record.read(with_all_eigenvalues(make(tmp_path, tasks=("mixer-nano",)), large=False))
    assert fig3.exact and {one.name for one in claims(fig3)} >= {"positive_exact", "count_above_0.01_top"}
    assert "positive_count" not in {one.name for one in claims(fig3)}
    assert rows_of(overview_table(fig3))[0]["Positive eigenvalues"].startswith("1004")
    assert rows_of(overview_table(fig3))[0]["Flattened (%)"] == 100
    assert not batch_claims(fig3)
    notes = " ".join(model_table(fig3.hessian.models[0]).notes)
    assert "at most 1.0e-12 are zero to rounding" in notes and "symmetric to 1.0e-15" in notes


def test_large_batches_are_compared_with_small_ones_seed_by_seed(tmp_path):
    record = with_all_eigenvalues(make(tmp_path, tasks=("mixer-nano",)))
    fig3 = Fig3Record.read(record)
    found = {(one.group.name, one.name): one for one in batch_claims(fig3)}
    flatter, worse = found["kan-spline", "positive_exact"], found["mlp", "accuracy"]
    assert flatter.outcome.verdict == "refuted" and flatter.outcome.effect == pytest.approx(-100)
    assert worse.outcome.verdict == "supported" and worse.outcome.effect == pytest.approx(-5)
    assert "batches of 640" in fig3.title("cifar10-mixer-nano-batch640")
    about = [one for one in findings(record) if one.item == "Section 2.2"]
    assert len({one.text for one in about}) == len(about) and "batches of 640" in about[0].measured


def test_sharpness_is_correlated_with_accuracy_over_models_and_within_kinds(tmp_path):
    fig3 = Fig3Record.read(with_all_eigenvalues(make(tmp_path, tasks=("mixer-nano",)), large=False))
    found = {(one.measure, one.within): one.found for one in correlations(fig3)}
    assert found["top", False].tau < 0  # the KANs, which are sharper, are worse
    assert found["positive_exact_share", True].tau == pytest.approx(-1)  # both fall, or rise, with the seed
    assert ("top", True) not in found  # all equal within a kind
    with publication_style():
        figure = accuracy_against_sharpness(fig3)
        figure.draw_without_rendering()
        assert_text_fits(figure)
    assert len(figure.axes) == 3 and figure.axes[0].get_ylabel() == "test accuracy (%)"


def test_depthwise_kan_convolutions_add_less_than_what_the_paper_takes_instead(tmp_path):
    record = make(tmp_path, tasks=("conv-mixer-256-8",))
    for row in record.result["runs"]:
        row["network"] = {"placement": "grouped"}
    (one,) = [one for one in findings(record) if one.item == "Footnote 4"]
    assert one.verdict == "not reproduced" and "add 458,752" in one.measured and "5,242,880" in one.measured
    family = find("conv-mixer-256-8")[0]
    sizes = [
        family.count(family.config("256-8", "kan-spline", placement=place)).active for place in ("grouped", "append")
    ]
    assert [size - 594_186 for size in sizes] == [458_752, 5_242_880]
