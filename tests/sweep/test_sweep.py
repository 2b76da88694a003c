"""Sweeps on this machine: nothing lost, nothing run twice, whoever is killed, and nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
from support.sweep_samples import ALL, Sweep, alive, meanwhile, stopped_sweep, wait_for

from kansciml import KansciError
from kansciml._files import write_json
from kansciml.runs.records import load_record
from kansciml.runs.runner import folder_lock, run_experiment
from kansciml.sweep.session import open_client
from kansciml.sweep.task import wait_for_folder

pytestmark = pytest.mark.dask


class TestFinished:
    def test_every_task_runs_once_in_a_process_of_its_own_and_never_again(self, tmp_path):
        sweep = Sweep(tmp_path, "grid=3,7")
        state = sweep.run()
        assert sweep.tasks_logged("begin") == sweep.tasks_logged("end") == ALL
        assert len({*sweep.pids("begin"), os.getpid()}) == 5
        assert all("threads=1" in line for line in sweep.logged("begin"))
        assert not state.failed and state.count("done") == 4
        document = sweep.document()
        assert document["status"] == "finished" and document["swept"] == {"grid": [3, 7]}
        assert [(one["state"], one["attempts"], one["error"]) for one in document["tasks"]] == [("done", 1, "")] * 4
        for task in sweep.plan.tasks:  # its record is that of `kansciml run`, with the same numbers
            direct = run_experiment(sweep.experiment, task.config, results=sweep.results, log=sweep.lines.append)
            assert direct.folder == sweep.results / "counted" / task.id and direct.seeds == (task.seed,)
            other = run_experiment(sweep.experiment, task.config, results=tmp_path / "other", log=sweep.lines.append)
            assert direct.result == other.result and direct.config == other.config
        assert len(sweep.logged("begin")) == 8
        again = sweep.run()
        assert len(sweep.logged("begin")) == 8 and again.count("done") == 4
        assert [one["attempts"] for one in sweep.document()["tasks"]] == [1] * 4
        assert not list(sweep.folder.glob("probe-*"))

    def test_a_larger_sweep_runs_only_what_is_new(self, tmp_path):
        Sweep(tmp_path, "grid=3").run()
        sweep = Sweep(tmp_path, "grid=3,7")
        sweep.run()
        assert sweep.tasks_logged("begin") == ALL
        assert sweep.lines == ["2 of 4 tasks are finished already"]


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
        assert [one["attempts"] for one in sweep.document()["tasks"]] == [1, 3]

    def test_a_second_attempt_that_succeeds_is_enough(self, tmp_path):
        sweep = Sweep(tmp_path, flaky=True, seeds="1")
        assert not sweep.run().failed
        assert sweep.tasks_logged("end") == ["grid=5 seed=0"] and len(sweep.logged("begin")) == 2

    def test_a_request_that_can_never_succeed_is_not_repeated(self, tmp_path):
        """As where data were edited on the way: its hash is not that of the task."""
        sweep = Sweep(tmp_path, seeds="1")
        sweep.plan.tasks[:] = [replace(task, id="0" * 12) for task in sweep.plan.tasks]
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
        sweep = Sweep(tmp_path, seeds="1", steps=4, step_s=0.5)

        def kill() -> None:
            sweep.await_events("kept", 1)
            os.kill(sweep.pids("kept")[0], signal.SIGKILL)

        with meanwhile(kill):
            state = sweep.run()
        assert not state.failed and sweep.tasks_logged("end") == ["grid=5 seed=0"]
        assert len(sweep.logged("begin")) == 2 and sweep.resumed() == 1
        assert len(sweep.lines) == 1 and "its process ended (SIGKILL" in sweep.lines[0]
        (task,) = state.tasks.values()
        assert (task.sessions, task.attempts) == (2, 2)

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
    )
    def test_ending_the_command_ends_its_tasks_and_the_same_command_resumes(self, tmp_path, number, code):
        sweep, ended, error = stopped_sweep(tmp_path, number)
        assert ended == code and sweep.logged("end") == [], error
        wait_for(lambda: not alive(sweep.pids("begin")), 20)
        records = [load_record(folder) for folder in (sweep.results / "counted").iterdir()]
        assert [record.status for record in records] == ["interrupted"] * 2
        if number != signal.SIGKILL:
            assert "sweep: stopping with 0 of 4 tasks done; the same command resumes it" in error
            document = sweep.document()
            assert document["status"] == "interrupted"
            assert sorted(one["attempts"] for one in document["tasks"]) == [0, 0, 1, 1]  # two waited for a worker
        sweep.run()
        assert sweep.tasks_logged("end") == ALL and len(sweep.logged("begin")) == 6 and sweep.resumed() == 2


class TestLocks:
    def test_one_command_per_sweep(self, tmp_path):
        sweep = Sweep(tmp_path)
        sweep.folder.mkdir(parents=True)
        with folder_lock(sweep.folder), pytest.raises(KansciError, match="is in use by another process"):
            sweep.run()

    def test_a_folder_that_shows_no_life_is_given_up_with_a_remedy(self, tmp_path):
        """As a file server leaves it that keeps the lock of a machine which is gone."""
        began = time.monotonic()
        with folder_lock(tmp_path), pytest.raises(KansciError, match=r"nothing for 0 s.*remove .*\.lock") as caught:
            wait_for_folder(tmp_path, patience_s=0.2)
        assert time.monotonic() - began < 10 and "\n" not in str(caught.value)

    def test_a_task_waits_for_whoever_holds_its_folder_and_takes_the_result(self, tmp_path):
        sweep = Sweep(tmp_path, seeds="1")
        (task,) = sweep.plan.tasks
        folder = sweep.results / "counted" / task.id
        other = run_experiment(sweep.experiment, task.config, results=tmp_path / "other", log=sweep.lines.append)
        sweep.events.unlink()

        def finish() -> None:
            folder.mkdir(parents=True)
            with folder_lock(folder):
                ready.set()
                for number in range(4):  # signs of life, further apart than half the patience
                    time.sleep(0.6)
                    (folder / "metrics.jsonl").write_text(str(number))
                write_json(folder / "record.json", json.loads((other.folder / "record.json").read_text()))
                (folder / "arrays.npz").write_bytes((other.folder / "arrays.npz").read_bytes())

        ready = threading.Event()
        with meanwhile(finish):
            assert ready.wait(10)
            state = sweep.run(patience_s=1.0)
        assert not state.failed and sweep.logged("begin") == []


def test_dask_listens_to_this_machine_alone():
    """Who could hand a task to a scheduler could run any code."""
    before = psutil.Process().net_connections()
    with open_client("local", 1):
        opened = [one for one in psutil.Process().net_connections() if one not in before]
        assert {one.laddr.ip for one in opened} <= {"127.0.0.1"}


def test_sweeps_do_not_load_dask_before_it_is_needed():
    code = "import kansciml.sweep.session, sys\nprint('distributed' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
