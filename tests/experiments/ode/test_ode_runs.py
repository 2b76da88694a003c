"""Many trainings: the pool equals one process, resumed jobs are not repeated, configurations make their jobs."""

import importlib
import json
import multiprocessing
import sys
from dataclasses import replace

import numpy as np
import pytest
from support.settings import changed

from kansciml import KansciError, UsageError
from kansciml._errors import BackendUnavailable
from kansciml.experiments.fig2 import experiment as fig2
from kansciml.experiments.ode import config as parts
from kansciml.experiments.ode import experiment as ode
from kansciml.experiments.ode import figures as ode_figures
from kansciml.experiments.ode import paths as ode_paths
from kansciml.experiments.ode import runs
from kansciml.experiments.ode.backends import choices
from kansciml.experiments.ode.config import RunConfig, SystemConfig
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.variants import field_flops, variant_fields
from kansciml.ode import get_system
from kansciml.runs import pool
from kansciml.runs.records import Record, save_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.runner import resolved, result_folder, run_experiment
from kansciml.runs.settings import config_hash, setting, settings_json
from kansciml.tasks.ode.fitting.config import FitConfig
from kansciml.tasks.ode.problem import FieldSizes
from kansciml.training.flat import FlatTraining

TINY = FlatTraining(4, lbfgs_steps=3)
CONFIG = changed(ode.OdeConfig(), system="spiral", backend="torch", seeds=2, hidden=(4,), training=TINY)


def without_times(record):
    rows = [{k: v for k, v in row.items() if k not in ("wall_s", "cpu_s")} for row in record.result["runs"]]
    return json.dumps(sorted(rows, key=lambda row: row["id"]))


def run(config, folder, monkeypatch, workers, **options):
    monkeypatch.setenv("KANSCIML_WORKERS", str(workers))
    return run_experiment(ode.EXPERIMENT, config, results=folder, log=lambda line: None, **options)


@pytest.mark.slow
def test_a_pool_gives_the_numbers_of_one_process(tmp_path, monkeypatch):
    alone = run(CONFIG, tmp_path / "1", monkeypatch, 1)
    pooled = run(CONFIG, tmp_path / "2", monkeypatch, 2)
    assert without_times(alone) == without_times(pooled)
    assert set(alone.arrays) == set(pooled.arrays)
    for name, array in alone.arrays.items():
        if name.endswith(".cpu_s"):
            continue
        np.testing.assert_array_equal(array, pooled.arrays[name], err_msg=name)


def test_a_system_is_read_once(tmp_path, monkeypatch):
    calls, read = [], parts.get_system
    monkeypatch.setattr(parts, "get_system", lambda *args: calls.append(args) or read(*args))
    run(changed(CONFIG, model="mlp"), tmp_path, monkeypatch, 1)
    assert len(calls) == 1


def test_long_histories_keep_their_ends_and_where_they_change():
    count = 50_000
    rung = (np.arange(count) > 40_000).astype(np.int8)
    history = {"iteration": np.arange(count), "rung": rung, "phase": (np.arange(count) > 100).astype(np.int8)}
    short = runs.shortened(history)
    assert len(short["iteration"]) <= runs.ROWS + 4
    assert {0, 100, 101, 40_000, 40_001, count - 1} <= set(short["iteration"])
    assert runs.shortened(short | {"iteration": np.arange(9)})["rung"] is short["rung"]


def test_hashes_are_those_of_earlier_versions():
    assert config_hash("ode", ode.OdeConfig()) == "6c7734cb53db"
    assert config_hash("fig2", choices(fig2.Fig2Config())[-1]) == "365992b97ff7"  # on torch


