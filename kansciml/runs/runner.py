"""Runs experiments: each configuration has its folder, an interrupted run resumes, a finished one is not repeated."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kansciml._errors import KansciError
from kansciml._files import make_folder, write_failure, write_json, write_text
from kansciml.runs import provenance
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.progress import Progress
from kansciml.runs.records import DRAWN, Record, find_record, load_record, save_record
from kansciml.runs.settings import config_hash, seeds_of, settings_json

HOLDER = ".holder"
"""File that names the process at work, for whoever is turned away."""


def result_folder(experiment: Experiment, config: Any, results: str | Path = "results") -> Path:
    """``results/<experiment>/<config hash>``; nothing is created."""
    return Path(results) / experiment.name / config_hash(experiment.name, config)


def run_experiment(
    experiment: Experiment,
    config: Any,
    *,
    results: str | Path = "results",
    folder: Path | None = None,
    force: bool = False,
    log: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Record:
    """Run `experiment`, resume it, or return its finished record at once.

    Args:
        config: an instance of ``experiment.config``.
        results: folder of all results. folder: of these, in place of that which `result_folder` gives.
        force: discard what there is for this configuration, finished or not, and start anew.
        log: takes lines for the user; default: standard error, above the bars.
        progress: where bars go; default: standard error.

    Returns:
        The finished record, read back from disk.

    Raises:
        UsageError: the experiment does not `accept` the configuration.
        KansciError: unwritable or damaged folder, another process at work in it, or the experiment's own error.
        KeyboardInterrupt: passed on after the state was saved and a line said how to resume.
    """
    plan = experiment.accept(config)
    progress = progress or Progress()
    log = log or progress.log
    folder = folder or result_folder(experiment, config, results)
    done = None if force else _finished(experiment, config, folder)
    if done is None:
        make_folder(folder)
        with folder_lock(folder), progress:
            # another process may have finished it between the look and the lock
            done = None if force else _finished(experiment, config, folder)
            if done is None:
                record = _begin(experiment, config, folder, force, log)
                return _work(experiment, config, record, RunContext(folder, progress, log, plan))
    log(f"{done.experiment}: finished on {done.finished}, results in {done.folder} (--force runs it again)")
    return done


def resolved(experiment: Experiment, config: Any, results: str | Path, force: bool, log: Callable[[str], None]) -> Any:
    """The configuration with what it leaves to the machine decided, such as backend ``auto``.

    A bad request is reported before anything is started, and nothing is started for a run that is finished already.

    Raises:
        UsageError: the experiment does not `accept` it. BackendUnavailable: what it asks for does not start.
    """
    choices = experiment.choices(config)
    first, last = choices[0], choices[-1]
    if not force and is_finished(experiment, first, results):
        return first
    experiment.accept(last)
    return experiment.resolve(config, log)


def is_finished(experiment: Experiment, config: Any, results: str | Path = "results") -> bool:
    """Whether `run_experiment` would return a finished record at once."""
    return _finished(experiment, config, result_folder(experiment, config, results)) is not None


def _finished(experiment: Experiment, config: Any, folder: Path) -> Record | None:
    record = find_record(folder)
    finished = record is not None and record.status == "finished" and experiment.covers(config, record)
    return record if finished else None


def _begin(experiment: Experiment, config: Any, folder: Path, force: bool, log: Callable[[str], None]) -> Record:
    """Clear or take over the folder, and write the record of a running session."""
    earlier = None if force else find_record(folder)
    if force:
        _clear(folder)
    make_folder(folder / "checkpoints")
    write_json(folder / "config.json", settings_json(config))
    record = Record(
        folder=folder,
        experiment=experiment.name,
        config=settings_json(config),
        config_hash=folder.name,
        status="running",
        versions=provenance.package_versions(),
        machine=provenance.machine(),
        commit=provenance.package_commit(),
        seeds=seeds_of(config),
        started=earlier.started if earlier else _now(),
        wall_s=earlier.wall_s if earlier else 0.0,
        sessions=earlier.sessions + 1 if earlier else 1,
    )
    save_record(record)
    if earlier is not None and earlier.status != "finished":
        state = {"running": "was killed", "failed": "had failed"}.get(earlier.status, "was interrupted")
        log(f"{experiment.name}: resuming the run in {folder}, which {state}")
    return record


def _work(experiment: Experiment, config: Any, record: Record, context: RunContext) -> Record:
    began = time.monotonic()

    def closed(status: str, message: str = "", result: Result | None = None) -> Record:
        own, workers = provenance.peak_memory_mb()
        return replace(
            record,
            status=status,
            message=message,
            result=result.result if result else {},
            arrays=result.arrays if result else {},
            machine=provenance.machine(),  # by now the experiment has loaded what it computes with
            finished=_now(),
            wall_s=record.wall_s + time.monotonic() - began,
            peak_memory_mb=own,
            peak_memory_workers_mb=workers,
        )

    try:
        result = experiment.run(config, context)
        save_record(closed("finished", result=result))
    except KeyboardInterrupt:
        line = f"{experiment.name}: interrupted; the same command resumes it from {record.folder}"
        _mark(closed("interrupted", line), context.log)
        context.log(line)
        raise
    except Exception as error:
        _mark(closed("failed", f"{type(error).__name__}: {error}"), context.log)
        raise
    return load_record(record.folder)


def _mark(record: Record, log: Callable[[str], None]) -> None:
    """Save the end of a run that went wrong, without hiding why behind a second error."""
    try:
        save_record(record)
    except KansciError as error:
        log(f"{record.experiment}: its state could not be saved: {error}")


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in ("record.json", "arrays.npz", "metrics.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    for old in folder.iterdir():  # pictures and tables of the run before would pass for those of the new one
        if old.suffix in (".svg", ".png", ".pdf", ".md") or old.name in ("tables.json", DRAWN):
            old.unlink()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class FolderInUse(KansciError):
    """Another process works in the folder. Exit code 1."""


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/.lock`` within; the file stays when the lock is released or its process killed.

    Raises:
        FolderInUse: another process works in the folder.
        KansciError: the lock file cannot be written.
    """
    holder = folder / HOLDER
    try:
        holding = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        name = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "unknown"
        raise FolderInUse(f"{folder} is in use by another process ({name}): wait for it, or end it") from error
    except OSError as error:
        raise write_failure(folder / ".lock", error) from error
    with holding:
        write_text(holder, f"pid {os.getpid()}\n")
        yield
