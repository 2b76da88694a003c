"""The runner: hashes, resuming, never repeating, locking, and what is left when something goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from support.settings import changed

from kansciml import KansciError, UsageError
from kansciml.experiments.fig2 import experiment as fig2
from kansciml.experiments.fig2.experiment import Fig2Config
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import load_record
from kansciml.runs.runner import result_folder, run_experiment
from kansciml.runs.settings import config_hash, flat_items, seed_range
from kansciml.runs.tables import Table


@dataclass(frozen=True)
class Solver:
    rtol: float = 1e-7
    method: str = "dopri5"


@dataclass(frozen=True)
class Config:
    solver: Solver = field(default_factory=Solver)
    widths: tuple[int, ...] = (2, 50, 2)
    seeds: int = 3
    data: Path | None = None


def experiment(run) -> Experiment:
    return Experiment(
        name="demo",
        title="A demonstration",
        item="Figure 0",
        config=Config,
        presets={"smoke": Config(seeds=1), "paper": Config()},
        run=run,
        render=lambda record, folder: [],
        summary=lambda record: Table("demo", ["calls"], [[record.result["calls"]]]),
    )


def calls_of(folder: Path) -> list[int]:
    """What `Counter` noted in the log of the run."""
    return [json.loads(line)["call"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Counter:
    """An experiment that counts how often it is run, and raises `errors` in turn."""

    def __init__(self, *errors: BaseException) -> None:
        self.calls = 0
        self.errors = list(errors)

    def __call__(self, config: Config, context: RunContext) -> Result:
        self.calls += 1
        context.metrics({"call": self.calls, "loss": float("nan")})
        (context.checkpoints / f"call{self.calls}").write_text("state")
        if self.errors:
            raise self.errors.pop(0)
        return Result({"calls": self.calls, "loss": float("inf")}, {"curve": np.arange(3.0)})


class TestHash:
    def test_is_the_same_in_every_process_and_version(self):
        """A golden value: a change here orphans every result on users' disks."""
        assert config_hash("demo", Config()) == "4ae36750a6ad"

    @pytest.mark.parametrize(
        "other",
        [
            Config(seeds=4),
            Config(widths=(2, 50, 50, 2)),
            Config(solver=Solver(rtol=1e-8)),
            Config(solver=Solver(method="tsit5")),
            Config(solver=Solver(rtol=float("inf"))),
            Config(data=Path("missing.csv")),
        ],
    )
    def test_any_field_changes_it(self, other):
        assert config_hash("demo", other) != config_hash("demo", Config())

    def test_the_experiment_changes_it(self):
        assert config_hash("demo", Config()) != config_hash("other", Config())

    def test_equal_configs_hash_equally(self):
        assert config_hash("demo", Config(solver=Solver(rtol=1))) == config_hash(
            "demo", Config(solver=Solver(rtol=1.0))
        )
        assert config_hash("demo", Config(widths=[2, 50, 2])) == config_hash("demo", Config())

    def test_data_file_counts_by_its_contents(self, tmp_path):
        hashes = []
        for folder, text in (("a", "t,u\n0,1\n"), ("b", "t,u\n0,1\n"), ("c", "t,u\n0,2\n")):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "data.csv").write_text(text)
            hashes.append(config_hash("demo", Config(data=tmp_path / folder / "data.csv")))
        assert hashes[0] == hashes[1] != hashes[2]
        assert config_hash("demo", Config(data=str(tmp_path / "a" / "data.csv"))) == hashes[0]

    def test_results_folder_does_not_matter(self, tmp_path):
        run = experiment(Counter())
        folders = [result_folder(run, Config(), tmp_path / name) for name in "ab"]
        assert folders[0] != folders[1] and folders[0].name == folders[1].name == config_hash("demo", Config())


class TestFinished:
    def test_record_is_complete_strict_json(self, tmp_path):
        record = run_experiment(experiment(Counter()), Config(), results=tmp_path, log=list().append)
        assert record.status == "finished" and record.result == {"calls": 1, "loss": None}
        np.testing.assert_array_equal(record.arrays["curve"], [0.0, 1.0, 2.0])
        assert record.seeds == (0, 1, 2) and record.sessions == 1 and record.wall_s >= 0
        assert record.started <= record.finished and record.finished.endswith("+00:00")
        assert record.versions["numpy"] == np.__version__ and record.peak_memory_mb > 1
        assert record.config == json.loads((record.folder / "config.json").read_text())
        assert record.config == {**asdict(Config()), "widths": [2, 50, 2]}

        def refuse(token):
            raise AssertionError(f"{token} is not JSON")

        for line in (record.folder / "record.json").read_text(), (record.folder / "metrics.jsonl").read_text():
            json.loads(line, parse_constant=refuse)

    def test_second_call_returns_it_and_says_so_in_one_line(self, tmp_path):
        count, lines = Counter(), []
        first = run_experiment(experiment(count), Config(), results=tmp_path, log=lines.append)
        assert lines == []
        again = run_experiment(experiment(count), Config(), results=tmp_path, log=lines.append)
        assert count.calls == 1 and again.finished == first.finished and again.result == first.result
        assert len(lines) == 1 and "--force" in lines[0]

    def test_another_config_runs(self, tmp_path):
        count = Counter()
        for config in (Config(), Config(seeds=5)):
            run_experiment(experiment(count), config, results=tmp_path, log=list().append)
        assert count.calls == 2

    def test_force_starts_anew_without_the_old_checkpoints(self, tmp_path):
        count = Counter()
        run_experiment(experiment(count), Config(), results=tmp_path, log=list().append)
        record = run_experiment(experiment(count), Config(), results=tmp_path, force=True, log=list().append)
        assert count.calls == 2 and record.sessions == 1
        assert [path.name for path in (record.folder / "checkpoints").iterdir()] == ["call2"]
        assert calls_of(record.folder) == [2]


