"""The report of Figure 3 from made-up records: claims decided by the seeds, errors, and text inside the picture."""

from __future__ import annotations

import pytest
from support.fig3_records import make
from support.pictures import assert_text_fits, rows_of

from kansciml.experiments.fig3.report import Fig3Record, claims_table, figure3, overview_table, render, summary
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
    left, right, *_ = figure.axes
    assert left.get_title().startswith("mixer-nano on CIFAR-10") and len(figure.axes) == 4
    assert "KAN, splines: 81.50 +- 0.87 %, 6,565,514 parameters" in left.get_xlabel()
    assert "of 673,418 positive" in right.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MLP", "KAN, splines (G=5, S=3)"]
    assert_text_fits(figure)


def test_files_and_tables_are_written(tmp_path):
    record = make(tmp_path, tasks=("mixer-nano",))
    names = {path.name for path in render(record, tmp_path)}
    assert {"figure3.svg", "curves.svg", "tables.md", "tables.json"} <= names
    titles = [table.title for table in summary(record)]
    assert titles[:2] == ["Figure 3: accuracy, parameters and spectra", "Claims on Figure 3"] and len(titles) == 4


def test_a_record_without_spectra_is_one_line(tmp_path):
    record = make(tmp_path)
    del record.result["models"]
    with pytest.raises(DamagedRecord, match="it lacks what a run of fig3 has: no 'models'"):
        summary(record)
