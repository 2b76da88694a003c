"""``kansciml fno`` as a user types it."""

import json
from pathlib import Path

import pytest
from support.command_line import run

from kansciml import cli

TINY = ["--resolution", "57", "--subsample", "4", "--n-train", "8", "--n-test", "4", "--epochs", "2", "--batch-size"]
TINY += ["4", "--width", "4", "--modes", "3", "3", "--iterations", "2", "--projection", "6", "--accelerator", "cpu"]
TINY += ["--data-dir", "data"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_with_residual_connections_then_take_a_hessian(capsys, folder):
    flags = ["--variant", "kan-spline", "--residual", "--eval-subsamples", "8", "2", "--json"]
    code, out, _ = run(capsys, "fno", *TINY, *flags)
    record = json.loads(out)
    (row,) = record["result"]["runs"]
    assert code == 0 and record["status"] == "finished"
    assert row["group"] == "kan-spline-residual" and row["network"]["residual"] and 0 < row["relative_l2"] < 1
    assert set(row["relative_l2_at"]) == {"8", "15", "29"}
    assert {"curves.svg", "prediction_1.svg", "tables.md"} <= {Path(path).name for path in record["files"]}
    code, out, err = run(capsys, "fno", *TINY, *flags[:-1])  # finished runs are not repeated
    assert code == 0 and "finished on" in err and "Resolution" in out
    assert run(capsys, "render", "fno")[0] == 0
    flags = ["--steps", "4", "--probes", "2", "--samples", "4", "--deflate", "0"]
    code, out, _ = run(capsys, "hessian", record["folder"], *flags, "--json")
    (model,) = json.loads(out)["result"]["models"]
    assert code == 0 and model["sharpness"]["measures"]["top"]["value"] > 0


MISTAKES = [
    ("fno --subsample 11", "got subsample 11 of 421 nodes: expected a divisor of 420"),
    ("fno --data broken.mat", "broken.mat cannot be read as a MATLAB file"),
    ("fno --modes 40 40", "choose fewer modes, or a finer grid"),
    ("fno --preset huge", "unknown preset of fno 'huge': expected one of smoke, small, paper"),
    ("run fig4b --parts lift", "unknown part 'lift': expected one of ends, whole, recompute"),
]


@pytest.mark.parametrize("command, message", MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, folder, command, message):
    (folder / "broken.mat").write_bytes(b"no MATLAB file")
    code, out, err = run(capsys, *command.split())
    lines = [line for line in err.splitlines() if not line.startswith("Darcy")]
    assert code == 2 and out == ""
    assert lines[-1].startswith("error: ") and message in lines[-1] and "Traceback" not in err


def test_help_names_the_flags(capsys):
    assert cli.main(["fno", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--residual" in out and "--data-dir" in out and "--eval-subsamples" in out
