"""``kansciml sweep``, ``results`` and ``rerun`` as a user types them, on real experiments of seconds."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.command_line import run

from kansciml import cli
from kansciml.runs.records import load_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.runner import run_experiment
from kansciml.sweep.plan import make_plan, parse_settings

TINY = (
    "--preset smoke --set adam_steps=2 --set lbfgs_steps=1 --set model=kan --set match=width --set hidden=3"
).split()  # fmt: skip

FIG1 = "--preset smoke --widths 8 --batches 8".split()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    return tmp_path


@pytest.mark.parametrize("command", ["sweep", "sweep fig2", "results", "results export", "rerun"])
def test_every_command_has_help(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    assert "usage" in capsys.readouterr().out


MISTAKES = [
    ("sweep", "sweep wants an experiment: one of "),
    ("sweep fig9", "unknown experiment 'fig9'"),
    ("sweep fig2 --preset huge", "unknown preset of fig2 'huge'"),
    ("sweep fig2 --set gird=3", "unknown setting 'gird' of Fig2Config: expected one of grid, "),
    ("sweep fig2 --set grid=3,x", "grid: got 'x', expected an integer"),
    ("sweep fig2 --set grid", "got --set 'grid': expected name=value"),
    ("sweep fig2 --set grid=0", "grid=0: "),
    ("sweep fig2 --seeds x", "got seeds 'x': expected how many (20), or which ones (0,3,7)"),
    ("sweep fig1 --seeds 3", "fig1 has no seeds: leave out --seeds"),
    ("sweep fig2 --workers 0", "got --workers 0: expected a positive number"),
    ("sweep fig2 --retries -1", "got --retries -1"),
    ("sweep fig2 --workers 2 --scheduler tcp://h:1", "leave --workers out"),
    ("sweep fig1 --preset smoke --scheduler dask", "expected local, or an address such as tcp://host:8786"),
    ("sweep ode", "add --set backend=torch"),
    ("results --where grid", "--where is now --query"),
    ("results --status done", "unknown status 'done': expected one of running, finished, interrupted, failed"),
    ("results export", "results export wants a file: --csv FILE, --json FILE, or both"),
    ("rerun", "rerun wants a record first"),
    ("rerun x --rtol 2", "got --rtol 2.0"),
]


@pytest.mark.parametrize("command, message", MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, command, message):
    code, out, err = run(capsys, *command.split())
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not Path("results").exists()


@pytest.mark.parametrize("command, message", [("results", "no results folder results"), ("rerun x", "no record at x")])
def test_what_is_not_there_is_one_line(capsys, command, message):
    code, _, err = run(capsys, *command.split())
    assert code == 1 and message in err and err.count("\n") == 1


def test_dry_run_lists_the_tasks_and_writes_nothing(capsys, folder):
    flags = (*TINY, "--seeds", "0,3", "--set", "grid=3,5", "--dry-run", "--json")
    code, out, _ = run(capsys, "sweep", "ode", *flags)
    tasks = json.loads(out)["tasks"]
    assert code == 0 and not list(folder.iterdir())
    assert [(one["config"]["grid"], one["config"]["first_seed"], one["state"]) for one in tasks] == [
        (grid, seed, "to be run") for grid in (3, 5) for seed in (0, 3)
    ]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Results folder and flags of a sweep that has been run, its first task in a process of its own."""
    results = tmp_path_factory.mktemp("swept") / "results"
    flags = (*TINY, "--seeds", "2", "--set", "field.grid=3,5", "--results", str(results), "--workers", "1")
    ode = get_experiment("ode")
    settings = [text for flag, text in zip(flags, flags[1:]) if flag == "--set"]
    plan = make_plan(ode, ode.preset("smoke"), parse_settings(ode.config, settings), "2")
    for task in plan.tasks[1:]:
        run_experiment(ode, task.config, results=results, log=str)
    assert cli.main(["sweep", "ode", *flags]) == 0
    return results, flags


def losses(results: Path) -> dict[tuple[int, int], float]:
    records = [load_record(path.parent) for path in (results / "ode").glob("*/record.json")]
    return {(one.config["grid"], one.seeds[0]): one.result["runs"][0]["final_loss"] for one in records}


