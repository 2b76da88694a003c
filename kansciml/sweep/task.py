"""Runs one task of a sweep: `execute` in a thread of a Dask worker starts `run_task` in a process of its own."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError, WorkerDied
from kansciml._files import make_folder
from kansciml._workers import ONE_THREAD, WORKERS_VARIABLE, call_in_process
from kansciml.runs.config_json import config_from_json
from kansciml.runs.progress import Progress
from kansciml.runs.records import load_record
from kansciml.runs.registry import get_experiment
from kansciml.runs.runner import FolderInUse, folder_lock, result_folder, run_experiment
from kansciml.runs.settings import config_hash

PATIENCE_S = 120.0
"""How long a task waits for another process in its folder that shows no sign of life."""
_POLL_S = 0.5


@dataclass(frozen=True)
class Request:
    """What a worker needs to know of a task.

    Args:
        session: of the command: the topic under which the worker tells when the task is at work.
        experiment, package, id, config: what to run, and the hash that it must have.
        results, sweep: absolute paths of the results folder and of the sweep's own there.
        folder: where the command was started; relative paths of the configuration start there.
        patience_s: see `wait_for_folder`.
    """

    session: str
    experiment: str
    package: str
    id: str
    config: Mapping[str, Any]
    results: str
    sweep: str
    folder: str
    patience_s: float = PATIENCE_S

    @property
    def probe(self) -> Path:
        """File that the command wrote: a worker that sees it works on the same disk."""
        return Path(self.sweep, f"probe-{self.session}")

    @property
    def log(self) -> Path:
        """File that takes what the task's process prints."""
        return Path(self.sweep, "logs", f"{self.id}.log")


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Args:
        state: done, failed or interrupted. error: why, in one line.
        final: whether repeating the task is no use.
        wall_s, sessions: of the record.
    """

    state: str
    error: str = ""
    final: bool = False
    wall_s: float | None = None
    sessions: int | None = None


def execute(request: Request) -> Outcome:
    """Run a task in a process of its own, and wait for it; end the process if Dask has cancelled the task.

    Raises:
        KansciError: this worker does not see the results folder of the command.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    if not request.probe.exists():
        raise KansciError(
            f"the worker {worker.address} does not see the results folder {request.results}: "
            "put it on a disk that all workers share (--results)"
        )

    def cancelled() -> bool:
        """Also where the client has gone without a word."""
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    # Tasks share the processors, so that none may take all of them
    environment = {**ONE_THREAD, WORKERS_VARIABLE: "1", **os.environ}
    folder = request.folder if os.path.isdir(request.folder) else None
    worker.log_event(request.session, {"id": request.id, "at_work": True})
    try:
        with open(request.log, "ab+") as log:
            answer = call_in_process(
                run_task, asdict(request), cancelled=cancelled, log=log, environment=environment, folder=folder
            )
        return Outcome(**answer)
    except (WorkerDied, OSError) as error:
        return Outcome("failed", " ".join(str(error).split()))
    finally:
        worker.log_event(request.session, {"id": request.id, "at_work": False})


def run_task(values: Mapping[str, Any]) -> dict[str, Any]:
    """Run, resume or find finished what a `Request` asks for; its fields are `values`, those of an `Outcome` returned.

    Whatever it prints, and the traceback of an error of the program, goes to standard error.
    """
    request = Request(**values)
    try:
        experiment = get_experiment(request.experiment, request.package)
        config: Any = config_from_json(experiment.config, request.config)
        if config_hash(experiment.name, config) != request.id:
            raise UsageError(
                "the files that its settings name, or the version of kansciml, differ here from where the sweep was "
                "started: put them on a disk that all machines see, and install one version"
            )
        wait_for_folder(result_folder(experiment, config, request.results), request.patience_s)
        quiet = Progress(io.StringIO(), live=False, interval_s=math.inf)
        record = run_experiment(
            experiment, config, results=request.results, log=Progress(live=False).log, progress=quiet
        )
        outcome = Outcome("done", wall_s=record.wall_s, sessions=record.sessions)
    except KeyboardInterrupt:
        outcome = Outcome("interrupted", "it was asked to end")
    except KansciError as error:
        outcome = Outcome("failed", " ".join(str(error).split()), isinstance(error, UsageError))
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome("failed", " ".join(f"{type(error).__name__}: {error}".split()))
    return asdict(outcome)


def wait_for_folder(folder: Path, patience_s: float = PATIENCE_S) -> None:
    """Return once nobody holds the lock of `folder`, or the run in it is finished.

    The operating system drops the lock of a process that ended on this machine. A file server may keep that of a
    machine that is gone, so the wait ends once no file of the folder has changed for `patience_s` seconds.

    Raises:
        KansciError: then, with what to do.
    """
    make_folder(folder)
    seen, since = _last_change(folder), time.monotonic()
    while not _is_done(folder):
        try:
            with folder_lock(folder):
                return
        except FolderInUse as error:
            now = _last_change(folder)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > patience_s:
                raise KansciError(
                    f"{error}; it has written nothing for {patience_s:.0f} s: if it ran on a machine that is gone, "
                    f"remove {folder / '.lock'} and repeat the command"
                ) from error
        time.sleep(_POLL_S)


def _is_done(folder: Path) -> bool:
    try:
        return load_record(folder).status == "finished"
    except KansciError:
        return False


def _last_change(folder: Path) -> int:
    times = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed or renamed in this moment
            times.append(path.stat().st_mtime_ns if path.name != ".lock" else 0)
    return max(times)
