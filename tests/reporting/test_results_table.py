"""Flat rows of all records: every setting and number is there under its name, filters mean what they say."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from kansciml import KansciError, UsageError, cli
from kansciml.reporting.results_table import (
    column_name,
    flat_rows,
    frame_of,
    load_all,
    per_record,
    results_table,
    select,
    to_csv,
    varying,
)
from kansciml.runs.records import Record, save_record

RUNS = [
    {"id": "a.0", "variant": "mlp", "seed": 0, "final_loss": 1.0, "network": {"width": 4}},
    {"id": "a.1", "variant": "mlp", "seed": 1, "final_loss": 3.0, "network": {"width": 4}},
    {"id": "b.0", "variant": "kan", "seed": 0, "final_loss": None, "network": {"width": 4}},
]


def record(folder: str, grid: int = 3, **values) -> Record:
    config = {"grid": grid, "hidden": [10, 10], "fast": True, "training": {"steps": 5}, "seeds": 2}
    own = {
        "result": {"runs": RUNS, "total": 7}, "seeds": (0, 1), "versions": {"torch": "2.4"}, "machine": {"threads": 1},
        "commit": "abc",
    }  # fmt: skip
    return Record(Path(folder), "demo", config, "0" * 12, "finished", **{**own, **values})


ROWS = frame_of([record("r/a"), record("r/b", grid=5)])


class TestRows:
    def test_one_per_trained_model_with_everything_known_of_it(self):
        rows = flat_rows(record("r/a"))
        assert [row["run.id"] for row in rows] == ["a.0", "a.1", "b.0"] and [row["seed"] for row in rows] == [0, 1, 0]
        expected = {
            "experiment": "demo", "folder": "r/a", "config.grid": 3, "config.hidden": [10, 10],
            "config.training.steps": 5, "run.network.width": 4, "result.total": 7, "versions.torch": "2.4",
            "machine.threads": 1, "commit": "abc",
        }  # fmt: skip
        for row in rows:
            assert {name: row[name] for name in expected} == expected

    def test_one_per_record_without_models(self):
        (row,) = flat_rows(record("r/a", result={"total": {"x": 2}, "curve": [{"y": 1}]}, seeds=(4,)))
        assert row["result.total.x"] == 2 and row["seed"] == 4 and not any("curve" in name for name in row)

    def test_per_record_takes_medians_and_what_is_common(self):
        first, second = per_record(ROWS).to_dict("records")
        assert (first["runs"], first["run.final_loss"], first["run.variant"]) == (3, 2.0, "mlp, kan")
        assert (first["config.grid"], second["config.grid"]) == (3, 5) and first["seed"] == [0, 1]

    def test_varying_are_settings_that_differ(self):
        assert varying(ROWS) == ["config.grid"]
        assert varying(ROWS[:3]) == []


class TestQueries:
    @pytest.mark.parametrize(
        "query, number",
        [
            ("grid == 3", 3), ("`config.grid` == 5", 3), ("grid != 3", 3), ("grid >= 3", 6), ("grid > 3", 3),
            ("steps == 5", 6), ("`training.steps` < 5", 0), ("variant == 'mlp'", 4), ("variant != 'mlp'", 2),
            ("final_loss < 2", 2), ("final_loss.isna()", 2), ("final_loss > 1e-3", 4), ("hidden == '10,10'", 6),
            ("hidden == '10'", 0), ("fast", 6), ("fast == False", 0), ("hash == '000000000000'", 6), ("seed == 1", 2),
            ("torch == '2.4'", 6), ("grid == 3 and variant == 'kan'", 1), ("grid == 3 or seed == 1", 4),
            ("variant in ('kan', 'rswaf')", 2),
        ],
    )  # fmt: skip
    def test_keep_the_rows_for_which_they_hold(self, query, number):
        assert len(select(ROWS, query)) == number

    @pytest.mark.parametrize("query", ["grid", "=3", "grid =", "commit < 3", "grid + 1", "1", "grid == 3 or"])
    def test_no_query_is_one_line(self, query):
        with pytest.raises(UsageError, match="got --query") as error:
            select(ROWS, query)
        assert "\n" not in str(error.value)

    def test_an_unknown_column_lists_the_closest_first(self):
        with pytest.raises(UsageError, match=r"unknown column 'gird': expected one of config.grid, "):
            select(ROWS, "gird == 3")

    def test_of_many_columns_a_few_are_named(self):
        columns = [f"config.{letter}" for letter in "abcdefghijklm"]
        with pytest.raises(UsageError, match=r"expected one of (config\.\w, ){6}\.\.\. \(13 in all\)$"):
            column_name("nosuch", columns)

    def test_settings_come_before_metrics_and_the_full_name_is_always_understood(self):
        columns = ["config.x", "run.x", "run.y.z"]
        assert column_name("x", columns) == "config.x" and column_name("run.x", columns) == "run.x"
        assert column_name("z", columns) == "run.y.z"


class TestTable:
    def test_columns_and_order(self):
        table = results_table(ROWS[:3], ["final_loss", "variant"], "-final_loss")
        assert list(table.columns) == ["final_loss", "variant"]
        assert table.rows == [[3.0, "mlp"], [1.0, "mlp"], [None, "kan"]]  # missing ones last
        assert [row[0] for row in results_table(ROWS[:3], ["final_loss"], "final_loss").rows] == [1.0, 3.0, None]

    def test_the_choice_shows_what_differs_and_the_losses(self):
        table = results_table(per_record(ROWS), losses=["final_loss", "other"])
        assert {"experiment", "status", "grid", "final_loss", "folder"} <= set(table.columns)
        assert "hidden" not in table.columns

    def test_no_rows_are_a_table_all_the_same(self):
        assert results_table(frame_of([])).rows == []


def test_csv_holds_every_number_to_the_last_digit():
    runs = [{**RUNS[0], "final_loss": 0.1 + 0.2}, {**RUNS[2], "extra": 'a "b", c'}]
    frame = frame_of([record("r/a", result={"runs": runs})])
    read = list(csv.DictReader(io.StringIO(to_csv(frame))))
    assert list(read[0]) == list(frame) and read[0]["config.grid"] == "3"
    assert float(read[0]["run.final_loss"]) == 0.1 + 0.2 and read[1]["run.final_loss"] == ""
    assert json.loads(read[0]["config.hidden"]) == [10, 10] and read[0]["config.fast"] == "true"
    assert read[1]["run.extra"] == 'a "b", c' and read[0]["run.extra"] == ""


def test_damaged_records_are_left_out_with_one_line_each(tmp_path):
    for name in ("demo/a", "demo/b", "deep/er/c", "sweeps/d", "demo/a/checkpoints/e"):
        save_record(record(str(tmp_path / name)))
    (tmp_path / "demo/b/record.json").write_text('{"schema": 1')
    lines: list[str] = []
    found = list(load_all(tmp_path, lines.append))
    assert [one.folder.name for one in found] == ["c", "a"]
    assert len(lines) == 1 and "left out: " in lines[0] and "damaged" in lines[0] and "\n" not in lines[0]
    with pytest.raises(KansciError, match="no results folder"):
        list(load_all(tmp_path / "none", lines.append))


def test_the_command_takes_a_query_and_says_what_became_of_where(tmp_path, capsys):
    for name, grid in (("a", 3), ("b", 5)):
        save_record(record(str(tmp_path / "demo" / name), grid=grid))
    assert cli.main(["results", "--results", str(tmp_path), "--query", "grid == 5", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["folder"] == str(tmp_path / "demo" / "b") and row["config.hidden"] == [10, 10] and row["runs"] == 3
    assert cli.main(["results", "--where", "grid=5"]) == 2
    error = capsys.readouterr().err
    assert "--query" in error and error.count("\n") == 1