@pytest.mark.slow
class TestSweptOde:
    """One sweep of two grids and two seeds; what `results` and `rerun` make of its records."""

    def test_the_summary_is_that_of_the_records(self, capsys, swept):
        results, flags = swept
        found = losses(results)
        assert sorted(found) == [(3, 0), (3, 1), (5, 0), (5, 1)]
        code, out, err = run(capsys, "sweep", "ode", *flags, "--json")
        document = json.loads(out)
        assert code == 0 and "4 of 4 tasks are finished already" in err
        rows = {row["grid"]: row for row in document["summary"]["rows"] if row["loss"] == "final_loss"}
        for grid in (3, 5):
            own, row = [found[grid, 0], found[grid, 1]], rows[str(grid)]
            assert [row[name] for name in ("runs", "lowest", "highest")] == [2, min(own), max(own)]
            assert row["median"] == statistics.median(own)
        assert {Path(path).name for path in document["files"]} >= {"summary.svg", "summary.csv", "summary.md"}

    def test_results_are_listed_and_filtered(self, capsys, swept):
        results, _ = swept
        code, out, _ = run(capsys, "results", "--results", str(results), "--query", "grid == 3", "--json")
        document = json.loads(out)
        assert code == 0 and document["records"] == 2
        assert {row["config.grid"] for row in document["rows"]} == {3}
        flags = ("--columns", "grid", "seed", "--sort=-grid", "--json", "--experiment", "ode")
        code, out, _ = run(capsys, "results", "--results", str(results), *flags)
        assert [row["grid"] for row in json.loads(out)["rows"]] == [5, 5, 3, 3]

    def test_export_holds_every_number(self, capsys, swept):
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

    def test_a_rerun_gives_the_same_numbers_and_a_doctored_record_is_caught(self, capsys, swept):
        results, _ = swept
        original = sorted((results / "ode").iterdir())[0]
        before = (original / "record.json").read_bytes()
        code, out, _ = run(capsys, "rerun", str(original), "--json")
        document = json.loads(out)
        assert code == 0 and document["identical"] and document["differences"] == [] and document["elements"] > 100
        assert document["not_compared"] == ["wall_s"]
        assert Path(document["again"]).is_relative_to(f"rerun-{original.name}")
        assert (original / "record.json").read_bytes() == before

        loss = json.loads(before)["result"]["runs"][0]["final_loss"] * (1 + 1e-9)
        doctored = copy_of(original, lambda content: content["result"]["runs"][0].update(final_loss=loss))
        code, out, _ = run(capsys, "rerun", str(doctored / "record.json"), "--results", "second")
        assert code == 1 and "final_loss" in out and "1 of the numbers differ" in out
        code, _, err = run(capsys, "rerun", str(doctored), "--results", "second")
        assert code == 2 and "holds a finished run: choose another folder" in err
        assert run(capsys, "rerun", str(doctored), "--results", "third", "--rtol", "1e-6")[0] == 0


@pytest.fixture(scope="module")
def fig1(tmp_path_factory):
    """Folder of a finished run of seconds."""
    results = tmp_path_factory.mktemp("fig1")
    assert cli.main(["run", "fig1", *FIG1, "--results", str(results)]) == 0
    (folder,) = (results / "fig1").iterdir()
    return folder


def copy_of(folder: Path, change: Callable[[dict], object]) -> Path:
    """A copy of a record here, changed."""
    target = Path(shutil.copytree(folder, "copy"))
    content = json.loads((target / "record.json").read_text())
    change(content)
    (target / "record.json").write_text(json.dumps(content))
    return target


def test_rerun_of_fig1_gives_the_same_numbers(capsys, fig1):
    other = copy_of(fig1, lambda content: content["versions"].update(numpy="1.0"))
    code, out, _ = run(capsys, "rerun", str(other))
    assert code == 0 and "Every number is the same" in out and "version of numpy: 1.0 in the record" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(status="interrupted"), "is not finished (interrupted): resume it first"),
        (lambda content: content["config"].update(old=1), "unknown setting 'old' of Fig1Config: expected one of "),
        (lambda content: content["config"].update(old=1), "another version may have written it"),
    ],
)
def test_a_record_that_cannot_be_run_again_is_refused(capsys, fig1, change, message):
    code, _, err = run(capsys, "rerun", str(copy_of(fig1, change)))
    assert code == 2 and message in err and err.count("\n") == 1


def test_data_that_moved_are_one_line_and_can_be_named(capsys, folder):
    rows = "\n".join(f"{t / 10},{np.cos(t / 10)},{np.sin(t / 10)}" for t in range(8))
    Path("data.csv").write_text(f"t,x,y\n{rows}\n")
    flags = "--data data.csv --adam-steps 2 --lbfgs-steps 1 --seeds 1 --backend torch --model mlp --hidden 3".split()
    assert run(capsys, "ode", *flags)[0] == 0
    (record,) = (folder / "results" / "ode").iterdir()
    (folder / "elsewhere").mkdir()
    Path("data.csv").rename("elsewhere/data.csv")
    code, out, err = run(capsys, "rerun", str(record))
    assert code == 2 and out == "" and "data: data.csv of the record is not there" in err
    assert "--moved data=PATH" in err and err.count("\n") == 1
    code, _, err = run(capsys, "rerun", str(record), "--moved", "data=elsewhere/data.csv")
    assert code == 0 and "settings or data are not those" not in err
