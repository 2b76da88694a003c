"""``kansciml vision`` and ``kansciml evaluate`` as a user types them."""

import json
import signal
import time
from pathlib import Path

import pytest
from support.command_line import run

from kansciml import cli
from kansciml.experiments.vision.runs import SmoothedLoss
from kansciml.runs.records import Record, save_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.settings import settings_json

TINY = ["--model", "mixer", "--width", "8", "--depth", "1", "--token-hidden", "8", "--channel-hidden", "8"]
TINY += ["--subset", "100", "--epochs", "2", "--batch-size", "32", "--accelerator", "cpu"]


def test_train_then_evaluate_gives_the_numbers_of_the_record(capsys, folder):
    code, out, _ = run(capsys, "vision", *TINY, "--variant", "all", "--json")
    record = json.loads(out)
    assert code == 0 and record["status"] == "finished"
    rows = record["result"]["runs"]
    assert [row["variant"] for row in rows] == ["mlp", "kan-spline", "kan-rswaf"]
    names = {Path(path).name for path in record["files"]}
    assert {"curves.svg", "tables.md"} <= names
    where = record["folder"]
    code, out, err = run(capsys, "evaluate", where, "--json")
    document = json.loads(out)
    assert code == 0 and err == ""
    for row, found in zip(rows, document["models"]):
        assert [found[key] for key in ("id", "top1", "top5", "loss")] == [
            row[key] for key in ("id", "top1", "top5", "loss")
        ]
        shares = found["per_class"].values()
        confusion = found["confusion"]
        assert list(shares) == pytest.approx([line[i] / sum(line) for i, line in enumerate(confusion)])
        assert sum(map(sum, confusion)) == found["n"] == 360
    code, out, _ = run(capsys, "evaluate", where, "--model", "kan-rswaf", "--split", "train")
    assert code == 0 and "Scores on the train images" in out and "kan-rswaf.0" in out and "mlp" not in out
    code, out, err = run(capsys, "evaluate", where, "--model", "cnn")
    assert code == 2 and err.count("\n") == 1 and "expected one of mlp, kan-spline, kan-rswaf" in err
    code, out, err = run(capsys, "evaluate", where, "--split", "validation")
    assert code == 2 and "expected one of train, test" in err
    code, out, err = run(capsys, "evaluate", where, "--subsample", "5")  # that is for neural operators
    assert code == 2 and err.count("\n") == 1 and "--subsample" in err and "evaluate RUN --help" in err
    for flag, message in (("--accelerator=tpu", "unknown accelerator 'tpu'"), ("--batch-size=0", "got batch_size 0")):
        code, out, err = run(capsys, "evaluate", where, flag)
        assert code == 2 and err.count("\n") == 1 and message in err
    assert cli.main(["evaluate", where, "--help"]) == 0
    assert "--split" in capsys.readouterr().out
    # finished runs are not repeated, and are found by the other commands
    start = time.monotonic()
    code, out, err = run(capsys, "vision", *TINY, "--variant", "all")
    assert code == 0 and "finished on" in err and "Accuracy" in out and time.monotonic() - start < 10
    assert run(capsys, "render", "vision")[0] == 0
    flags = ["--steps", "5", "--probes", "2", "--samples", "40", "--deflate", "0", "--models", "mlp"]
    code, out, _ = run(capsys, "hessian", where, *flags, "--json")
    (model,) = json.loads(out)["result"]["models"]
    assert code == 0 and model["sharpness"]["measures"]["top"]["value"] > 0


def test_evaluate_of_another_run_is_one_line(capsys, folder):
    code, _, err = run(capsys, "evaluate", "nothing")
    assert code == 2 and err.count("\n") == 1 and "no run nothing: expected" in err
    settings = settings_json(get_experiment("fig1").presets["smoke"])
    save_record(Record(folder / "other", "fig1", settings, "0" * 12, "finished"))
    code, out, err = run(capsys, "evaluate", str(folder / "other"))
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "is a run of fig1, which keeps no weights that evaluate could score: expected a run of fig2, fig3" in err


def test_ctrl_c_leaves_a_run_that_the_same_command_finishes(capsys, folder, monkeypatch, no_pictures):
    command, compute, steps = ["vision", *TINY, "--variant", "mlp", "--epochs", "3"], SmoothedLoss.__call__, []

    def interrupted(self, module, batch):
        steps.append(1)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)
        return compute(self, module, batch)

    monkeypatch.setattr(SmoothedLoss, "__call__", interrupted)
    code, out, err = run(capsys, *command)
    assert code == 130 and out == "" and "Traceback" not in err
    assert "the same command continues there" in err and "the same command resumes it" in err
    (where,) = folder.glob("results/vision/*")
    assert json.loads((where / "record.json").read_text())["status"] == "interrupted"
    code, out, err = run(capsys, *command, "--json")
    document = json.loads(out)
    assert code == 0 and document["sessions"] == 2 and "continuing at step 5 of 9" in err
    assert [row["epochs"] for row in document["result"]["runs"]] == [3] and len(steps) == 9
