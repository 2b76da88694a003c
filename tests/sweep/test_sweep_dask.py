"""Sweeps on a real Dask cluster, a scheduler and two workers as processes on loopback: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.sweep_samples import FOLDER, Sweep, alive, meanwhile, pids

from kansciml._errors import KansciError, UsageError
from kansciml.runs.records import load_record
from kansciml.sweep import dask

ALL = [f"grid={grid} seed={seed}" for grid in (3, 7) for seed in (0, 1)]
try:
    import distributed  # noqa: F401
except ImportError:
    NO_DASK = "SWEEPS ON DASK WERE NOT TESTED: pip install 'kansciml[test]'"
else:
    NO_DASK = ""
needs_dask = pytest.mark.skipif(bool(NO_DASK), reason=NO_DASK)


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The tiny experiments can be imported in the processes of tasks."""
    monkeypatch.setenv("PYTHONPATH", FOLDER)


class Cluster:
    """A scheduler and workers without nannies, each with one thread."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workers = folder, []
        self.environment = {**os.environ, "PYTHONPATH": FOLDER, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(parents=True)
        place = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place))
        deadline = time.monotonic() + 60
        while not place.exists():
            assert self.scheduler.poll() is None and time.monotonic() < deadline, self.logs()
            time.sleep(0.05)
        self.address = json.loads(place.read_text())["address"]

    def add_worker(self) -> None:
        own = ("--no-nanny", "--nthreads", "1", "--local-directory", str(self.folder))
        self.workers.append(self.start("worker", self.address, "--host", "127.0.0.1", *own))

    def start(self, what: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments, "--no-dashboard"]
        with open(self.folder / f"{what}.log", "ab") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def worker_of(self, task: int) -> subprocess.Popen:
        """The worker that started the process of a task."""
        parent = int(Path(f"/proc/{task}/stat").read_text().rpartition(")")[2].split()[1])
        return next(worker for worker in self.workers if worker.pid == parent)

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
    """Two workers, new for each test: the one before may have killed some."""
    for _ in range(2):
        scheduler.add_worker()
    yield scheduler
    scheduler.kill_workers()


def kill_worker(sweep: Sweep, cluster: Cluster) -> None:
    """SIGKILL the worker of the first task, in the middle of it: it has kept something, and is far from its end."""
    sweep.await_events("kept", 1)
    cluster.worker_of(pids(sweep.logged("kept"))[0]).kill()


@pytest.mark.dask
@needs_dask
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker of a task in /proc")
class TestKilledWorker:
    def test_every_task_ends_exactly_once_and_the_broken_one_resumes(self, tmp_path, cluster):
        sweep = Sweep(tmp_path, "grid=3,7", steps=15, step_s=0.1)
        with meanwhile(lambda: kill_worker(sweep, cluster)):
            state = sweep.run(scheduler=cluster.address)
        assert not state.failed and state.count("done") == 4, sweep.lines
        assert sweep.tasks_logged("end") == ALL
        assert len(sweep.logged("begin")) == 5 and sum("at=0 " not in line for line in sweep.logged("begin")) == 1
        assert sorted(task.sessions for task in state.tasks.values()) == [1, 1, 1, 2]
        assert not any(map(alive, pids(sweep.logged("begin"))))
        ends = sweep.events.read_bytes()
        assert sweep.run(scheduler=cluster.address).count("done") == 4 and sweep.events.read_bytes() == ends

    def test_the_same_without_a_shared_disk(self, tmp_path, cluster, monkeypatch):
        """The probe of the results folder is not seen by the workers, as if they were on other machines."""
        monkeypatch.setattr("kansciml.sweep.session.write_text", lambda path, text: path)
        sweep = Sweep(tmp_path, "grid=3,7", steps=15, step_s=0.1)
        with meanwhile(lambda: kill_worker(sweep, cluster)):
            state = sweep.run(scheduler=cluster.address)
        assert not state.failed and sweep.tasks_logged("end") == ALL
        for task in sweep.plan.tasks:
            record = load_record(sweep.results / "counted" / task.id)
            assert record.status == "finished" and len(record.arrays[f"sum.{task.seed}.values"]) == 15
            assert (record.folder / "checkpoints" / f"{task.seed}.json").exists()
        assert not list((cluster.folder / "tmp").rglob("record.json"))  # the scratch folder was removed


@pytest.mark.dask
@needs_dask
@pytest.mark.slow
class TestEndings:
    def test_failures_are_retried_and_reported(self, tmp_path, cluster):
        sweep = Sweep(tmp_path, "grid=3,7", seeds="1", fail_grid=7)
        state = sweep.run(scheduler=cluster.address, retries=1)
        (failed,) = state.failed
        assert failed.error == "grid 7 failed for a reason of two lines" and failed.attempts == 2
        assert sweep.tasks_logged("end") == ["grid=3 seed=0"]

    def test_ctrl_c_ends_the_tasks_on_the_workers_and_the_same_command_resumes(self, tmp_path, cluster):
        sweep = Sweep(tmp_path, "grid=3,7", steps=40, step_s=0.1)
        script = (
            "import sys\nfrom pathlib import Path\nfrom support import sweep_samples\nfrom kansciml import cli\n"
            "sweep = sweep_samples.Sweep(Path(sys.argv[1]), 'grid=3,7', steps=40, step_s=0.1)\n"
            "cli.run = lambda arguments, out: sweep.run(log=out.log, scheduler=sys.argv[2]) and 0\n"
            "sys.exit(cli.main(['sweep']))\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path), cluster.address]
        environment = {**os.environ, "PYTHONPATH": FOLDER}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            sweep.await_events("kept", 2)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        assert process.returncode == 130 and "the same command resumes it" in error, error
        assert not any(map(alive, pids(sweep.logged("begin"))))
        document = sweep.document()
        assert document["status"] == "interrupted"
        assert sorted(one["attempts"] for one in document["tasks"]) == [0, 0, 1, 1]  # two waited for a worker
        sweep.run(scheduler=cluster.address)
        assert sweep.tasks_logged("end") == ALL
        assert sum(bool(re.search("at=[1-9]", line)) for line in sweep.logged("begin")) == 2

    def test_a_lost_scheduler_is_one_line_and_the_sweep_can_go_on_here(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dask.DaskPool.__init__, "__defaults__", (5.0,))  # Dask tries that long to reconnect
        sweep, own = Sweep(tmp_path, "grid=3,7", seeds="1", steps=20, step_s=0.1), Cluster(tmp_path / "dask")
        own.add_worker()

        def kill() -> None:
            sweep.await_events("begin", 1)
            own.scheduler.kill()

        try:
            with meanwhile(kill), pytest.raises(KansciError, match="the same command resumes the sweep"):
                sweep.run(scheduler=own.address)
        finally:
            own.close()
        sweep.run()
        assert sweep.tasks_logged("end") == ["grid=3 seed=0", "grid=7 seed=0"]


class TestRefused:
    @pytest.mark.dask
    @needs_dask
    def test_no_scheduler_is_one_line_within_the_time_limit(self, tmp_path, monkeypatch):
        monkeypatch.setattr(dask.DaskPool.__init__, "__defaults__", (1.0,))
        sweep, began = Sweep(tmp_path), time.monotonic()
        with pytest.raises(KansciError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 within 1 s") as caught:
            sweep.run(scheduler="tcp://127.0.0.1:1")
        assert time.monotonic() - began < 15 and "\n" not in str(caught.value)

    def test_dask_that_is_not_installed_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(KansciError, match=re.escape("needs Dask: pip install 'kansciml[sweep]'")):
            Sweep(tmp_path).run(scheduler="tcp://127.0.0.1:1")

    @pytest.mark.parametrize("address", ["dask", "localhost:8786", "http://localhost"])
    def test_what_is_no_address(self, tmp_path, address):
        with pytest.raises(UsageError, match="expected local, or an address such as tcp://host:8786"):
            Sweep(tmp_path).run(scheduler=address)


def test_sweeps_do_not_load_dask_before_it_is_asked_for():
    code = "import kansciml.sweep.session, sys\nprint('distributed' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir())
    assert done.stdout.split() == ["False", "False"], done.stderr
