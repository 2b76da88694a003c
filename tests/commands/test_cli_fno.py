"""``kansciml fno`` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    assert {"curves.svg", "prediction_1.png", "tables.md"} <= {Path(path).name for path in record["files"]}
    code, out, err = run(capsys, "fno", *TINY, *flags[:-1])  # finished runs are not repeated
    assert code == 0 and "finished on" in err and "Resolution" in out
    assert run(capsys, "render", "fno")[0] == 0
    flags = ["--steps", "4", "--probes", "2", "--samples", "4", "--deflate", "0"]
    code, out, _ = run(capsys, "hessian", record["folder"], *flags, "--json")
    (model,) = json.loads(out)["result"]["models"]
    assert code == 0 and model["sharpness"]["measures"]["top"]["value"] > 0


MISTAKES = [
    ("fno --model mixer-nano", "unknown model 'mixer-nano': expected one of fno-deq"),
    ("fno --variant cnn", "unknown variant 'cnn': expected one of mlp, kan-spline, kan-rswaf, both, all"),
    ("fno --subsample 11", "got subsample 11 of 421 nodes: expected a divisor of 420"),
    ("fno --data none.mat", "none.mat does not exist"),
    ("fno --data broken.mat", "broken.mat cannot be read as a MATLAB file"),
    ("fno --modes 40 40", "choose fewer modes, or a finer grid"),
    ("fno --batch-size 512", "got batch_size 512: expected at most the 256 training samples"),
    ("fno --model fno-deq --residual", "equilibrium with residual"),
    ("fno --preset huge", "unknown preset of fno 'huge': expected one of smoke, small, paper"),
    ("run fig5 --residual yes", "unknown residual 'yes': expected one of without, with, both"),
    ("run fig5 --variants mlp cnn", "unknown variant 'cnn'"),
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


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_the_first_alone_speaks(capsys, folder):
    code, out, _ = run(capsys, "fno", *TINY, "--results", "one", "--json")
    assert code == 0
    alone = json.loads(out)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "-m", "kansciml", "fno", *TINY]
    command += ["--results", "two", "--data-dir", "other", "--json"]  # the first process generates the samples
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one document
    assert together["config_hash"] == alone["config_hash"]
    for one, two in zip(alone["result"]["runs"], together["result"]["runs"]):
        assert two["processes"] == 2 and one["id"] == two["id"]
        for name in ("relative_l2", "train_loss", "minimum_loss"):
            assert two[name] == pytest.approx(one[name], rel=1e-4)
        curves = [np.load(Path(record["folder"]) / "arrays.npz")[f"{one['id']}.test_error"]
                  for record in (alone, together)]  # fmt: skip
        np.testing.assert_allclose(*curves, rtol=1e-4)
