"""A small sweep of `tiny_experiments.counted`, and what its log says happened.

``python -m support.sweep_samples FOLDER SCHEDULER`` runs `long_sweep` as the command line does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil

from kansciml import cli
from kansciml.runs.registry import get_experiment
from kansciml.sweep.plan import make_plan, parse_settings
from kansciml.sweep.session import run_sweep

PACKAGE = "support.tiny_experiments"
FOLDER = str(Path(__file__).parents[1])
"""What processes need on PYTHONPATH to find the package."""
ALL = [f"grid={grid} seed={seed}" for grid in (3, 7) for seed in (0, 1)]


class Sweep:
    """A sweep of the counted experiment in a folder of its own: with ``grid=3,7`` the four tasks `ALL`."""

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

    def pids(self, what: str) -> list[int]:
        return [int(re.search(r"pid=(\d+)", line)[1]) for line in self.logged(what)]

    def resumed(self) -> int:
        """How many of the starts found what an earlier one had kept."""
        return sum("at=0 " not in line for line in self.logged("begin"))

    def await_events(self, what: str, number: int) -> None:
        wait_for(lambda: len(self.logged(what)) >= number)

    def document(self) -> dict:
        return json.loads((self.folder / "sweep.json").read_text())


def long_sweep(folder: Path, step_s: float = 0.0) -> Sweep:
    """The tasks `ALL`; the same whatever `step_s`, with 0.5 long enough to be stopped in their midst."""
    return Sweep(folder, "grid=3,7", steps=20, step_s=step_s)


def stopped_sweep(folder: Path, number: int, scheduler: str = "local") -> tuple[Sweep, int, str]:
    """`long_sweep` as a command that got a signal while two tasks were at work: with its exit code and messages."""
    sweep = long_sweep(folder)
    command = [sys.executable, "-m", "support.sweep_samples", str(folder), scheduler]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        sweep.await_events("kept", 2)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    return sweep, process.returncode, error


def alive(pids: list[int]) -> bool:
    """Whether one of these processes still runs."""
    return any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Run `action()` in a thread, and wait for it at the end."""
    thread = Thread(target=action)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


if __name__ == "__main__":
    asked = long_sweep(Path(sys.argv[1]), step_s=0.5)
    cli.run = lambda arguments, out: asked.run(log=out.log, scheduler=sys.argv[2]) and 0
    sys.exit(cli.main(["sweep"]))
