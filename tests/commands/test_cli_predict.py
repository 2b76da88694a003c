"""``kansciml predict``: the numbers of the model, as CSV, JSON or a picture; whatever is wrong is one line."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from support.command_line import run

from kansciml import ode
from kansciml._workers import WORKERS_VARIABLE
from kansciml.experiments.ode.config import RunConfig
from kansciml.experiments.ode.experiment import EXPERIMENT, OdeConfig
from kansciml.runs.runner import run_experiment
from kansciml.tasks.ode.problem import FieldConfig
from kansciml.tasks.ode.table import read_inputs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder of results with one run, and its name there."""
    folder = tmp_path_factory.mktemp("results")
    config = OdeConfig(
        model="mlp", field=FieldConfig(hidden=(4,)), run=replace(RunConfig.of_steps(3, 0, 2), backend="torch")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WORKERS_VARIABLE, "1")  # two would take longer to start than to train
        record = run_experiment(EXPERIMENT, config, results=folder, log=lambda line: None)
        return folder, record


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model with an input."""
    t = np.linspace(0.0, 2.0, 21)
    data = ode.Trajectory(t, np.column_stack([np.sin(t), np.cos(t)]), ("x", "y"), inputs=np.cos(t)[:, None])
    short = ode.FlatTraining(adam_steps=2, lbfgs_steps=0)
    return ode.train(data, "mlp", hidden=(3,), training=short).save(tmp_path_factory.mktemp("saved") / "model")


def test_the_best_model_of_a_run_is_found_by_the_name_of_the_run_and_told(results, capsys):
    folder, record = results
    arguments = ("--u0", "2", "1", "--t", "0", "0.3", "0.1")
    code, printed, told = run(capsys, "predict", record.folder.name, *arguments, "--results", str(folder))
    header, *rows = csv.reader(io.StringIO(printed))
    assert code == 0 and header == ["t", "prey x", "predator y"]
    assert [row[0] for row in rows] == ["0.0", "0.1", "0.2", "0.3"]
    best = min(record.result["runs"], key=lambda row: row["train_mse"])["id"]
    assert told == f"model: {best}, of 2 the one with the lowest training error (--model takes another)\n"
    model = ode.load(record.folder / "models" / best)
    np.testing.assert_array_equal(np.array(rows, dtype=float)[:, 1:], model.trajectory([0, 0.1, 0.2, 0.3], u0=[2, 1]))
    other = next(row["id"] for row in record.result["runs"] if row["id"] != best)
    _, chosen, told = run(capsys, "predict", str(record.folder), *arguments, "--model", other)
    assert chosen != printed and told == ""


def test_json_and_files_hold_the_same_numbers(saved, tmp_path, capsys, every_format):
    times = tmp_path / "times.csv"
    times.write_text("time,anything\n0.5,a\n1.5,b\n")
    _, document, _ = run(capsys, "predict", str(saved), "--times", str(times), "--json")
    found = json.loads(document)
    assert found["t"] == [0.5, 1.5] and found["labels"] == ["x", "y"] and found["system"] == "data"
    for name in ("a.json", "a.csv", "a.png", "a.svg", "a.pdf"):
        code, told, _ = run(capsys, "predict", str(saved), "--times", "0.5", "1.5", "--output", str(tmp_path / name))
        assert code == 0 and told == f"2 times in {tmp_path / name}\n" and (tmp_path / name).stat().st_size > 50
    assert json.loads((tmp_path / "a.json").read_text())["u"] == found["u"]
    assert np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1)[:, 1:].tolist() == found["u"]


def test_inputs_from_a_table_drive_the_model(saved, tmp_path, capsys):
    table = tmp_path / "inputs.csv"
    table.write_text("t,other,w1\n0,7,0.5\n3,7,-2\n")
    start = ("--u0", "0.1", "0.2", "--times", "0", "3")
    code, printed, _ = run(capsys, "predict", str(saved), *start, "--inputs", str(table))
    forced = ode.Inputs([0.0, 3.0], [[0.5], [-2.0]])
    model = ode.load(saved)
    expected = model.trajectory([0.0, 3.0], u0=[0.1, 0.2], inputs=forced)
    assert code == 0
    np.testing.assert_array_equal(np.loadtxt(io.StringIO(printed), delimiter=",", skiprows=1)[:, 1:], expected)
    code, _, told = run(capsys, "predict", str(saved), *start)
    assert code == 2 and "the inputs are known from 0 to 2" in told
    table.write_text("t,other\n0,7\n3,8\n")
    code, _, told = run(capsys, "predict", str(saved), *start, "--inputs", str(table))
    assert code == 2 and "has no column 'w1' for an input: expected one of t, other" in told
    table.write_text("t,w1\n0,\n3,8\n")
    code, _, told = run(capsys, "predict", str(saved), *start, "--inputs", str(table))
    assert code == 2 and "fill gaps of inputs" in told


def test_the_time_itself_can_be_an_input_of_a_table(tmp_path):
    table = tmp_path / "inputs.csv"
    table.write_text("t,x,T\n0,5,20\n1,6,21\n3,7,22\n")  # x and T increase as times do
    found = read_inputs(table, ("t", "x"), log=str)
    assert found.t.tolist() == [0.0, 1.0, 3.0] and found.values.tolist() == [[0.0, 5.0], [1.0, 6.0], [3.0, 7.0]]
    assert read_inputs(table, ("T",)).t.tolist() == [0.0, 1.0, 3.0]
    assert read_inputs(table, ("t",), "x", "held").t.tolist() == [5.0, 6.0, 7.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "predict wants a trained model or a finished run"),
        (("{saved}", "--u0", "1"), "got 1 numbers for u0: expected 2, x, y"),
        (("{saved}", "--t", "0", "1"), "got 2 numbers for --t: expected three"),
        (("{saved}", "--t", "0", "1", "-0.1"), "a positive step, and at most 1000000 times"),
        (("{saved}", "--t", "0", "1e9", "1"), "a positive step, and at most 1000000 times"),
        (("{saved}", "--t", "0", "1", "1", "--times", "1"), "got both --t and --times"),
        (("{saved}", "--times", "gone.csv"), "gone.csv is not there: expected numbers, or a file"),
        (("{saved}", "--times", "1", "soon"), "got 'soon' for --times: expected finite numbers"),
        (("{saved}", "--times", "-1"), "got times -1.0 to -1.0: expected finite times from 0.0 on"),
        (("{saved}", "--output", "a.xyz"), "got output a.xyz: expected a name that ends in .csv"),
        (("{saved}", "--model", "mlp"), "which holds one model: leave it out"),
        (("{saved}", "--tolerance", "0"), "expected positive tolerances"),
        (("gone",), "no run gone: expected the folder of one, or its name or hash"),
        (("{run}", "--model", "rnn"), "unknown model 'rnn': expected one of mlp, lotka.mlp.torch.0"),
        (("{run}", "--inputs", "a.csv", "--model", "mlp"), "got --inputs a.csv for a model without inputs"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(results, saved, capsys, arguments, message):
    filled = [argument.format(saved=saved, run=results[1].folder) for argument in arguments]
    code, printed, told = run(capsys, "predict", *filled)
    assert code == 2 and printed == "" and message in told.splitlines()[-1]


def test_a_run_that_keeps_no_models_says_what_to_do(results, tmp_path, capsys):
    folder = tmp_path / "moved"
    folder.mkdir()
    for name in ("record.json", "arrays.npz"):
        (folder / name).write_bytes((results[1].folder / name).read_bytes())
    code, _, told = run(capsys, "predict", str(folder))
    assert code == 1 and "keeps no trained neural ODEs: resume it, or run it again with --force" in told
    other = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**other, "experiment": "vision", "result": {"runs": []}}))
    code, _, told = run(capsys, "predict", str(folder))
    assert code == 1 and "is a run of vision: expected one of kansciml ode, or a model" in told


def test_of_several_trajectories_the_first_start_is_taken_and_told(tmp_path, capsys, every_format):
    t = np.linspace(0.0, 1.0, 5)
    pair = [ode.Trajectory(t, np.column_stack([k + t, t]), name=name) for k, name in ((1.0, "a"), (2.0, "b"))]
    short = ode.FlatTraining(adam_steps=2, lbfgs_steps=0)
    system = ode.system_from_trajectories(pair, "pair")
    folder = ode.train(system, "mlp", hidden=(2,), training=short).save(tmp_path / "model")
    _, printed, told = run(capsys, "predict", str(folder), "--times", "0")
    assert printed.splitlines()[1] == "0.0,1.0,0.0"
    assert told == "initial state: that of trajectory a, the first of 2 (--series or --u0 gives another)\n"
    _, printed, told = run(capsys, "predict", str(folder), "--times", "0", "--series", "b")
    assert printed.splitlines()[1] == "0.0,2.0,0.0" and not told
    model = ode.load(folder)
    _, printed, _ = run(capsys, "predict", str(folder), "--series", "all", "--json")
    both = json.loads(printed)["trajectories"]
    assert [one["name"] for one in both] == ["a", "b"] and all(len(one["t"]) == 101 for one in both)
    np.testing.assert_array_equal(both[1]["u"], model.trajectory(both[1]["t"], series=1))
    code, _, told = run(capsys, "predict", str(folder), "--series", "all", "--output", "both.csv")
    header, *rows = (tmp_path / "both.csv").read_text().splitlines()
    assert (code, header, len(rows), rows[101][:6]) == (0, "trajectory,t,u1,u2", 202, "b,0.0,")
    code, _, _ = run(capsys, "predict", str(folder), "--series", "all", "--output", "both.png")
    assert code == 0 and (tmp_path / "both.png").stat().st_size > 50
    for flags, message in (
        (("--series", "c"), "unknown series 'c': expected one of a, b, all"),
        (("--series", "all", "--u0", "1", "1"), "got --u0 with --series all"),
    ):
        code, _, told = run(capsys, "predict", str(folder), *flags)
        assert code == 2 and message in told


def test_dates_count_from_those_that_were_trained_on(tmp_path, capsys):
    days = [f"2024-01-{day:02},{np.exp(-day / 9)}" for day in range(1, 10)]
    (tmp_path / "data.csv").write_text("\n".join(["date,x", *days]))
    (tmp_path / "later.csv").write_text("\n".join(["date,x", *days[4:]]))
    flags = ("--model", "mlp", "--hidden", "2", "--adam-steps", "2", "--lbfgs-steps", "0", "--backend", "torch")
    code, _, _ = run(capsys, "ode", "--data", "data.csv", "--inputs", "date", *flags, "--seeds", "1", "--json")
    (folder,) = (tmp_path / "results" / "ode").iterdir()
    model = ode.load(next((folder / "models").iterdir()))
    assert code == 0 and model.about["clock"] == {"column": "date", "since": "2024-01-01T00:00:00"}
    day = 86400.0
    truth = np.exp(-np.arange(5, 10) / 9)
    states = model.trajectory(np.arange(4, 9) * day, u0=truth[:1], t0=4 * day)
    code, printed, told = run(capsys, "evaluate", str(folder), "--data", "later.csv", "--json")
    (scored,) = json.loads(printed)["models"]
    assert scored["all"]["mse"] == pytest.approx(np.mean((states[:, 0] - truth) ** 2), rel=1e-9)
    assert "seconds since 2024-01-01T00:00:00" in told
    start = ("--u0", repr(float(truth[0])), "--inputs", "later.csv")
    code, printed, _ = run(capsys, "predict", str(folder), *start, "--times", "2024-01-05", "2024-01-09")
    header, first, last = printed.splitlines()
    assert (header, float(first.split(",")[0])) == ("seconds since 2024-01-01T00:00:00,x", 4 * day)
    assert [float(cell) for cell in last.split(",")] == [8 * day, pytest.approx(states[-1, 0], rel=1e-9)]
    (tmp_path / "later.csv").write_text("date,x\n4,1\n8,1\n")
    for arguments in (("evaluate", str(folder), "--data", "later.csv"), ("predict", str(folder), *start)):
        code, printed, told = run(capsys, *arguments)
        assert code == 2 and "holds numbers: expected dates" in told.splitlines()[-1] and not printed