class TestUnfinished:
    def test_interrupt_is_passed_on_and_resumed(self, tmp_path):
        count, lines = Counter(KeyboardInterrupt()), []
        with pytest.raises(KeyboardInterrupt):
            run_experiment(experiment(count), Config(), results=tmp_path, log=lines.append)
        folder = result_folder(experiment(count), Config(), tmp_path)
        assert load_record(folder).status == "interrupted"
        assert len(lines) == 1 and "resumes it" in lines[0] and str(folder) in lines[0]

        record = run_experiment(experiment(count), Config(), results=tmp_path, log=lines.append)
        assert record.status == "finished" and record.sessions == 2 and len(lines) == 2
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["call1", "call2"]
        assert calls_of(folder) == [1, 2]

    def test_failure_is_recorded_with_its_message(self, tmp_path):
        count = Counter(KansciError("the loss is not finite"))
        with pytest.raises(KansciError, match="not finite"):
            run_experiment(experiment(count), Config(), results=tmp_path, log=list().append)
        record = load_record(result_folder(experiment(count), Config(), tmp_path))
        assert record.status == "failed" and "the loss is not finite" in record.message
        assert run_experiment(experiment(count), Config(), results=tmp_path, log=list().append).status == "finished"

    def test_failure_to_save_the_failure_does_not_hide_it(self, tmp_path):
        lines = []

        def run(config, context):
            (context.folder / "record.json").unlink()
            (context.folder / "record.json").mkdir()
            raise KansciError("the first error")

        with pytest.raises(KansciError, match="the first error"):
            run_experiment(experiment(run), Config(), results=tmp_path, log=lines.append)
        assert len(lines) == 1 and "could not be saved" in lines[0]

    def test_killed_run_resumes(self, tmp_path):
        """A process that dies without a word leaves status "running" and its lock file, and neither stops the next."""
        script = (
            "import os, sys\n"
            "sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
            "import test_runner\n"
            "from kansciml.runs.runner import run_experiment\n"
            "run = test_runner.experiment(lambda config, context: os._exit(9))\n"
            "run_experiment(run, test_runner.Config(), results=sys.argv[2])\n"
        )
        command = [sys.executable, "-c", script, __file__, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 9, done.stderr
        folder = result_folder(experiment(Counter()), Config(), tmp_path)
        assert load_record(folder).status == "running" and (folder / ".lock").exists()

        lines = []
        record = run_experiment(experiment(Counter()), Config(), results=tmp_path, log=lines.append)
        assert record.status == "finished" and "was killed" in lines[0]


class TestRefused:
    def test_two_runs_of_one_folder(self, tmp_path):
        inner = Counter()

        def run(config, context):
            with pytest.raises(KansciError, match=rf"in use by another process \(pid {os.getpid()}\)"):
                run_experiment(experiment(inner), Config(), results=tmp_path, log=list().append)
            return Result({"calls": 1})

        assert run_experiment(experiment(run), Config(), results=tmp_path, log=list().append).status == "finished"
        assert inner.calls == 0

    def test_config_of_another_experiment(self, tmp_path):
        with pytest.raises(UsageError, match="got a Solver for demo: expected its Config"):
            run_experiment(experiment(Counter()), Solver(), results=tmp_path)

    def test_results_inside_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        count = Counter()
        with pytest.raises(KansciError, match=r"cannot write .*file.*choose another results folder") as caught:
            run_experiment(experiment(count), Config(), results=tmp_path / "file", log=list().append)
        assert count.calls == 0 and "\n" not in str(caught.value)

    def test_unknown_preset_lists_those_there_are(self):
        with pytest.raises(UsageError, match=r"'huge'.*smoke, paper"):
            experiment(Counter()).preset("huge")

    def test_arrays_of_objects(self, tmp_path):
        def run(config, context):
            return Result({}, {"names": np.array([{}], dtype=object)})

        with pytest.raises(KansciError, match="'names' holds Python objects"):
            run_experiment(experiment(run), Config(), results=tmp_path, log=list().append)


def test_tables_of_a_single_table_is_a_list(tmp_path):
    demo = experiment(Counter())
    record = run_experiment(demo, Config(), results=tmp_path, log=list().append)
    assert [table.title for table in demo.tables(record)] == ["demo"]
    assert [
        table.title
        for table in replace(demo, summary=lambda _: [Table("a", [], []), Table("b", [], [])]).tables(record)
    ] == [
        "a",
        "b",
    ]


def test_first_seed_moves_the_seeds_and_counts_only_where_it_is_set():
    plain, shifted = changed(Fig2Config(), seeds=3), changed(Fig2Config(), seeds=3, first_seed=4)
    assert list(seed_range(shifted)) == [4, 5, 6]
    # as before there were such settings
    first = "systems unseen hidden grid spline_order seeds backend gradient sensealg rtol atol ladder training"
    older = {item.name: value for item, _, value in flat_items(plain) if item.name in first.split()}
    older = dataclasses.make_dataclass("Older", list(older), frozen=True)(**older)
    assert config_hash("fig2", plain) == config_hash("fig2", older) != config_hash("fig2", shifted)
    with pytest.raises(UsageError, match="got first_seed -1"):
        seed_range(changed(Fig2Config(), first_seed=-1))


def test_jobs_of_shared_out_seeds_are_those_of_the_whole():
    whole = fig2.plan(changed(Fig2Config(), seeds=3, systems=("lotka",))).jobs
    parts = [fig2.plan(changed(Fig2Config(), seeds=1, first_seed=k, systems=("lotka",))).jobs for k in range(3)]
    assert {job.id for job in whole} == {job.id for part in parts for job in part}
