"""``kansciml rerun`` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.command_line import run

from kansciml import cli

FIG1 = "--preset smoke --widths 8 --batches 8".split()


def test_what_is_not_there_is_one_line(capsys):
    code, _, err = run(capsys, "rerun", "x")
    assert code == 2 and err.startswith("error: no run x: expected the folder of one") and err.count("\n") == 1


def test_a_rerun_gives_the_same_numbers_and_a_doctored_record_is_caught(capsys, swept):
    results, _ = swept
    original = sorted((results / "ode").iterdir())[0]
    before = (original / "record.json").read_bytes()
    code, out, _ = run(capsys, "rerun", str(original), "--json")
    document = json.loads(out)
    assert code == 0 and document["identical"] and document["differences"] == [] and document["elements"] > 100
    assert document["not_compared"] == ["cpu_s", "wall_s"]
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


def test_data_that_moved_are_one_line_and_can_be_named(capsys, folder, no_pictures):
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
