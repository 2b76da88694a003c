"""The report of Table 1 from made-up records: claims, errors over seeds, a picture."""

from __future__ import annotations

import math

import pytest
from support.pictures import assert_text_fits
from support.table1_records import BASE, LABELS, make

from kansciml.experiments.table1.claims import claims_table
from kansciml.experiments.table1.record import SCRATCH, Table1Record
from kansciml.experiments.table1.report import overview, summary
from kansciml.reporting.groups import mean_error, plus_minus
from kansciml.reporting.style import publication_style
from kansciml.runs.records import DamagedRecord


def rows_by(table, *columns):
    at = [list(table.columns).index(name) for name in columns]
    return {tuple(row[i] for i in at): dict(zip(table.columns, row)) for row in table.rows}


def test_mean_and_standard_error():
    mean, error = mean_error([1.0, 2.0, 3.0, 4.0])
    assert (mean, error) == (2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert plus_minus([1.0, 3.0]) == "2.00 +- 1.0" and plus_minus([2.0]) == "2.00" and plus_minus([]) is None


def test_the_papers_own_numbers_hold_three_of_its_claims_and_break_some(tmp_path):
    table = claims_table(Table1Record.read(make(tmp_path, {("tiny", "mlp"): BASE})))
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
    table = claims_table(Table1Record.read(make(tmp_path, errors)))
    found = {key[1:]: row for key, row in rows_by(table, "Size", "Model", "Claim").items() if key[0] == "tiny"}
    spline = LABELS["kan-spline"]
    assert found[spline, "MLP is better"]["Verdict"] == "supported"
    assert found[spline, "by 10 to 12 points"]["Verdict"] == "supported"
    row = found[spline, "MLP is better"]
    assert [row[name] for name in ("MLP - KAN (points)", "from", "to")] == pytest.approx([11, 11, 11])
    assert row["Seeds"] == 8 and row["p after Holm"] == 2 * row["p"] == 2 * 2 / 256
    assert found[f"{spline}, equal params, fair", "MLP is better"]["Verdict"] == "refuted"


def test_accuracies_stand_beside_the_printed_ones_and_a_small_run_says_it_decides_nothing(tmp_path):
    record = make(tmp_path, {("tiny", "mlp"): BASE, ("tiny", "kan-spline"): BASE + 0.1}, diverged=(("kan-spline", 3),))
    sizes, accuracy, claims = summary(record)
    found = rows_by(accuracy, "Size", "Model")
    mlp, spline = found["tiny", "MLP"], found["tiny", LABELS["kan-spline"]]
    assert (mlp["Top-1 printed (%)"], mlp["measured"], mlp["Seeds"]) == (83.93, "89.65 +- 0.087", 8)
    assert spline["measured"] == "79.64 +- 0.10" and any("1 of 8 seeds diverged" in note for note in accuracy.notes)
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
    assert [row.protocol for row in Table1Record.read(record).published] == ["paper"] * 7 + ["fair"] * 8
    del record.result["published"]
    with pytest.raises(DamagedRecord, match="no 'published'"):
        summary(record)


def test_the_picture_has_a_line_per_row_and_its_text_fits(tmp_path):
    errors = {("tiny", "mlp"): BASE, ("tiny", "kan-spline"): BASE + 0.1, ("tiny", "kan-rswaf-flops"): BASE[:1]}
    record = make(tmp_path, errors)
    with publication_style():
        figure = overview(Table1Record.read(record))
        figure.draw_without_rendering()
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 15 and names[0] == "Tiny: MLP" and "Small: KAN, RSWAF, equal FLOPs" in names
    parameters, _, printed, measured = figure.axes
    assert len(parameters.patches) == 15 + 4 and len(printed.lines) == 7 + 15  # dead parts; a rule per row
    assert len([text for text in measured.texts if text.get_text() == "not trained"]) == 12
    assert_text_fits(figure)
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:]))
