"""Sweeps on the local pool: nothing lost, nothing run twice, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from support.sweep_samples import FOLDER, Sweep, alive, meanwhile, pids

from kansciml.runs.records import load_record
from kansciml.runs.runner import run_experiment
from kansciml.sweep import process as sweep_process
from kansciml.sweep.process import task_json


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The tiny experiments can be imported in the processes of tasks."""
    monkeypatch.setenv("PYTHONPATH", FOLDER)


ALL = ["grid=3 seed=0", "grid=3 seed=1", "grid=7 seed=0", "grid=7 seed=1"]


class TestFinished:
    def test_every_task_runs_once_in_a_process_of_its_own_and_never_again(self, tmp_path):
        sweep = Sweep(tmp_path, "grid=3,7")
        state = sweep.run()
        assert sweep.tasks_logged("begin") == sweep.tasks_logged("end") == ALL
        assert len({*pids(sweep.logged("begin")), os.getpid()}) == 5
        assert all("threads=1" in line for line in sweep.logged("begin"))
        assert not state.failed and state.count("done") == 4
        for task in sweep.plan.tasks:
            direct = run_experiment(sweep.experiment, task.config, results=sweep.results, log=sweep.lines.append)
            assert direct.folder == sweep.results / "counted" / task.id and direct.seeds == (task.seed,)
        document = sweep.document()
        assert document["status"] == "finished" and document["swept"] == {"grid": [3, 7]}
        assert [(one["state"], one["attempts"], one["error"]) for one in document["tasks"]] == [("done", 1, "")] * 4
        again = sweep.run()
        assert sweep.tasks_logged("begin") == ALL and again.count("done") == 4
        assert [one["attempts"] for one in sweep.document()["tasks"]] == [1] * 4
        assert not list(sweep.folder.glob("probe-*"))

    def test_a_larger_sweep_runs_only_what_is_new(self, tmp_path):
        Sweep(tmp_path, "grid=3").run()
        sweep = Sweep(tmp_path, "grid=3,7")
        sweep.run()
        assert sweep.tasks_logged("begin") == ALL
        assert sweep.lines == ["2 of 4 tasks are finished already"]

    def test_numbers_are_those_of_a_run_in_this_process(self, tmp_path):
        sweep = Sweep(tmp_path, "grid=3", seeds="1", steps=4)
        sweep.run()
        (task,) = sweep.plan.tasks
        swept = load_record(sweep.results / "counted" / task.id)
        direct = run_experiment(sweep.experiment, task.config, results=tmp_path / "direct", log=sweep.lines.append)
        assert swept.result == direct.result and swept.config == direct.config


class TestFailed:
    def test_a_task_is_retried_and_then_reported_while_the_others_finish(self, tmp_path):
        sweep = Sweep(tmp_path, "grid=3,7", fail_grid=7, seeds="1")
        state = sweep.run(retries=1)
        assert sweep.tasks_logged("end") == ["grid=3 seed=0"]
        assert sweep.tasks_logged("begin") == ["grid=3 seed=0", "grid=7 seed=0", "grid=7 seed=0"]
        (failed,) = state.failed
        assert failed.error == "grid 7 failed for a reason of two lines" and failed.attempts == 2
        assert sweep.document()["status"] == "failed"
        assert sweep.lines == [
            "counted grid=7, seed 0: attempt 1 failed, next in 0.05 s: grid 7 failed for a reason of two lines",
            "counted grid=7, seed 0: failed: grid 7 failed for a reason of two lines",
        ]
        sweep.run(retries=0)  # the same command tries it again, and counts on
        assert sweep.tasks_logged("begin").count("grid=7 seed=0") == 3
        assert [one["attempts"] for one in sweep.document()["tasks"]] == [1, 3]

    def test_a_second_attempt_that_succeeds_is_enough(self, tmp_path):
        sweep = Sweep(tmp_path, flaky=True, seeds="1")
        assert not sweep.run().failed
        assert sweep.tasks_logged("end") == ["grid=5 seed=0"] and len(sweep.logged("begin")) == 2

    def test_a_request_that_can_never_succeed_is_not_repeated(self, tmp_path, monkeypatch):
        """As where data were edited on the way: its hash is not that of the task."""
        sweep = Sweep(tmp_path, seeds="1")
        monkeypatch.setattr(sweep_process, "task_json", lambda **task: task_json(**{**task, "id": "0" * 12}))
        monkeypatch.setattr("kansciml.sweep.session.task_json", sweep_process.task_json)
        (failed,) = sweep.run().failed
        assert failed.attempts == 1 and "put them on a disk that all machines see" in failed.error
        assert sweep.logged("begin") == []

    def test_what_the_task_printed_is_kept(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", "")  # the experiment cannot be found in the task's process
        sweep = Sweep(tmp_path, seeds="1")
        (failed,) = sweep.run(retries=0).failed
        assert failed.error == "ModuleNotFoundError: No module named 'support'"
        assert "Traceback" in (sweep.folder / "logs" / f"{failed.id}.log").read_text()


@pytest.mark.slow
class TestKilled:
    def test_a_killed_process_is_noticed_and_its_task_resumed(self, tmp_path):
        sweep = Sweep(tmp_path, "grid=3,7", seeds="1", steps=12, step_s=0.1)

        def kill() -> None:
            sweep.await_events("kept", 1)
            os.kill(pids(sweep.logged("kept"))[0], signal.SIGKILL)

        with meanwhile(kill):
            state = sweep.run()
        assert not state.failed and sweep.tasks_logged("end") == ["grid=3 seed=0", "grid=7 seed=0"]
        assert len(sweep.logged("begin")) == 3
        assert sum(bool(re.search(r"at=[1-9]", line)) for line in sweep.logged("begin")) == 1
        assert len(sweep.lines) == 1 and "its process ended (SIGKILL" in sweep.lines[0]
        assert sorted(task.sessions for task in state.tasks.values()) == [1, 2]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_ending_the_command_ends_its_tasks_and_the_same_command_resumes(self, tmp_path, number):
        sweep = Sweep(tmp_path, "grid=3,7", seeds="1", steps=50, step_s=0.1)
        script = (
            "import sys\nfrom pathlib import Path\nfrom support import sweep_samples\nfrom kansciml.cli import main\n"
            "import kansciml.cli as cli\n"
            "sweep = sweep_samples.Sweep(Path(sys.argv[1]), 'grid=3,7', seeds='1', steps=50, step_s=0.1)\n"
            "cli.run = lambda arguments, out: sweep.run(log=out.log) and 0\n"
            "sys.exit(main(['sweep']))\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            sweep.await_events("begin", 2)
            process.send_signal(number)
            _, error = process.communicate(timeout=60)
        code = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        assert process.returncode == code, error
        deadline = time.monotonic() + 20
        while any(map(alive, pids(sweep.logged("begin")))):
            assert time.monotonic() < deadline, "a task outlived its sweep"
            time.sleep(0.05)
        assert sweep.logged("end") == []
        records = [load_record(sweep.results / "counted" / task.id) for task in sweep.plan.tasks]
        assert [record.status for record in records] == ["interrupted"] * 2
        if number != signal.SIGKILL:
            assert "sweep: stopping with 0 of 2 tasks done; the same command resumes it" in error
            assert sweep.document()["status"] == "interrupted"
        sweep.run()
        assert sweep.tasks_logged("end") == ["grid=3 seed=0", "grid=7 seed=0"] and len(sweep.logged("begin")) == 4
