"""What an experiment is, and the runner that gives each configuration its folder, resumes it, and never repeats it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from kansciml._errors import KansciError, UsageError, unknown_name
from kansciml._files import append_json_line, make_folder, to_jsonable, write_json
from kansciml.runs import provenance
from kansciml.runs.findings import Finding
from kansciml.runs.lock import FolderLock
from kansciml.runs.numbers import check_numbers, seeds_of
from kansciml.runs.progress import Progress
from kansciml.runs.records import (
    DRAWN,
    Record,
    drawn_files,
    find_record,
    load_record,
    note_drawn,
    reading,
    save_record,
)
from kansciml.runs.scoring import Scoring
from kansciml.runs.tables import Table
from kansciml.runs.trained import TrainedModel


@dataclass
class Result:
    """What an experiment computed.

    Args:
        result: numbers and text in JSON types (non-finite floats are stored as null).
        arrays: named arrays of numbers.
    """

    result: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class RunContext:
    """What an experiment may use while it runs.

    Args:
        folder: results folder of this configuration.
        progress: bars on standard error; see `kansciml.runs.progress.Progress.task`.
        log: takes one line for the user (never standard output, which belongs to results).
    """

    folder: Path
    progress: Progress
    log: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)

    @property
    def checkpoints(self) -> Path:
        """Folder for whatever lets an interrupted run resume; kept until a run is forced anew."""
        return self.folder / "checkpoints"

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Append `values`, with ``elapsed_s`` since this session began, to ``metrics.jsonl``."""
        elapsed = round(time.monotonic() - self._began, 3)
        append_json_line(self.folder / "metrics.jsonl", {"elapsed_s": elapsed, **values})


@dataclass(frozen=True)
class Experiment:
    """What each module of `kansciml.experiments` exports as ``EXPERIMENT``.

    Args:
        name: the module's name, and the name on the command line.
        title: one line for lists. item: what it reproduces, e.g. ``"Figure 2"``.
        config: frozen dataclass whose defaults are the paper's settings.
        presets: configurations by name: ``smoke`` (seconds), ``small`` (minutes on 2 cores), ``paper``.
        run: computes; plots nothing and writes nothing but checkpoints and metrics.
        render: reads the record only; writes pictures and tables into the folder and returns their paths.
        summary: the tables printed at the end of the command.
        check: raises UsageError for whatever is wrong with a configuration, before a folder is made for it.
        trained: the models of a finished run, for studies of their minima; None where nothing is trained.
        scoring: how ``kansciml evaluate`` scores the weights that a run kept; None where none are kept.
        findings: what a finished run says about the paper's claims, from the record alone; None where the paper
            claims nothing of it.
    """

    name: str
    title: str
    item: str
    config: type
    presets: Mapping[str, Any]
    run: Callable[[Any, RunContext], Result]
    render: Callable[[Record, Path], list[Path]]
    summary: Callable[[Record], Table | list[Table]]
    check: Callable[[Any], object] = lambda config: None
    trained: Callable[[Record], Sequence[TrainedModel]] | None = None
    scoring: Scoring | None = None
    findings: Callable[[Record], Sequence[Finding]] | None = None

    def preset(self, name: str) -> Any:
        """The configuration of preset `name`.

        Raises:
            UsageError: there is none of that name.
        """
        if name not in self.presets:
            raise unknown_name(f"preset of {self.name}", name, self.presets)
        return self.presets[name]

    def accept(self, config: Any) -> None:
        """Return if `config` can be run.

        Raises:
            UsageError: it belongs to another experiment, a number in it means nothing, or `check` refuses it.
        """
        if not isinstance(config, self.config):
            raise UsageError(f"got a {type(config).__name__} for {self.name}: expected its {self.config.__name__}")
        check_numbers(config)
        self.check(config)

    def tables(self, record: Record) -> list[Table]:
        """`summary` as a list.

        Raises:
            DamagedRecord: the record lacks what they show.
        """
        with reading(record):
            tables = self.summary(record)
            return [tables] if isinstance(tables, Table) else list(tables)

    def draw(self, record: Record, anew: bool = False) -> list[Path]:
        """Pictures and tables of a finished record, in its folder: drawn if they are not all there, or with `anew`.

        Raises:
            DamagedRecord: the record lacks what they show.
            KansciError: unwritable folder or full disk; the next call draws them.
        """
        paths = None if anew else drawn_files(record)
        if paths is None:
            with reading(record):
                paths = self.render(record, record.folder)
            note_drawn(record, paths)
        return paths


