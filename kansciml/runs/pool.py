"""Runs jobs over a pool of processes, which report while they run and resume, or are kept, when a run goes on."""

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
R = TypeVar("R")
KEPT = "jobs.jsonl"
LOOK_S = 0.25
AHEAD = 4
"""Jobs per worker that are handed over before they are asked for."""


class Stopped(KeyboardInterrupt):
    """The process that has the pool asked this worker to stop."""


def check_stop() -> None:
    """In a worker, as often as a job can be left with its state saved. Raises Stopped: this worker is to end."""
    if stopping():
        raise Stopped


def each(
    work: Callable[[J], R],
    jobs: Mapping[str, J],
    *,
    told: Callable[[Any], object] = lambda message: None,
    cost: Callable[[J], float] | None = None,
    alone: Callable[[J], R] | None = None,
) -> Iterator[tuple[str, R]]:
    """``work(job)`` of every job with its id, as they end: in KANSCIML_WORKERS processes with one thread each.

    Args:
        work: a function of a module, which other processes call; a long one calls `check_stop` and saves its state.
        told: takes what `work` hands to `kansciml._workers.tell` while it runs.
        cost: by which jobs are started, the dearest first, lest the pool wait for one at the end.
        alone: called instead of `work`, here and in the order of `jobs`, where one process is enough; default: `work`.

    Raises:
        UsageError: KANSCIML_WORKERS is no number. KansciError: a job failed, or a worker died.
        KeyboardInterrupt: of this process, after every job has been asked to stop.
    """
    n_workers = min(worker_count(), len(jobs))
    if n_workers < 2:
        for name, job in jobs.items():
            yield name, (alone or work)(job)
        return
    waiting = iter(sorted(jobs.items(), key=lambda item: 0.0 if cost is None else -cost(item[1])))
    with WorkerPool(n_workers) as pool:
        pending: dict[Future[R], str] = {}
        while True:
            while len(pending) < AHEAD * n_workers and (following := next(waiting, None)):
                pending[pool.submit(_one, work, following[1])] = following[0]
            if not pending:
                return
            finished, _ = wait(pending, timeout=LOOK_S, return_when=FIRST_COMPLETED)
            for message in pool.told():
                told(message)
            for future in finished:
                yield pending.pop(future), future.result()


def _one(work: Callable[[J], R], job: J) -> R:
    """In a worker."""
    try:
        check_stop()
        return work(job)
    except Stopped:
        raise KansciError("a worker process was told to end: the same command resumes the runs") from None


def run_kept(
    work: Callable[[J], Mapping[str, Any]], jobs: Mapping[str, J], context: RunContext, what: str = "training"
) -> dict[str, dict[str, Any]]:
    """``work(job)`` of every job by its id, in the order of `jobs`, in JSON types; what was found is not done again.

    Args:
        work: as of `each`; seconds long, as an interrupted job begins anew.
        what: name of the bar of progress.

    Raises:
        KansciError: a worker process died, or the file of what is kept cannot be written.
        KeyboardInterrupt: what has been finished is kept.
    """
    path = context.checkpoints / KEPT
    found = {name: value for name, value in _kept(path) if name in jobs}
    with context.progress.task(what, len(jobs)) as bar:
        bar.update(completed=len(found))
        for name, value in each(work, {name: job for name, job in jobs.items() if name not in found}):
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
