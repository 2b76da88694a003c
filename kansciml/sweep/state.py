"""The state of a sweep, kept in ``results/sweeps/<id>/sweep.json``, a file that is whole at every moment."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kansciml._files import write_json
from kansciml.runs import provenance
from kansciml.sweep.plan import SweepPlan

SCHEMA = 1
_WRITE_EVERY_S = 1.0


@dataclass
class TaskState:
    """How far one task is.

    Args:
        id: of the task, and name of its folder. setting: of the plan's settings, by index. seed: None if it has none.
        folder: of its record, relative to the results folder.
        state: pending, running, done or failed. A pending one may have failed before.
        attempts: how often it was started by this sweep, over all its sessions; 0 for one found finished.
        error: of the last attempt, in one line; empty if it ended well.
        wall_s, sessions: of its record; None until it is done.
    """

    id: str
    setting: int
    seed: int | None
    folder: str
    state: str = "pending"
    attempts: int = 0
    error: str = ""
    wall_s: float | None = None
    sessions: int | None = None

    def done(self, wall_s: float | None, sessions: int | None) -> None:
        """Note that there is a finished record."""
        self.state, self.error, self.wall_s, self.sessions = "done", "", wall_s, sessions


class SweepState:
    """The states of all tasks of a plan, and the file that holds them. Attempts of earlier sessions count on.

    Args:
        plan: the sweep. results: folder of all results. preset: name of the preset it started from, for the reader.
    """

    def __init__(self, plan: SweepPlan, results: Path, preset: str | None) -> None:
        self.plan, self.preset = plan, preset
        self.path = plan.folder(results) / "sweep.json"
        self.commit = provenance.package_commit()
        self.finished: str | None = None
        earlier = _read(self.path)
        self.started = earlier["started"] if earlier else _now()
        self.sessions = earlier["sessions"] + 1 if earlier else 1
        before = {task["id"]: task for task in earlier["tasks"]} if earlier else {}
        self.tasks: dict[str, TaskState] = {}
        for task in plan.tasks:
            own = TaskState(task.id, task.setting_index, task.seed, f"{plan.experiment.name}/{task.id}")
            if task.id in before:
                own.attempts, own.error = before[task.id]["attempts"], before[task.id]["error"]
            if (record := plan.finished(task, results)) is not None:
                own.done(record.wall_s, record.sessions)
            self.tasks[task.id] = own
        self._written = -math.inf

    def count(self, state: str) -> int:
        """How many tasks are in that state."""
        return sum(task.state == state for task in self.tasks.values())

    @property
    def failed(self) -> list[TaskState]:
        """Tasks that failed for good."""
        return [task for task in self.tasks.values() if task.state == "failed"]

    def to_json(self, status: str) -> dict[str, Any]:
        """The content of the file; `status` is running, finished, failed or interrupted."""
        return {
            "schema": SCHEMA,
            "id": self.plan.id,
            "experiment": self.plan.experiment.name,
            "preset": self.preset,
            "status": status,
            "swept": self.plan.swept,
            "seeds": self.plan.seeds,
            "settings": self.plan.settings,
            "tasks": [asdict(task) for task in self.tasks.values()],
            "started": self.started,
            "finished": self.finished,
            "sessions": self.sessions,
            "versions": provenance.package_versions(),
            "commit": self.commit,
        }

    def save(self, status: str = "running", now: bool = True) -> None:
        """Write the file; with `now` false at most once a second."""
        if now or time.monotonic() - self._written >= _WRITE_EVERY_S:
            if status != "running":
                self.finished = _now()
            write_json(self.path, self.to_json(status))
            self._written = time.monotonic()


def _read(path: Path) -> dict[str, Any] | None:
    """The file as an earlier session left it; None if there is none that can be read: then only attempts are lost."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = [(task["id"], task["error"], task["attempts"] + 0) for task in content["tasks"]]
        whole = all(isinstance(text, str) for id, error, _ in kept for text in (id, error, content["started"]))
        return content if whole and content["schema"] == SCHEMA and content["sessions"] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
