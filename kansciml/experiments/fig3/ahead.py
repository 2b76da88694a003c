"""Trains and measures the mixers of Figure 3 on several processors; the run itself then finds all of it done."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from kansciml._workers import worker_count
from kansciml.experiments.fig3.config import Fig3Config, MixerJob, jobs
from kansciml.experiments.hessian.measure import is_measured, measure
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import trained_networks
from kansciml.runs import ranks
from kansciml.runs.experiment import RunContext
from kansciml.runs.pool import check_stop, each
from kansciml.runs.progress import Progress, Task
from kansciml.runs.records import Record
from kansciml.runs.settings import settings_json
from kansciml.runs.trained import TrainedModel

NAME = "fig3"
SPECTRA = "spectra"
"""Folder of measurements within that of the checkpoints."""


def in_parallel(config: Fig3Config, context: RunContext) -> None:
    """Train and measure in one process per processor, KANSCIML_WORKERS of them; nothing on a GPU or under torchrun.

    Raises:
        UsageError: KANSCIML_WORKERS is no number. KansciError: a training or measurement failed, or a worker died.
    """
    every = jobs(config)
    left = [job for job in every if not _is_done(context, job)]
    device = ranks.device_of(config.classifier.accelerator)
    if min(worker_count(), len(left)) < 2 or ranks.size() > 1 or device.type != "cpu":
        return
    with context.progress.task("training and measuring", len(every)) as bar:
        bar.update(completed=len(every) - len(left))
        for name, _ in each(_work, {job.id: (config, context.folder, job) for job in left}):
            bar.update(advance=1, model=name)


def record_of(config: Fig3Config, folder: Path, result: dict[str, Any]) -> Record:
    """The record of the trainings alone, from which their models are loaded."""
    return Record(folder, NAME, settings_json(config), folder.name, "finished", result=result)


def _is_done(context: RunContext, job: MixerJob) -> bool:
    return (context.checkpoints / SPECTRA / f"{job.id}.json").is_file()


def _work(asked: tuple[Fig3Config, Path, MixerJob]) -> None:
    """In a worker: one training and the spectrum of its minimum."""
    config, folder, job = asked
    context = _context(folder)
    found = _trainer(folder).run([job]).result
    models: list[TrainedModel] = trained_networks(record_of(config, folder, found.result))
    spectra = context.checkpoints / SPECTRA
    if not all(is_measured(spectra, one) for one in models):
        measure(models, config.spectra, context, spectra, folder.name)


@cache
def _trainer(folder: Path) -> ImageTrainer:
    """One per worker, which keeps the images."""
    return ImageTrainer(_context(folder))


def _context(folder: Path) -> RunContext:
    return RunContext(folder, _Silent(), lambda line: None)


class _Silent(Progress):
    """Shows nothing, and interrupts what reports to it once the pool is left."""

    def __init__(self) -> None:
        super().__init__(stream=open(os.devnull, "w"), live=False)  # open as long as the process

    def task(self, description: str, total: float) -> Task:
        return _Watched(self, description, total)


class _Watched(Task):
    def update(self, *arguments: Any, **values: Any) -> None:
        check_stop()
