"""Commands under torchrun: two processes do what one does, and the first alone speaks."""

import json

import numpy as np
import pytest
from support import torchrun
from support.command_line import run

pytestmark = pytest.mark.slow
IMAGES = (
    "vision --model mixer --width 8 --depth 1 --token-hidden 8 --channel-hidden 8 --subset 100 --batch-size 32"
    " --augmentation mixer --accelerator cpu --epochs 2 --json"
).split()
OPERATORS = (
    "fno --resolution 57 --subsample 4 --n-train 8 --n-test 4 --batch-size 4 --width 4 --modes 3 3 --iterations 2"
    " --projection 6 --accelerator cpu --epochs 2 --json"
).split()
SPIRAL = "ode --system spiral --backend torch --seeds 1 --hidden 3 --match params --adam-steps 3 --lbfgs-steps 2"
HESSIAN = "--steps 6 --probes 3 --exact both --json".split()  # columns and probes are shared out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torchrun")


@pytest.fixture
def alone(folder, capsys, no_pictures):
    """Documents of the same commands in one process, and the folder of the run whose Hessian is taken."""
    trained = json.loads(run(capsys, *SPIRAL.split(), "--workers", "1", "--results", str(folder), "--json")[1])[
        "folder"
    ]
    commands = [
        [*IMAGES, "--results", folder / "one"],
        [*OPERATORS, "--results", folder / "one", "--data-dir", folder / "a"],
        ["hessian", trained, *HESSIAN, "--out", folder / "one"],
    ]
    return [json.loads(run(capsys, *map(str, command))[1]) for command in commands], trained


def test_two_processes_find_what_one_does_and_the_first_alone_speaks(alone, folder):
    documents, trained = alone
    images = [*IMAGES, "--results", folder / "two"]
    commands = [
        images,
        images,  # finished: the others are sent home
        [*OPERATORS, "--results", folder / "two", "--data-dir", folder / "b"],  # the first generates the samples
        ["hessian", trained, *HESSIAN, "--out", folder / "two"],
        [*images, "--batch-size", "33"],
        ["hessian", trained, "--models", "cnn"],
        [*images, "--patch", "3"],
    ]
    said, done = torchrun.commands(folder, commands)
    assert [second for _, second in said] == [[0, "", ""]] * 6
    assert [first[0] for first, _ in said] == [0, 0, 0, 0, 2, 2]
    (first, again, operators, hessian, shared, _) = [out for (_, out, _), _ in said]
    for one, two, score, curve in (
        (documents[0], json.loads(first), "loss", "test_loss"),
        (documents[1], json.loads(operators), "relative_l2", "test_error"),
    ):
        assert one["config_hash"] == two["config_hash"]
        arrays = [np.load(f"{document['folder']}/arrays.npz") for document in (one, two)]
        for row, other in zip(one["result"]["runs"], two["result"]["runs"], strict=True):
            assert other["processes"] == 2 and row["id"] == other["id"]
            for column in (score, "train_loss", "minimum_loss"):
                assert other[column] == pytest.approx(row[column], rel=1e-4)
            for name in ("loss", curve):
                np.testing.assert_allclose(*(found[f"{row['id']}.{name}"] for found in arrays), rtol=1e-4)
    assert json.loads(again)["sessions"] == 1 and "finished on" in said[1][0][2]
    hessian = json.loads(hessian)["result"]
    for one, two in zip(documents[2]["result"]["models"], hessian["models"], strict=True):
        assert (one["processes"], two["processes"]) == (1, 2) and one["sharpness"] == two["sharpness"]
    assert hessian["verdicts"] == documents[2]["result"]["verdicts"]
    # mistakes: one line, nobody waits, and torchrun fails
    assert "got batch_size 33 on 2 processes" in json.loads(shared)["error"]
    assert "unknown model 'cnn'" in said[5][0][2]
    assert all(said[place][0][2].count("\n") == 1 for place in (4, 5))
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(lines) == 1 and "patch 3" in lines[0]
    assert "patch 3" in json.loads(done.stdout)["error"]
    assert len(list((folder / "two" / "vision").iterdir())) == 1
