"""Runs many short jobs over a pool of processes; what each of them found is kept, so that a resumed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, TypeVar

from kansciml._errors import KansciError
from kansciml._files import append_json_line, to_jsonable
from kansciml._workers import WorkerPool, stopping, worker_count
from kansciml.runs.experiment import RunContext

J = TypeVar("J")
KEPT = "jobs.jsonl"
LOOK_S = 0.5
AHEAD = 4
"""Jobs per worker that are handed over before they are asked for."""


def run_kept(
    work: Callable[[J], Mapping[str, Any]], jobs: Mapping[str, J], context: RunContext, what: str = "training"
) -> dict[str, dict[str, Any]]:
    """``work(job)`` of every job by its id, in the order of `jobs`, in JSON types.

    Args:
        work: a function of a module, which other processes call; seconds long, as an interrupted job begins anew.
        what: name of the bar of progress.

    Raises:
        KansciError: a worker process died, or the file of what is kept cannot be written.
        KeyboardInterrupt: what has been finished is kept.
    """
    path = context.checkpoints / KEPT
    found = {name: value for name, value in _kept(path) if name in jobs}
    left = {name: job for name, job in jobs.items() if name not in found}
    with context.progress.task(what, len(jobs)) as bar:
        bar.update(completed=len(found))
        for name, value in _each(work, left):
            found[name] = to_jsonable(value)
            append_json_line(path, {"id": name, "found": found[name]})
            bar.update(completed=len(found), now=name)
    return {name: found[name] for name in jobs}


def _kept(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                content = json.loads(line)
                yield content["id"], content["found"]
            except (ValueError, LookupError, TypeError):
                continue  # half a line, of a process that was killed


def _each(work: Callable[[J], Any], jobs: Mapping[str, J]) -> Iterator[tuple[str, Any]]:
    n_workers = min(worker_count(), len(jobs))
    if n_workers < 2:
        for name, job in jobs.items():
            yield name, work(job)
        return
    waiting = iter(jobs.items())
    with WorkerPool(n_workers) as pool:
        pending: dict[Future[Any], str] = {}
        while True:
            while len(pending) < AHEAD * n_workers and (following := next(waiting, None)):
                pending[pool.submit(_one, work, following[1])] = following[0]
            if not pending:
                return
            finished, _ = wait(pending, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            for future in finished:
                yield pending.pop(future), future.result()


def _one(work: Callable[[J], Any], job: J) -> Any:
    """In a worker."""
    if stopping():
        raise KansciError("a worker process was told to end: the same command resumes the runs")
    return work(job)
