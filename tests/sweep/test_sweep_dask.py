"""Sweeps on a real Dask cluster, a scheduler and two workers as processes on loopback: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.sweep_samples import ALL, FOLDER, Sweep, alive, meanwhile, stopped_sweep, wait_for

from kansciml import KansciError, UsageError
from kansciml.runs.records import load_record
from kansciml.sweep import session

pytestmark = pytest.mark.dask


class Cluster:
    """A scheduler and workers without nannies, each with one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, []
        self.environment = {**os.environ, "PYTHONPATH": FOLDER, "OMP_NUM_THREADS": "1"}
        folder.mkdir(exist_ok=True)
        place = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place))
        wait_for(lambda: place.exists() or self.scheduler.poll() is not None)
        self.address = json.loads(place.read_text())["address"]

    def add_worker(self) -> None:
        own = ("--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder))
        self.workers.append(self.start("worker", self.address, "--host", "127.0.0.1", *own))

    def start(self, what: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"]
        with open(self.folder / f"{what}.log", "ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)

    def kill_worker_of(self, task: int) -> None:
        """SIGKILL the worker that started the process of a task."""
        parent = psutil.Process(task).ppid()
        next(worker for worker in self.workers if worker.pid == parent).kill()

    def kill_workers(self) -> None:
        for process in self.workers:
            process.kill()
            process.wait()
        self.workers.clear()

    def close(self) -> None:
        self.kill_workers()
        self.scheduler.kill()
        self.scheduler.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("dask"))
    yield made
    made.close()


@pytest.fixture
def cluster(scheduler):
    """Two workers: those of the test before, and new ones for what it killed."""
    scheduler.workers = [worker for worker in scheduler.workers if worker.poll() is None]
    while len(scheduler.workers) < 2:
        scheduler.add_worker()
    return scheduler


@pytest.mark.slow
class TestOnWorkers:
    def test_every_task_ends_exactly_once_and_that_of_a_killed_worker_resumes(self, tmp_path, cluster):
        sweep = Sweep(tmp_path, "grid=3,7", steps=4, step_s=0.3)

        def kill() -> None:
            sweep.await_events("kept", 1)
            cluster.kill_worker_of(sweep.pids("kept")[0])

        with meanwhile(kill):
            state = sweep.run(scheduler=cluster.address)
        assert not state.failed and state.count("done") == 4, sweep.lines
        assert sweep.tasks_logged("end") == ALL
        assert len(sweep.logged("begin")) == 5 and sweep.resumed() == 1
        assert sorted(task.sessions for task in state.tasks.values()) == [1, 1, 1, 2]
        assert not alive(sweep.pids("begin"))
        ends = sweep.events.read_bytes()
        assert sweep.run(scheduler=cluster.address).count("done") == 4 and sweep.events.read_bytes() == ends

    def test_ctrl_c_ends_the_tasks_on_the_workers_and_the_same_command_resumes(self, tmp_path, cluster):
        sweep, code, error = stopped_sweep(tmp_path, signal.SIGINT, cluster.address)
        assert code == 130 and "the same command resumes it" in error, error
        assert not alive(sweep.pids("begin"))
        document = sweep.document()
        assert document["status"] == "interrupted"
        assert sorted(one["attempts"] for one in document["tasks"]) == [0, 0, 1, 1]  # two waited for a worker
        sweep.run(scheduler=cluster.address)
        assert sweep.tasks_logged("end") == ALL and sweep.resumed() == 2

    def test_a_command_that_is_killed_leaves_no_task_on_the_workers(self, tmp_path, cluster):
        sweep, _, _ = stopped_sweep(tmp_path, signal.SIGKILL, cluster.address)
        wait_for(lambda: not alive(sweep.pids("begin")))
        assert sweep.logged("end") == []

    def test_a_worker_that_does_not_see_the_results_ends_the_sweep_with_one_line(self, tmp_path, cluster, monkeypatch):
        monkeypatch.setattr(session, "write_text", lambda path, text: path)  # as on a disk of this machine's own
        sweep = Sweep(tmp_path, "grid=3,7")
        with pytest.raises(KansciError, match="does not see the results folder .*: put it on a disk") as caught:
            sweep.run(scheduler=cluster.address)
        assert "\n" not in str(caught.value) and sweep.logged("begin") == []
        assert sweep.document()["status"] == "interrupted"

    def test_a_lost_scheduler_is_one_line_and_the_sweep_can_go_on_here(self, tmp_path, monkeypatch):
        monkeypatch.setattr(session, "CONNECT_S", 5.0)  # Dask tries that long to reconnect
        sweep, own = Sweep(tmp_path, seeds="1", steps=20, step_s=0.5), Cluster(tmp_path / "dask")
        own.add_worker()

        def kill() -> None:
            sweep.await_events("kept", 1)
            own.scheduler.kill()

        try:
            with meanwhile(kill), pytest.raises(KansciError, match="the same command resumes the sweep"):
                sweep.run(scheduler=own.address)
        finally:
            own.close()
        wait_for(lambda: not alive(sweep.pids("begin")))
        assert load_record(sweep.results / "counted" / sweep.plan.tasks[0].id).status == "interrupted"
        Sweep(tmp_path, seeds="1", steps=20).run()
        assert sweep.tasks_logged("end") == ["grid=5 seed=0"] and sweep.resumed() == 1


class TestRefused:
    def test_no_scheduler_is_one_line_within_the_time_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(session, "CONNECT_S", 1.0)
        sweep, began = Sweep(tmp_path), time.monotonic()
        with pytest.raises(KansciError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 within 1 s") as caught:
            sweep.run(scheduler="tcp://127.0.0.1:1")
        assert time.monotonic() - began < 15 and "\n" not in str(caught.value)

    @pytest.mark.parametrize("address", ["dask", "localhost:8786", "http://localhost"])
    def test_what_is_no_address(self, tmp_path, address):
        with pytest.raises(UsageError, match="expected local, or an address such as tcp://host:8786"):
            Sweep(tmp_path).run(scheduler=address)
