"""The summary of a sweep: medians over seeds counted by hand, failures beside them, a picture of what was swept."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kansciml.runs.records import Record
from kansciml.sweep.table import SweepRun, losses, numeric_setting, save_sweep, summary


def run(grid, seed, *values, error="", **setting) -> SweepRun:
    """A task whose record holds an MLP and a KAN, `values` being their losses."""
    rows = [
        {"system": "lotka", "variant": variant, "seed": seed, "final_loss": value}
        for variant, value in zip(("mlp", "kan-width"), values)
    ]
    record = Record(Path("r"), "demo", {}, "0" * 12, "finished", result={"runs": rows}) if values else None
    return SweepRun({"grid": grid, **setting}, record, error)


RUNS = [
    run(3, 0, 1.0, 10.0), run(3, 1, 5.0, 20.0), run(3, 2, 2.0, None),
    run(5, 0, 4.0, 8.0), run(5, 1, error="it failed"),
]  # fmt: skip


def test_rows_are_medians_over_seeds_with_failures_beside_them():
    table = summary("demo", RUNS)
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    found = {
        (row["grid"], row["model"]): [row[n] for n in ("runs", "median", "lowest", "highest", "diverged")]
        for row in rows
    }
    assert found == {
        ("3", "mlp"): [3, 2.0, 1.0, 5.0, 0],
        ("3", "kan-width"): [2, 15.0, 10.0, 20.0, 1],
        ("5", "mlp"): [1, 4.0, 4.0, 4.0, 0],
        ("5", "kan-width"): [1, 8.0, 8.0, 8.0, 0],
    }
    assert {row["grid"]: row["failed tasks"] for row in rows} == {"3": 0, "5": 1}


def test_a_setting_of_which_nothing_finished_has_a_row():
    table = summary("demo", [run(3, 0, 1.0), run(5, 0, error="no"), run(5, 1, error="no")])
    assert dict(zip(table.columns, table.rows[1]))["failed tasks"] == 2


def test_a_setting_with_one_value_is_a_note_and_no_column():
    table = summary("demo", [run(3, 0, 1.0, order=2), run(5, 0, 1.0, order=2)])
    assert "order" not in table.columns and table.notes[-1] == "Everywhere: order=2."


def test_a_record_without_models_has_its_numbers():
    record = Record(Path("r"), "demo", {}, "0" * 12, "finished", result={"a": {"b": 2}, "c": "text", "d": True})
    assert list(losses(record)) == [("", "", "a.b", 2.0)]


@pytest.mark.parametrize(
    "values, numeric",
    [((3, 5), True), ((0.1, 0.2), True), (("a", "b"), False), ((True, False), False), ((3, 3), False)],
)
def test_what_is_drawn_against_is_a_number_with_two_values(values, numeric):
    assert numeric_setting([run(value, 0, 1.0) for value in values]) == ("grid" if numeric else None)


def test_files_agree_with_the_table(tmp_path):
    _, files = save_sweep(tmp_path, "demo", RUNS)
    names = {path.name for path in files}
    assert names == {f"summary.{kind}" for kind in ("md", "json", "csv", "svg")}
    with open(tmp_path / "summary.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["median"]) for row in read] == [2.0, 15.0, 4.0, 8.0]
    (document,) = json.loads((tmp_path / "summary.json").read_text())
    assert [row["median"] for row in document["rows"]] == [2.0, 15.0, 4.0, 8.0]
    drawing = (tmp_path / "summary.svg").read_text()
    assert all(text in drawing for text in ("lotka", "final_loss", "grid", "KAN, equal width"))


def test_no_picture_where_nothing_numeric_was_swept(tmp_path):
    _, files = save_sweep(tmp_path, "demo", [run("a", 0, 1.0), run("b", 0, 2.0)])
    assert not [path for path in files if path.suffix == ".svg"]
