"""``kansciml results`` as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from support.command_line import losses, run


def test_what_is_not_there_is_one_line(capsys):
    code, _, err = run(capsys, "results")
    assert code == 2 and "no results folder results" in err and err.count("\n") == 1


def test_results_are_listed_and_filtered(capsys, swept):
    results, _ = swept
    code, out, _ = run(capsys, "results", "--results", str(results), "--query", "grid == 3", "--json")
    document = json.loads(out)
    assert code == 0 and document["records"] == 2
    assert {row["config.grid"] for row in document["rows"]} == {3}
    flags = ("--columns", "grid", "seed", "--sort=-grid", "--json", "--experiment", "ode")
    code, out, _ = run(capsys, "results", "--results", str(results), *flags)
    assert [row["grid"] for row in json.loads(out)["rows"]] == [5, 5, 3, 3]


def test_export_holds_every_number(capsys, swept):
    results, _ = swept
    code, out, _ = run(capsys, "results", "export", "--results", str(results), "--csv", "a.csv", "--json", "a.json")
    assert code == 0 and out == ""
    with open("a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(int(row["config.grid"]), int(row["seed"])): float(row["run.final_loss"]) for row in rows}
    assert found == losses(results)
    documents = json.loads(Path("a.json").read_text())
    assert {(row["config.grid"], row["seed"]): row["run.final_loss"] for row in documents} == found
    assert all(row["versions.numpy"] == np.__version__ and Path(row["folder"]).is_dir() for row in documents)
