"""The process of one task of a sweep: ``python -m kansciml.sweep.child``, started by `_sweep_process`.

It reads the task, one line of JSON, from standard input and writes its outcome, one JSON object, to what was standard
output; all it prints goes to standard error. It ends as after Ctrl-C when standard input is closed: whoever started it
is gone then, and its task may be started again elsewhere.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError
from kansciml.runs.config_json import config_from_json
from kansciml.runs.progress import Progress
from kansciml.runs.registry import get_experiment
from kansciml.runs.runner import result_folder, run_experiment
from kansciml.runs.settings import config_hash
from kansciml.sweep.files import is_done, wait_for_folder

GRACE_S = 20.0
"""How long a task may take to save its state before the process ends all the same."""


def run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Run, resume or find finished what `task` asks for; see `_sweep_process.task_json` for its content.

    Returns:
        ``state`` (done, failed or interrupted), ``error`` in one line, ``final`` (whether repeating it is no use),
        ``wall_s`` and ``sessions`` of the record.
    """
    try:
        experiment = get_experiment(task["experiment"], task["package"])
        config = config_from_json(experiment.config, task["config"])
        if config_hash(experiment.name, config) != task["id"]:
            raise UsageError(
                "the files that its settings name, or the version of kansciml, differ here from where the sweep was "
                "started: put them on a disk that all machines see, and install one version"
            )
        folder = result_folder(experiment, config, task["results"])
        wait_for_folder(folder, task["patience_s"])
        found = is_done(folder)
        record = run_experiment(experiment, config, results=task["results"], log=_log, progress=_quiet())
    except KeyboardInterrupt:
        return {"state": "interrupted", "error": "it was asked to end", "final": False}
    except Exception as error:
        if not isinstance(error, KansciError):
            traceback.print_exc()
        line = str(error) if isinstance(error, KansciError) else f"{type(error).__name__}: {error}"
        return {"state": "failed", "error": " ".join(line.split()), "final": isinstance(error, UsageError)}
    return {"state": "done", "error": "", "wall_s": record.wall_s, "sessions": record.sessions, "found": found}


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet() -> Progress:
    return Progress(io.StringIO(), live=False, interval_s=math.inf)


def _stop(number: int = 0, frame: object = None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one would tear the saving of the state
    raise KeyboardInterrupt


def _follow_parent(lines: Any) -> None:
    """End this process when its standard input does."""
    while lines.readline():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _stop)
    try:
        text = sys.stdin.readline()
        threading.Thread(target=_follow_parent, args=(sys.stdin,), daemon=True).start()
        task = json.loads(text)
        task["results"] = Path(task["results"])
        outcome = run_task(task)
    except KeyboardInterrupt:
        outcome = {"state": "interrupted", "error": "it was asked to end", "final": False}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    runs = sys.modules.get("kansciml.experiments.ode.runs")  # loads torch, which not every experiment needs
    if runs is not None:
        runs.close_backends()
    answer.write(json.dumps(outcome))
    answer.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not sys.exit: the thread that reads standard input would be waited for


if __name__ == "__main__":
    main()