COUNTS_IF_SET = {"counts_if_set": True}
"""Metadata of a field of a configuration that changes its hash only where it differs from its default."""


def config_hash(experiment: str, config: Any) -> str:
    """Twelve hexadecimal digits that are equal exactly if `experiment` and `config` are.

    SHA-256 of the sorted JSON of the dataclass. Numbers that compare equal hash equally (1 and 1.0). A path to a
    file, also as text with a suffix such as ``my_system.py``, counts by the file's name and contents, so that edited
    data are a new configuration and moved data are not. A field with ``compare=False`` does not count, one with
    `COUNTS_IF_SET` does where it differs from its default. A configuration with a method ``inputs`` counts by what that
    gives, too, unless it is empty: what its files read in their turn.
    """
    text = json.dumps({"experiment": experiment, "config": _hashable(config)}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hashable(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        value = float(value)
        if not math.isfinite(value):
            return {"float": repr(value)}
        return int(value) if value.is_integer() else value
    if isinstance(value, PurePath) or (isinstance(value, str) and Path(value).suffix and Path(value).is_file()):
        path = Path(value)
        if path.is_file():
            return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        return {"path": path.as_posix()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        counting = [item.name for item in dataclasses.fields(value) if item.compare and not _left_out(item, value)]
        found = {name: _hashable(getattr(value, name)) for name in counting}
        inputs = value.inputs() if hasattr(value, "inputs") else None
        return found | {"inputs": _hashable(inputs)} if inputs else found
    if isinstance(value, Mapping):
        return {str(key): _hashable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hashable(item) for item in value]
    if isinstance(value, np.ndarray):
        return _hashable(value.tolist())
    return to_jsonable(value)


def _left_out(item: dataclasses.Field, value: Any) -> bool:
    return "counts_if_set" in item.metadata and getattr(value, item.name) == item.default


def result_folder(experiment: Experiment, config: Any, results: str | Path = "results") -> Path:
    """``results/<experiment>/<config hash>``; nothing is created."""
    return Path(results) / experiment.name / config_hash(experiment.name, config)


def run_experiment(
    experiment: Experiment,
    config: Any,
    *,
    results: str | Path = "results",
    force: bool = False,
    log: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Record:
    """Run `experiment`, resume it, or return its finished record at once.

    Args:
        config: an instance of ``experiment.config``.
        results: folder of all results.
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
    experiment.accept(config)
    progress = progress or Progress()
    log = log or progress.log
    folder = result_folder(experiment, config, results)
    if not force:
        done = _finished(folder)
        if done is not None:
            _report_finished(done, log)
            return done
    make_folder(folder)
    with FolderLock(folder), progress:
        done = None if force else _finished(folder)
        if done is not None:  # another process finished it between the look and the lock
            _report_finished(done, log)
            return done
        record = _begin(experiment, config, folder, force, log)
        return _work(experiment, config, record, RunContext(folder, progress, log))


def is_finished(experiment: Experiment, config: Any, results: str | Path = "results") -> bool:
    """Whether `run_experiment` would return a finished record at once."""
    return _finished(result_folder(experiment, config, results)) is not None


def _finished(folder: Path) -> Record | None:
    record = find_record(folder)
    return record if record is not None and record.status == "finished" else None


def _report_finished(record: Record, log: Callable[[str], None]) -> None:
    log(f"{record.experiment}: finished on {record.finished}, results in {record.folder} (--force runs it again)")


def _begin(experiment: Experiment, config: Any, folder: Path, force: bool, log: Callable[[str], None]) -> Record:
    """Clear or take over the folder, and write the record of a running session."""
    earlier = None if force else find_record(folder)
    if force:
        _clear(folder)
    make_folder(folder / "checkpoints")
    write_json(folder / "config.json", config)
    record = Record(
        folder=folder,
        experiment=experiment.name,
        config=to_jsonable(config),
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
    if earlier is not None:
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
