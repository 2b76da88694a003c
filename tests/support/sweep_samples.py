"""A small sweep of `tiny_experiments.counted`, and what its log says happened; for several files of tests."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from kansciml.runs.registry import get_experiment
from kansciml.sweep.plan import make_plan, parse_settings
from kansciml.sweep.session import run_sweep

PACKAGE = "support.tiny_experiments"
FOLDER = str(Path(__file__).parents[1])
"""What processes need on PYTHONPATH to find the package."""


class Sweep:
    """A sweep of the counted experiment in a folder of its own."""

    def __init__(self, folder: Path, *settings: str, seeds: str = "2", **base) -> None:
        self.results, self.events, self.lines = folder / "results", folder / "events", []
        self.experiment = get_experiment("counted", PACKAGE)
        config = self.experiment.config(events=self.events, **base)
        swept = parse_settings(self.experiment.config, settings)
        self.plan = make_plan(self.experiment, config, swept, seeds, PACKAGE)
        self.folder = self.plan.folder(self.results)

    def run(self, **options):
        options = {"workers": 2, "pause_s": 0.05, "patience_s": 5.0, "log": self.lines.append, **options}
        return run_sweep(self.plan, results=self.results, **options)

    def logged(self, what: str) -> list[str]:
        """Lines ``grid=3 seed=0 at=1 pid=2`` of all starts or ends."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(what)]

    def tasks_logged(self, what: str) -> list[str]:
        return sorted(line.partition(" at=")[0] for line in self.logged(what))

    def await_events(self, what: str, number: int, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while len(self.logged(what)) < number:
            assert time.monotonic() < deadline, f"no {number} events {what}"
            time.sleep(0.02)

    def document(self) -> dict:
        return json.loads((self.folder / "sweep.json").read_text())


def pids(lines: list[str]) -> list[int]:
    return [int(re.search(r"pid=(\d+)", line)[1]) for line in lines]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


@contextmanager
def meanwhile(action) -> Iterator[None]:
    """Run `action()` in a thread, and wait for it at the end."""
    thread = Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()
