"""One task of a sweep as a pure function of JSON: it starts a process, waits for it, and says how it ended.

The local pool calls `execute` from its threads, Dask from those of its workers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from kansciml._errors import KansciError
from kansciml._files import make_folder
from kansciml._workers import end_group, ending
from kansciml.sweep import files
from kansciml.sweep.child import GRACE_S

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "KANSCIML_WORKERS": "1",
}
"""Of a task's process, unless the variable is set: tasks share the processors, so that none may take all of them."""
LOG_TAIL = 4000
_POLL_S = 0.1

_lock = threading.Lock()
_running: dict[int, tuple[str, str, subprocess.Popen]] = {}
_ended: set[str] = set()


def task_json(
    *,
    session: str,
    sweep: str,
    experiment: str,
    package: str,
    id: str,
    config: dict[str, Any],
    results: Path,
    probe: Path,
    token: str,
    log: Path,
    patience_s: float = files.PATIENCE_S,
) -> str:
    """A task for `execute`.

    Args:
        session: of the command that runs the sweep; see `end_tasks`. sweep: its id.
        experiment, package, id, config: what to run, and the hash that it must have.
        results: absolute path of the results folder. probe, token: a file there and its content.
        log: file that takes what the process prints. patience_s: see `_sweep_files.wait_for_folder`.
    """
    content = dict(locals())
    return json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in content.items()})


def execute(text: str) -> dict[str, Any]:
    """Run the task `text` (`task_json`) in a process of its own, and wait for it.

    Where the results folder is not that of the command, it works in `_sweep_files.scratch_folder`, and the files come
    back in ``files``.

    Returns:
        the outcome (`_sweep_child.run_task`), with ``log``, the end of what a failed process printed elsewhere.
    """
    task = json.loads(text)
    shared = files.shares(task["probe"], task["token"])
    try:
        if not shared:
            task["results"] = str(files.scratch_folder(task["sweep"]))
        with _log_file(task, shared) as log:
            outcome = _run(task, log)
            if outcome["state"] != "done":
                log.seek(max(log.seek(0, os.SEEK_END) - LOG_TAIL, 0))
                tail = log.read().decode(errors="replace")
                outcome["error"] = outcome["error"] or _last_line(tail)
                if not shared:
                    outcome["log"] = tail
            elif not shared:
                outcome["files"] = files.packed(Path(task["results"]) / task["experiment"] / task["id"])
        return outcome
    except (KansciError, OSError) as error:
        return {"state": "failed", "error": " ".join(str(error).split()), "final": False}


def end_tasks(session: str, wait_s: float = GRACE_S) -> None:
    """End the tasks of a session that run under this process, after they saved their state; no new ones start."""
    with _lock:
        _ended.add(session)
        mine = [process for owner, _, process in _running.values() if owner == session]
    for process in mine:
        process.terminate()
    deadline = time.monotonic() + wait_s
    for process in mine:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            end_group(process)


def running_tasks(sweep: str) -> int:
    """How many tasks of a sweep run under this process."""
    with _lock:
        return sum(one == sweep for _, one, _ in _running.values())


def _run(task: dict[str, Any], log: IO[bytes]) -> dict[str, Any]:
    session, abandoned = task["session"], _abandoned()
    command = [sys.executable, "-m", "kansciml.sweep.child"]
    environment = {**ENVIRONMENT, **os.environ}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
    with _lock:
        if session in _ended:
            return {"state": "interrupted", "error": "it was not started", "final": False}
        # A session of its own: Ctrl-C in a terminal reaches the command alone, which then ends its tasks once
        process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        _running[process.pid] = session, task["sweep"], process
    asked = False
    try:
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:  # it has ended already: its exit code says why
            pass
        while process.poll() is None:
            if not asked and abandoned():
                asked = True
                process.terminate()
            time.sleep(_POLL_S)
        answer = process.stdout.read()
    finally:
        with _lock:
            _running.pop(process.pid, None)
        if process.poll() is None:
            end_group(process)
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
    try:
        return json.loads(answer)
    except ValueError:
        return {"state": "failed", "error": f"its process ended ({ending(process.returncode)})", "final": False}


def _abandoned() -> Callable[[], bool]:
    """Whether the Dask worker that this is called on has been told to forget the task: its client has gone."""
    distributed = sys.modules.get("distributed")
    try:
        worker = distributed.get_worker()
        key = worker.get_current_task()
    except (AttributeError, ValueError):  # no Dask, or no worker
        return lambda: False

    def check() -> bool:
        state = worker.state.tasks.get(key)
        return state is None or state.state == "cancelled"

    return check


def _log_file(task: dict[str, Any], shared: bool) -> IO[bytes]:
    if not shared:
        return tempfile.TemporaryFile()
    make_folder(Path(task["log"]).parent)
    return open(task["log"], "ab+")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
