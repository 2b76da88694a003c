"""Trainings one after the other, each by all processes of a torchrun, under one bar; finished ones are not repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from kansciml._errors import UsageError
from kansciml.runs import ranks
from kansciml.runs.experiment import RunContext

DONE = "done.json"
"""File of a training that is finished, written last."""


class TrainingJob(Protocol):
    """What is known of a training before it begins."""

    group: str
    seed: int

    @property
    def id(self) -> str: ...

    @property
    def steps(self) -> int: ...


def train_each(
    jobs: Sequence[Any],
    context: RunContext,
    train_one: Callable[[Any, Path, TrainingBoard], None],
    *,
    unit: str,
    score: tuple[str, str],
) -> None:
    """Have `train_one(job, folder, board)` train what is not trained yet, in ``checkpoints/<id>``.

    Args:
        unit: what is counted per second. score: key of the loop's result that the bar shows, and its name there.

    Raises:
        UsageError: two jobs of one name, or no job.
    """
    if not jobs or len({job.id for job in jobs}) != len(jobs):
        raise UsageError(f"got {len(jobs)} runs with {len({job.id for job in jobs})} different names: expected as many")
    ranks.call()
    with context.progress.task("training", sum(job.steps for job in jobs)) as bar:
        board = TrainingBoard(bar, len(jobs), unit, score)
        for job in jobs:
            folder = context.checkpoints / job.id
            if not ranks.agree((folder / DONE).exists()):
                train_one(job, folder, board)
            board.finish(job)


class TrainingBoard:
    """Adds up the steps of all jobs into one bar; the training loop takes it for its own."""

    def __init__(self, bar: Any, n_jobs: int, unit: str, score: tuple[str, str]) -> None:
        self.bar, self.n_jobs, self.n_done, self.before = bar, n_jobs, 0, 0
        self.unit, self.score, self.name = unit, score, ""

    def begin(self, job: TrainingJob) -> None:
        self.name = f"{job.group} seed {job.seed}"

    def task(self, description: str, total: float) -> TrainingBoard:
        return self

    def update(self, completed: float, epoch: int = 0, loss: float | None = None, **shown: Any) -> None:
        values: dict[str, Any] = {"run": f"{self.n_done + 1}/{self.n_jobs} {self.name}", "epoch": epoch}
        if loss is not None:
            values |= {"loss": loss, f"{self.unit}/s": shown.get("samples_per_s", 0.0)}
        if "peak_memory_mb" in shown:
            values["peak MB"] = shown["peak_memory_mb"]
        key, name = self.score
        if key in shown:
            values[name] = shown[key]
        self.bar.update(completed=self.before + completed, **values)

    def close(self) -> None:
        """The bar belongs to all jobs."""

    def finish(self, job: TrainingJob) -> None:
        self.n_done += 1
        self.before += job.steps
        self.bar.update(completed=self.before)