def test_the_record_holds_what_the_figures_need(tmp_path, monkeypatch):
    record = run(CONFIG, tmp_path, monkeypatch, 1)
    assert [r["variant"] for r in record.result["runs"]] == ["mlp"] * 2 + ["kan-width"] * 2 + ["kan-params"] * 2
    for row in record.result["runs"]:
        assert row["train_mse"] > 0 and row["status"] == "finished"
        assert record.arrays[f"{row['id']}.params"].shape == (row["n_parameters"],)
        assert record.arrays[f"{row['id']}.loss"].shape == (7,)
    system = record.result["systems"]["spiral"]
    assert (
        system["n"] == 2 and record.arrays["spiral.truth"].shape == record.arrays["spiral.mlp.torch.0.trajectory"].shape
    )


def test_a_job_that_was_done_is_not_done_again(tmp_path, monkeypatch):
    calls = []
    original = runs.train

    def counting(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(runs, "train", counting)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, tmp_path, monkeypatch, 1)
    evaluations = []

    def spying(*args, progress, **options):
        return original(*args, progress=lambda *a: evaluations.append(a), **options)

    monkeypatch.setattr(runs, "train", spying)
    record = run(CONFIG, tmp_path, monkeypatch, 1)
    assert record.sessions == 2 and len(record.result["runs"]) == 6
    assert len(evaluations) == 3 * 7  # three of six jobs were finished in the first session


def test_a_worker_that_dies_is_one_line_that_says_how_to_go_on(tmp_path, monkeypatch):
    wait = pool.wait

    def wait_and_kill_a_worker(*args, **options):
        for child in multiprocessing.active_children()[:1]:
            child.kill()  # as the system does when memory runs out
        return wait(*args, **options)

    monkeypatch.setattr(pool, "wait", wait_and_kill_a_worker)
    with pytest.raises(KansciError, match=r"a worker process died \(SIGKILL\): the same command resumes"):
        run(CONFIG, tmp_path, monkeypatch, 2)


def test_fig2_compares_at_equal_width_and_at_equal_parameters_and_studies_the_grid_range():
    jobs = fig2.plan(fig2.EXPERIMENT.presets["small"]).jobs
    per_system = {name: {job.variant for job in jobs if job.system.name == name} for name in fig2.SYSTEMS}
    assert per_system["lotka"] == {"mlp", "kan-width", "kan-params"}
    assert per_system["spiral"] == {"mlp", "kan-width", "kan-params", "kan-unscaled", "kan-tanh"}
    assert len(jobs) == 12 * (4 * 3 + 5)
    assert {job.config.training.lbfgs_steps for job in jobs if job.system.name == "pleiades"} == {
        6000
    }  # the others: 60,000
    assert fig2.EXPERIMENT.presets["paper"] == fig2.Fig2Config()
    noisy = fig2.plan(changed(fig2.EXPERIMENT.presets["smoke"], noise=0.05, systems=("spiral",)))
    assert {(job.system.noise, job.system.test_trajectories, job.shown) for job in noisy.jobs} == {
        (0.05, 4, ("train",))
    }


