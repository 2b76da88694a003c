"""Many trainings: the pool equals one process, resumed jobs are not repeated, configurations make their jobs."""

import json
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest

from kansciml._errors import KansciError, UsageError
from kansciml.experiments import _ode_runs, fig2, ode
from kansciml.experiments._base import run_experiment
from kansciml.experiments._ode_runs import worker_count
from kansciml.ode import get_system
from kansciml.training.flat import FlatTraining

TINY = FlatTraining(4, lbfgs_steps=3)
CONFIG = ode.OdeConfig(system="spiral", backend="torch", seeds=2, hidden=(4,), training=TINY)


def without_times(record):
    rows = [{k: v for k, v in row.items() if k != "wall_s"} for row in record.result["runs"]]
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
        np.testing.assert_array_equal(array, pooled.arrays[name], err_msg=name)


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
    original = _ode_runs.train

    def counting(*args, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(_ode_runs, "train", counting)
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, tmp_path, monkeypatch, 1)
    evaluations = []

    def spying(*args, progress, **options):
        return original(*args, progress=lambda *a: evaluations.append(a), **options)

    monkeypatch.setattr(_ode_runs, "train", spying)
    record = run(CONFIG, tmp_path, monkeypatch, 1)
    assert record.sessions == 2 and len(record.result["runs"]) == 6
    assert len(evaluations) == 3 * 7  # three of six jobs were finished in the first session


def test_a_worker_that_dies_is_one_line_that_says_how_to_go_on(tmp_path, monkeypatch):
    wait = _ode_runs.wait

    def wait_and_kill_a_worker(*args, **options):
        for child in multiprocessing.active_children()[:1]:
            child.kill()  # as the system does when memory runs out
        return wait(*args, **options)

    monkeypatch.setattr(_ode_runs, "wait", wait_and_kill_a_worker)
    with pytest.raises(KansciError, match="a worker process died .*the same command resumes"):
        run(CONFIG, tmp_path, monkeypatch, 2)


def test_fig2_compares_at_equal_width_and_at_equal_parameters_and_studies_the_grid_range():
    jobs = fig2.jobs(fig2.EXPERIMENT.presets["small"])
    per_system = {name: {job.variant for job in jobs if job.system == name} for name in fig2.SYSTEMS}
    assert per_system["lotka"] == {"mlp", "kan-width", "kan-params"}
    assert per_system["spiral"] == {"mlp", "kan-width", "kan-params", "kan-unscaled", "kan-tanh"}
    assert len(jobs) == 5 * (4 * 3 + 5)
    assert fig2.EXPERIMENT.presets["paper"] == fig2.Fig2Config()


@pytest.mark.slow
def test_fig2_keeps_the_order_of_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("KANSCIML_WORKERS", "1")
    config = replace(fig2.EXPERIMENT.presets["smoke"], systems=("spiral", "lotka"), seeds=1, hidden=(3,), training=TINY)
    record = run_experiment(fig2.EXPERIMENT, config, results=tmp_path, log=lambda line: None)
    assert list(record.result["systems"]) == ["spiral", "lotka"]
    assert list(dict.fromkeys(row["system"] for row in record.result["runs"])) == ["spiral", "lotka"]
    assert fig2.EXPERIMENT.tables(record)


def test_both_backends_make_jobs_of_both():
    jobs = ode.jobs(replace(CONFIG, backend="both"))
    assert {job.variant for job in jobs} == {
        f"{v}@{b}" for v in ("mlp", "kan-width", "kan-params") for b in ("torch", "julia")
    }
    assert len({job.id for job in jobs}) == len(jobs) == 12


def test_presets_change_the_budget_alone():
    base = replace(CONFIG, grid=7)
    small = ode.preset("small", base)
    assert small.grid == 7 and small.training.adam_steps == 1000
    with pytest.raises(UsageError, match="unknown preset"):
        ode.preset("huge")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_workers_is_named(monkeypatch, text):
    monkeypatch.setenv("KANSCIML_WORKERS", text)
    with pytest.raises(UsageError, match="expected a positive number of processes"):
        worker_count()


def test_variant_names_say_how_widths_were_chosen():
    system = get_system("lotka")
    fields = _ode_runs.variant_fields(system, ("mlp", "kan"), ("width", "params"))
    assert {name: f.n_parameters for name, f in fields.items()} == {"mlp": 252, "kan-width": 2000, "kan-params": 240}
