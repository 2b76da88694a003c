"""Folders of a sweep's tasks: waiting for whoever holds one, and bringing files home where no disk is shared."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from support.sweep_samples import FOLDER, PACKAGE, Sweep, meanwhile

from kansciml._errors import KansciError
from kansciml._files import to_jsonable, write_json
from kansciml.runs.lock import folder_lock
from kansciml.runs.records import load_record
from kansciml.runs.runner import run_experiment
from kansciml.sweep import files
from kansciml.sweep.process import execute, task_json

GIVEN_UP = r"written nothing for 1 s.*remove .*\.lock"


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The tiny experiments can be imported in the processes of tasks."""
    monkeypatch.setenv("PYTHONPATH", FOLDER)


class TestLocks:
    def test_one_command_per_sweep(self, tmp_path):
        sweep = Sweep(tmp_path)
        sweep.folder.mkdir(parents=True)
        with folder_lock(sweep.folder), pytest.raises(KansciError, match="is in use by another process"):
            sweep.run()

    def test_a_folder_that_shows_no_life_is_given_up_with_a_remedy(self, tmp_path):
        """As a file server leaves it that keeps the lock of a machine which is gone."""
        began = time.monotonic()
        with (
            folder_lock(tmp_path),
            pytest.raises(KansciError, match=r"written nothing for 1 s.*remove .*\.lock") as caught,
        ):
            files.wait_for_folder(tmp_path, patience_s=1.0)
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


class TestWithoutASharedDisk:
    def task(self, sweep: Sweep, token: str) -> str:
        (task,) = sweep.plan.tasks
        return task_json(
            session="s", sweep=sweep.plan.id, experiment="counted", package=PACKAGE, id=task.id,
            config=to_jsonable(task.config), results=sweep.results, probe=sweep.results / "probe", token=token,
            log=sweep.results / "log",
        )  # fmt: skip

    def test_files_come_back_and_nothing_is_written_elsewhere(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
        (tmp_path / "scratch").mkdir()
        sweep = Sweep(tmp_path, seeds="1")
        outcome = execute(self.task(sweep, "a token that no file holds"))
        assert outcome["state"] == "done" and not sweep.results.exists()
        (task,) = sweep.plan.tasks
        home = sweep.results / "counted" / task.id
        files.unpack(outcome["files"], home)
        record = load_record(home)
        assert record.status == "finished" and sorted(record.arrays) == ["sum.0.values"]
        assert (home / "checkpoints" / "0.json").exists()
        again = execute(self.task(sweep, "a token that no file holds"))  # as after a worker died with the result
        assert again["found"] and len(sweep.logged("begin")) == 1
        files.discard_scratch(sweep.plan.id)
        assert not list((tmp_path / "scratch").rglob("record.json"))

    def test_a_finished_record_is_never_overwritten(self, tmp_path):
        sweep = Sweep(tmp_path, seeds="1")
        sweep.run()
        home = sweep.results / "counted" / sweep.plan.tasks[0].id
        before = (home / "record.json").read_bytes()
        files.unpack({"record.json": b"{}", "arrays.npz": b""}, home)
        assert (home / "record.json").read_bytes() == before and load_record(home).status == "finished"

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "c:evil", "a\\evil"])
    def test_a_path_outside_the_folder_is_refused(self, tmp_path, name):
        with pytest.raises(KansciError, match="expected a path inside"):
            files.unpack({name: b""}, tmp_path / "home")
        assert not (tmp_path / "evil").exists()

    def test_somebody_elses_scratch_folder_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / f"kansciml-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(KansciError, match="belongs to somebody else"):
            files.scratch_folder("x")
