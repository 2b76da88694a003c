"""Generates the samples that a folder lacks, on a pool of processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from kansciml._files import make_folder
from kansciml._workers import WorkerPool, worker_count
from kansciml.tasks.darcy._shards import Manifest, fault, parts, write_shard
from kansciml.tasks.darcy.coefficient import coefficient
from kansciml.tasks.darcy.config import SPLITS, DarcyConfig
from kansciml.tasks.darcy.solver import solve
from kansciml.tasks.data_folder import Progress

SMALL = 1_500_000
"""Nodes of all samples together, below which starting processes takes longer than the work."""

Part = tuple[str, int, int]
"""Split, start, stop."""


@dataclass(frozen=True)
class Generated:
    """Where a data set lies, how many of its samples were made now and kept from before, and the wall time."""

    folder: Path
    made: int
    kept: int
    seconds: float


def make_sample(
    config: DarcyConfig, split: str, index: int
) -> tuple[Float32[np.ndarray, "s s"], Float32[np.ndarray, "s s"]]:
    """Coefficient and solution of one sample: solved in float64 at the full resolution, then subsampled."""
    a = coefficient(config, split, index)
    u = solve(a, config.forcing, config.solver)
    kept = (slice(None, None, config.subsample),) * 2
    return a[kept].astype(np.float32), u[kept].astype(np.float32)


def generate(
    config: DarcyConfig,
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> Generated:
    """Make the samples of both splits that `folder` does not hold yet; a killed generation goes on where it was.

    Files that are missing or corrupt are made anew. A sample is the same whatever the number of workers and samples.
    With more than one worker, a script that calls this needs the usual ``if __name__ == "__main__":``.

    Args:
        config: the data set.
        folder: its folder, made if need be.
        workers: processes; default: the environment variable KANSCIML_WORKERS, else the processors of this process.
        progress: shows a bar, e.g. a `kansciml.runs.progress.Progress`; default: silent.
        log: takes a line about each file made anew.

    Raises:
        UsageError: a folder with a data set of other settings; a number of workers below 1.
        KansciError: the folder cannot be written, a worker died, or the solver did not converge.
    """
    began, n_workers = time.monotonic(), worker_count(workers)
    manifest = Manifest.read(make_folder(Path(folder)), config)
    missing = _missing(manifest, log or (lambda line: None))
    jobs = [(config, split, index) for split, start, stop in missing for index in range(start, stop)]
    kept = config.n_train + config.n_test - len(jobs)
    bar = progress.task(f"Darcy flow {config.id}", kept + len(jobs)) if progress is not None and jobs else None
    n_workers = 1 if len(jobs) * config.resolution**2 < SMALL else min(n_workers, len(jobs))
    try:
        if bar is not None:
            bar.update(completed=kept)
        with _samples(jobs, n_workers) as samples:
            for split, start, stop in missing:
                arrays = np.empty((2, stop - start, config.size, config.size), np.float32)
                for i in range(stop - start):
                    arrays[:, i] = next(samples)
                    if bar is not None:
                        bar.update(advance=1)
                manifest.add(write_shard(manifest.folder, split, start, *arrays))
    finally:
        if bar is not None:
            bar.close()
    return Generated(manifest.folder, len(jobs), kept, time.monotonic() - began)


def _missing(manifest: Manifest, log: Callable[[str], None]) -> list[Part]:
    missing = []
    for split in SPLITS:
        for start, stop in parts(manifest.config, split):
            shard = manifest.find(split, start, stop)
            problem = None if shard is None else fault(manifest.folder, shard)
            if shard is not None and problem is not None:
                log(f"{manifest.folder / shard.name} {problem}: making it anew")
            if shard is None or problem is not None:
                missing.append((split, start, stop))
    return missing


@contextmanager
def _samples(jobs: Sequence[tuple[DarcyConfig, str, int]], n_workers: int) -> Iterator[Iterator[Any]]:
    """The samples of the jobs, in their order."""
    if n_workers <= 1:
        yield (make_sample(*job) for job in jobs)
        return
    with WorkerPool(n_workers) as pool:
        yield _in_order(pool, jobs, ahead=4 * n_workers)


def _in_order(pool: WorkerPool, jobs: Sequence[tuple[DarcyConfig, str, int]], ahead: int) -> Iterator[Any]:
    """Results in order, with at most `ahead` samples in memory or in work."""
    waiting: deque[Any] = deque()
    for job in jobs:
        waiting.append(pool.submit(make_sample, *job))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
