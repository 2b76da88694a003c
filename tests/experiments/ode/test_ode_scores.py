"""``kansciml evaluate`` of neural ODEs on other data, and what a run keeps of its known terms."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.command_line import run

from kansciml import ode
from kansciml._workers import WORKERS_VARIABLE
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.experiment import EXPERIMENT, OdeConfig
from kansciml.runs.runner import run_experiment
from kansciml.tasks.ode.problem import FieldConfig

T = np.linspace(0.0, 2.0, 9)
HALF_KNOWN = """
import numpy as np
from kansciml import ode

t = np.linspace(0.0, 2.0, 9)
data = ode.Trajectory(t, np.column_stack([np.exp(-t), 1 + t]), ("x", "y"))


def known(t, u, network, p):
    return np.stack([-p["decay"] * u[..., 0], network(u)[..., 0]], axis=-1)


from dataclasses import replace
SYSTEM = replace(ode.system_from_trajectory(data, "half"), physics=ode.Physics(known, parameters={"decay": 0.5}))
"""


def table(path, starts):
    rows = [f"{name},{t},{x * np.exp(-t)},{y + t}" for name, (x, y) in starts.items() for t in T]
    path.write_text("\n".join(["run,t,x,y", *rows]))
    return path


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Known terms and an MLP of one unit, two seeds."""
    folder = tmp_path_factory.mktemp("half")
    (folder / "half.py").write_text(HALF_KNOWN)
    config = OdeConfig(
        SystemConfig(str(folder / "half.py")),
        "mlp",
        "width",
        FieldConfig(hidden=(1,)),
        replace(RunConfig.of_steps(5, 3, 2), backend="torch"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(WORKERS_VARIABLE, "1")  # two would take longer to start than to train
        return run_experiment(EXPERIMENT, config, results=folder / "results", log=lambda line: None)


def test_errors_on_other_trajectories_are_those_of_the_models_there(record, tmp_path, capsys):
    path = table(tmp_path / "other.csv", {"a": (1.0, 1.0), "b": (2.0, 0.5)})
    code, printed, _ = run(capsys, "evaluate", str(record.folder), "--data", str(path), "--id-column", "run", "--json")
    models = json.loads(printed)["models"]
    assert code == 0 and [one["id"] for one in models] == [row["id"] for row in record.result["runs"]]
    for one in models:
        model = ode.load(record.folder / "models" / one["id"])
        squares = []
        for found, (x, y) in zip(one["trajectories"], ((1.0, 1.0), (2.0, 0.5))):
            truth = np.column_stack([x * np.exp(-T), y + T])
            squares.append((model.trajectory(T, u0=[x, y], t0=0.0) - truth) ** 2)
            assert found["mse"] == pytest.approx(np.mean(squares[-1]), rel=1e-9) and found["relative_mse"] > 0
        assert one["all"]["mse"] == pytest.approx(np.mean(squares), rel=1e-9)
    path.write_text("\n".join(line for line in path.read_text().splitlines()[1:] if line.startswith("a")))  # no header
    _, printed, _ = run(capsys, "evaluate", str(record.folder), "--data", str(path), "--id-column", "1", "--json",
                        "--time-column", "2", "--states", "3", "4")  # fmt: skip
    assert [one["all"]["mse"] for one in json.loads(printed)["models"]] == [
        pytest.approx(one["trajectories"][0]["mse"], rel=1e-12) for one in models
    ]
    path = table(tmp_path / "other.csv", {"a": (1.0, 1.0), "b": (2.0, 0.5)})
    code, printed, _ = run(capsys, "evaluate", str(record.folder), "--data", str(path), "--id-column", "run")
    assert code == 0 and "Errors on other data" in printed and printed.count(" all ") == 2


def test_a_solution_that_blows_up_is_told_and_the_others_are_scored(record, tmp_path, capsys):
    path = table(tmp_path / "far.csv", {"near": (1.0, 1.0), "far": (1e300, 1e300)})
    arguments = ("--data", str(path), "--id-column", "run", "--model", record.result["runs"][0]["id"], "--json")
    _, printed, _ = run(capsys, "evaluate", str(record.folder), *arguments)
    near, far = json.loads(printed)["models"][0]["trajectories"]
    assert near["mse"] > 0 and far["mse"] is None and far["missing"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("t,x,y\n0,1,1\n1,2,2", (), "wants --data, a table of other trajectories"),
        ("t,x,z\n0,1,1\n1,2,2", ("--data", "{path}"), "has no column 'y' for a state: expected one of t, x, z"),
        ("t,x,y\n0,,1\n1,2,2", ("--data", "{path}"), "x not measured in its first row"),
        ("t,x,y\n0,1,1\n1,2,2", ("--data", "{path}", "--model", "kan"), "unknown model 'kan'"),
        ("t,x,y\n0,1,1\n1,2,2", ("--data", "{path}", "--id-column", "run"), "has no column 'run'"),
        ("t,x,y\n0,1,1\n1,2,2", ("--data", "{path}", "--states", "x"), "got 1 states: expected 2 columns, for x, y"),
        ("t,x,y\n0,1,1\n1,2,2", ("--data", "{path}", "--inputs", "x"), "got 1 inputs: expected 0 columns, for none"),
    ],
)
def test_data_that_do_not_suit_are_one_line(record, tmp_path, capsys, text, arguments, message):
    path = tmp_path / "other.csv"
    path.write_text(text)
    code, _, told = run(capsys, "evaluate", str(record.folder), *(part.format(path=path) for part in arguments))
    assert code == 2 and message in told.splitlines()[-1]


def test_estimates_are_in_the_record_its_tables_and_the_model(record):
    row = record.result["runs"][0]
    assert row["label"] == "known terms + MLP 2-1-1" and set(row["estimates"]) == {"decay"}
    assert ode.load(record.folder / "models" / row["id"]).estimates == row["estimates"]
    shown = next(one for one in EXPERIMENT.tables(record) if one.title == "Estimated parameters")
    estimates = [one["estimates"]["decay"] for one in record.result["runs"]]
    assert shown.rows[0][3] == "decay" and shown.rows[0][-2:] == [min(estimates), max(estimates)]
    assert (record.folder / "models" / row["id"] / "system.py").read_text() == HALF_KNOWN


def test_what_does_not_solve_known_terms_is_refused_before_anything_starts(tmp_path, capsys):
    (tmp_path / "half.py").write_text(HALF_KNOWN)
    common = ("--system", str(tmp_path / "half.py"), "--results", str(tmp_path / "results"), "--preset", "smoke")
    code, _, told = run(capsys, "ode", *common, "--backend", "torch", "--gradient", "adjoint")
    assert code == 2 and "got gradient adjoint for known terms" in told.splitlines()[-1]
    assert not (tmp_path / "results").exists()