@pytest.mark.slow
def test_fig2_keeps_the_order_of_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    config = changed(fig2.EXPERIMENT.presets["smoke"], systems=("spiral", "lotka"), seeds=1, hidden=(3,), training=TINY)
    record = run_experiment(fig2.EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    assert list(record.result["systems"]) == ["spiral", "lotka"]
    assert list(dict.fromkeys(row["system"] for row in record.result["runs"])) == ["spiral", "lotka"]
    assert fig2.EXPERIMENT.tables(record)
    assert all(row["unseen_relative_mse"] > 0 for row in record.result["runs"])
    assert len(record.result["systems"]["lotka"]["series"]) == 1 and "lotka.line_t.1" not in record.arrays


def test_both_backends_make_jobs_of_both():
    jobs = ode.plan(changed(CONFIG, backend="both")).jobs
    assert {job.group for job in jobs} == {
        f"{v}@{b}" for v in ("mlp", "kan-width", "kan-params") for b in ("torch", "julia")
    }
    assert len({job.id for job in jobs}) == len(jobs) == 12


def test_variant_names_say_how_widths_were_chosen():
    system = get_system("lotka")
    fields = variant_fields(system, ("mlp", "kan"), ("width", "params", "flops"), FieldSizes())
    sizes = {name: f.n_parameters for name, f in fields.items()}
    assert sizes.pop("kan-flops") < 240 and sizes == {"mlp": 252, "kan-width": 2000, "kan-params": 240}
    assert field_flops(fields["kan-flops"]) <= field_flops(fields["mlp"])


SYSTEM_FILE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from kansciml import ode
from beside_mine import rate
K = float(Path(__file__).with_name("k.txt").read_text())
def rhs(t, u):
    return -K * rate(u)
SYSTEM = ode.System("decay", u0=np.array([1.0]), train_end=1.0, train_saveat=np.linspace(0.0, 1.0, 5), rhs=rhs)
"""


def test_what_a_system_file_reads_and_imports_is_another_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def hashed(k="1", rate="u", folder="a"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "mine.py").write_text(SYSTEM_FILE)
        (place / "beside_mine.py").write_text(f"def rate(u):\n    return {rate}\n")
        (place / "k.txt").write_text(k)
        monkeypatch.delitem(sys.modules, "beside_mine", raising=False)
        importlib.invalidate_caches()
        config = changed(CONFIG, system=str(place / "mine.py"))
        return config_hash("ode", config), config_hash(
            "fig2", changed(fig2.Fig2Config(), systems=(config.system.system,))
        )

    first = hashed()
    assert hashed() == first == hashed(folder="b")  # wherever it lies
    for other in (hashed(k="2"), hashed(rate="u * (1.0 + u)")):
        assert other[0] != first[0] and other[1] != first[1]


def test_a_file_that_gives_another_system_each_time_is_refused(tmp_path, monkeypatch):
    (tmp_path / "noise.py").write_text(
        "import numpy as np\nfrom kansciml import ode\n"
        "data = ode.Trajectory(np.arange(4.0), np.random.default_rng().normal(size=(4, 1)))\n"
        "SYSTEM = ode.system_from_trajectory(data, 'noise')\n"
    )
    config = changed(CONFIG, system=str(tmp_path / "noise.py"), model="mlp")
    with pytest.raises(UsageError, match="gives another system each time it is read: seed its random numbers"):
        run(config, tmp_path, monkeypatch, 1)


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path, monkeypatch):
    path = tmp_path / "$a$.csv"
    path.write_text("t,$\\nothing$,price_$\n" + "".join(f"{i},{i},{i * i}\n" for i in range(5)))
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    config = changed(CONFIG, system="lotka", data=path, model="mlp")
    record = run_experiment(ode.EXPERIMENT, config, results=tmp_path)
    read = OdeRecord.read(record)
    figure = ode_paths.trajectories(read, *read.systems)
    assert [axes.yaxis.label.get_text() for axes in figure.axes] == [r"\$\nothing\$", r"price_\$"]
    assert figure.axes[-1].get_xlabel() == "time t"  # in the unit of the data


def test_data_of_a_step_are_reported_without_a_relative_error(tmp_path, monkeypatch):
    path, lines = tmp_path / "step.csv", []
    path.write_text(",t,x,y\n" + "".join(f"{i},{i},{5 if i < 4 else i},0\n" for i in range(8)))
    config = changed(CONFIG, system="lotka", data=path, train_fraction=0.5, model="mlp", max_steps=500)
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    record = run_experiment(ode.EXPERIMENT, config, results=tmp_path, log=lines.append)
    notes = [line for line in lines if not line.startswith(("plan: ", "models: ", "time: "))]
    assert len(notes) == 1 and "the time is column 2 't', the state x, y; column 1 is taken for row numbers" in notes[0]
    for row in record.result["runs"]:
        assert row["status"] == "finished" and row["train_mse"] < 1 < row["test_relative_mse"]
        assert row["train_relative_mse"] is None and "constant in time" in row["not_computed"]["train_relative_mse"]
    (table, *_) = ode.EXPERIMENT.tables(record)
    shown = table.to_json()["rows"][0]
    assert shown["Train relative MSE"] is None and np.isfinite(shown["Train MSE"])
    assert "step: train relative MSE of 2 of 2 runs not computed: the 4 rows of data are constant" in table.notes[-1]
    (axes,) = ode_figures.final_losses(OdeRecord.read(record)).axes
    assert axes.get_ylabel() == "MSE on the training span"
    assert ode.EXPERIMENT.trained(record)[0].metrics["train_relative_mse"] is None


def test_a_solution_that_could_not_be_computed_says_why(tmp_path, monkeypatch):
    config = changed(CONFIG, system="lotka", model="mlp", seeds=1, rtol=1e-3, atol=1e-3, max_steps=10)
    record = run(config, tmp_path, monkeypatch, 1)
    (row,) = record.result["runs"]
    assert row["train_mse"] is None and "more than 10 steps" in row["not_computed"]["test_mse"]
    notes = " ".join(ode.EXPERIMENT.tables(record)[0].notes)
    assert "train MSE of 1 of 1 runs not computed: solved again, the solution needs more than 10 steps" in notes


def test_a_training_that_ended_at_its_first_step_is_drawn(tmp_path, monkeypatch):
    record = run(changed(CONFIG, system="lotka", model="mlp", seeds=1, max_steps=1), tmp_path, monkeypatch, 1)
    assert record.result["runs"][0]["status"] == "diverged" and ode_figures.loss_curves(OdeRecord.read(record)).axes


def test_a_time_column_without_data_is_refused(tmp_path):
    with pytest.raises(UsageError, match="got time_column 'when' without data"):
        SystemConfig(time_column="when")
    with pytest.raises(UsageError, match="got train_fraction 0.5 without data"):
        SystemConfig(train_fraction=0.5)
    (tmp_path / "d.csv").write_text("x,when\n1,0\n2,1\n")
    (system,) = ode.plan(changed(CONFIG, data=tmp_path / "d.csv", time_column="when")).systems.values()
    assert system.trajectories[0].t.tolist() == [0.0, 1.0]


def test_flags_say_which_columns_and_which_trajectories(tmp_path):
    (tmp_path / "d.csv").write_text(
        "run,when,x,f,w\n" + "".join(f"{r},{t},{r + t},{t},2\n" for r in range(5) for t in range(4))
    )
    columns = {"id_column": "run", "time_column": "when", "states": ("x",), "inputs": ("f",), "weight_columns": ("w",)}
    config = SystemConfig(data=tmp_path / "d.csv", **columns, test_trajectories=2, validation_trajectories=0.2)
    lines = []
    system = config.resolve(lines.append)
    assert (len(system.training), len(system.validation), len(system.unseen)) == (2, 1, 2) and len(lines) == 2
    assert system.input_size == 1 and system.trajectories[0].weights.max() == 2 and system.labels == ("x",)
    lotka = SystemConfig(trajectories=3, noise=0.1).resolve()
    assert (len(lotka.training), len(lotka.unseen)) == (3, 3)
    assert SystemConfig(trajectories=3, test_trajectories=1.0).resolve().unseen == (3,)
    for options, message in (
        ({"id_column": "run"}, "got id_column 'run' without data"),
        ({"inputs": ("f",)}, "got inputs .* without data"),
        ({"data": tmp_path / "d.csv", "noise": 0.1}, "got noise 0.1 with data: it is for a --system"),
        ({"data": tmp_path / "d.csv", "trajectories": 2}, "got trajectories 2 with data"),
    ):
        with pytest.raises(UsageError, match=message):
            SystemConfig(**options)


def test_a_system_that_blows_up_beyond_its_training_span_has_a_result(tmp_path, monkeypatch):
    (tmp_path / "pole.py").write_text(
        "import numpy as np\nfrom kansciml import ode\n"
        "SYSTEM = ode.System('pole', u0=np.array([1.0]), train_end=0.5, test_end=2.0, rhs=lambda t, u: u**2,\n"
        "                    train_saveat=np.linspace(0.0, 0.5, 6))\n"
    )
    config = changed(CONFIG, system=str(tmp_path / "pole.py"), model="mlp", seeds=1)
    record = run(config, tmp_path, monkeypatch, 1)
    (row,) = record.result["runs"]
    assert row["train_relative_mse"] > 0 and row["test_mse"] is None
    assert "no reference solution of pole up to t = 2" in row["not_computed"]["test_mse"]
    assert "pole: test MSE of 1 of 1 runs not computed" in " ".join(ode.EXPERIMENT.tables(record)[0].notes)
    read = OdeRecord.read(record)
    assert ode_paths.trajectories(read, *read.systems).axes


def test_an_unseen_trajectory_without_a_first_state_says_why_it_has_no_error(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    rows = [f"{name},{t},{'' if t == 0 else t},1\n" for name in "ab" for t in range(4)]
    path.write_text("run,t,x,y\n" + "".join(rows))
    source = SystemConfig(data=path, id_column="run", test_trajectories=1)
    learned = replace(RunConfig.of_steps(1, 0, 1), fit=FitConfig(learn_u0=True))
    record = run_experiment(
        ode.EXPERIMENT, ode.OdeConfig(source, "mlp", run=learned), results=tmp_path, log=lambda line: None
    )
    assert "unseen MSE of 1 of 1 runs not computed: trajectory" in " ".join(ode.EXPERIMENT.tables(record)[0].notes)
    held = replace(source, test_trajectories=None, validation_trajectories=1)
    with pytest.raises(UsageError, match="not measured in the first row, the initial state of a trajectory for valid"):
        ode.plan(ode.OdeConfig(held, "mlp", run=learned))


def test_a_first_trajectory_without_test_rows_hides_no_test_error(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(
        "run,t,x\n" + "".join(f"{name},{t},{t}\n" for name, rows in (("a", 2), ("b", 8)) for t in range(rows))
    )
    source = SystemConfig(data=path, id_column="run", train_fraction=0.5)
    config = ode.OdeConfig(source, "mlp", run=RunConfig.of_steps(1, 0, 1))
    record = run_experiment(ode.EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    (row,) = ode.EXPERIMENT.tables(record)[0].to_json()["rows"]
    assert row["Test relative MSE"] == record.result["runs"][0]["test_relative_mse"] > 0


@pytest.mark.parametrize("name", ["ode", "fig2", "fair"])
def test_auto_is_a_finished_run_on_julia_or_else_what_starts(name, tmp_path, monkeypatch):
    """What `auto` stands for is a configuration like any other: a folder of results belongs to one backend."""
    experiment, log = get_experiment(name), []
    auto = experiment.preset("smoke")
    julia, torch = experiment.choices(auto)
    assert [setting(one, "backend") for one in (auto, julia, torch)] == ["auto", "julia", "torch"]
    assert experiment.choices(torch) == (torch,)
    monkeypatch.setenv("PYTHON_JULIACALL_EXE", str(tmp_path / "no-julia"))
    assert resolved(experiment, auto, tmp_path, False, log.append) == torch
    assert any("torch, because Julia does not start" in line for line in log)
    with pytest.raises(BackendUnavailable):
        resolved(experiment, julia, tmp_path, False, log.append)
    folder = result_folder(experiment, julia, tmp_path)
    folder.mkdir(parents=True)
    save_record(Record(folder, name, settings_json(julia), folder.name, "finished"))
    assert resolved(experiment, auto, tmp_path, False, log.append) == julia  # without starting anything
