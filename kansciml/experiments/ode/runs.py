"""Many trainings of neural ODEs: one job per system, variant, seed and backend, over a pool of processes.

Every job keeps its own checkpoint, so an interrupted experiment resumes each of them where it was. Jobs on torch run
in worker processes with one thread each; jobs on Julia run one after the other in the one Julia worker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from kansciml._errors import KansciError, UsageError
from kansciml._workers import WORKERS_VARIABLE, ending, spared_interrupts, worker_count
from kansciml.analysis.matching import kan_size, mlp_size
from kansciml.backends.select import OdeBackend, open_backend
from kansciml.experiments.ode.jobs import Job, JobResult, describe
from kansciml.models.base import Slot
from kansciml.models.field_spec import FieldSpec
from kansciml.ode import train
from kansciml.runs.experiment import Result, RunContext
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.problem import make_field
from kansciml.tasks.ode.system import System


class _Stopped(KeyboardInterrupt):
    """The parent asked this worker to stop; the training has written its state."""


def run_job(job: Job, backend: OdeBackend, checkpoint: Path, progress: Any, log: Any) -> JobResult:
    """Train, re-evaluate, and put into the record's form."""
    system = job.resolve()
    run = train(
        system,
        job.spec,
        seed=job.seed,
        backend=backend,
        training=job.training,
        rtol=job.rtol,
        atol=job.atol,
        max_steps=job.max_steps,
        checkpoint=checkpoint,
        progress=progress,
        log=log,
    )
    row = {
        "id": job.id,
        "system": system.name,
        "model": job.spec.model,
        "variant": job.variant,
        "label": job.spec.label(),
        "n_parameters": job.spec.n_parameters,
        "seed": job.seed,
        "backend": run.backend,
        "method": run.method,
        "status": run.fit.status,
        "message": run.fit.message,
        "final_loss": run.fit.loss,
        **run.metrics,
        "not_computed": run.metrics.missing,
        "evaluations": run.fit.evaluations,
        "wall_s": run.fit.wall_s,
    }
    history = run.fit.history
    arrays = {key: history[key] for key in ("iteration", "loss", "phase")}
    arrays |= {"params": run.params, "trajectory": run.states}
    return JobResult(row, {f"{job.id}.{key}": value for key, value in arrays.items()})


def run_jobs(jobs: Sequence[Job], context: RunContext) -> Result:
    """Run all jobs and collect the record: see `kansciml.experiments.ode.report` for its layout.

    Raises:
        UsageError: two jobs with one id, or no job.
        KansciError: a worker process died.
        KeyboardInterrupt: after every job wrote its state.
    """
    if not jobs or len({job.id for job in jobs}) != len(jobs):
        raise UsageError(f"got {len(jobs)} runs with {len({job.id for job in jobs})} different names: expected as many")
    first = {job.source: job for job in jobs}
    digests = {source: fingerprint(job.resolve(context.log)) for source, job in first.items()}
    jobs = [replace(job, digest=digests[job.source]) for job in jobs]
    total = sum(job.training.adam_steps + job.training.lbfgs_steps for job in jobs)
    results: dict[str, JobResult] = {}
    with context.progress.task("training", total) as bar:
        board = _Board(bar, len(jobs))
        for job, result in _run_all(jobs, context, board):
            results[job.id] = result
            context.metrics(result.row)
            board.finish(job)
    return _collect(jobs, [results[job.id] for job in jobs])


class _Board:
    """Adds up the progress of all jobs into one bar."""

    def __init__(self, bar: Any, n_jobs: int) -> None:
        self.bar, self.n_jobs, self.n_done = bar, n_jobs, 0
        self.done: dict[str, int] = {}

    def report(self, job_id: str, done: int, loss: float, phase: str) -> None:
        self.done[job_id] = done
        self.bar.update(completed=sum(self.done.values()), loss=loss, now=f"{job_id} {phase}", runs=self._runs())

    def finish(self, job: Job) -> None:
        self.n_done += 1
        self.done[job.id] = job.training.adam_steps + job.training.lbfgs_steps
        self.bar.update(completed=sum(self.done.values()), runs=self._runs())

    def _runs(self) -> str:
        return f"{self.n_done}/{self.n_jobs}"


def _run_all(jobs: Sequence[Job], context: RunContext, board: _Board) -> Iterator[tuple[Job, JobResult]]:
    n_workers = worker_count()
    torch_jobs = [job for job in jobs if job.backend == "torch"]
    pooled = torch_jobs if n_workers > 1 and len(torch_jobs) > 1 else []
    inline = [job for job in jobs if job not in pooled]
    if pooled:
        yield from _run_pool(pooled, min(n_workers, len(pooled)), context, board)
    for job in inline:
        backend = shared_backend(job.backend, job.method, context.log)

        def progress(done: int, total: int, loss: float, phase: str, job: Job = job) -> None:
            board.report(job.id, done, loss, phase)

        checkpoint = context.checkpoints / f"{job.id}.npz"
        yield job, run_job(job, backend, checkpoint, progress, lambda line, job=job: context.log(f"{job.id}: {line}"))


_OPEN: dict[tuple[str, str | None], OdeBackend] = {}


def shared_backend(name: str, method: str | None, log: Any) -> OdeBackend:
    """A backend that is opened once in this process. `method`: gradient of torch, sensealg of julia and of auto."""
    if (name, method) not in _OPEN:
        option = "gradient" if name == "torch" else "sensealg"
        backend = open_backend(name, **{option: method}, log=log)
        name, method = backend.name, method if backend.name == "julia" or name == "torch" else None
        _OPEN[name, method] = backend
    return _OPEN[name, method]


def close_backends() -> None:
    """Close every backend that `shared_backend` opened."""
    while _OPEN:
        _OPEN.popitem()[1].close()


# ---- pool -----------------------------------------------------------------------------------------------------------

_REPORT_EVERY_S = 0.25
_GRACE_S = 5.0
_worker: dict[str, Any] = {}


def _start_worker(queue: Any, stop: Any) -> None:
    import torch

    torch.set_num_threads(1)
    _worker.update(queue=queue, stop=stop)
    # a SIGTERM to this worker, or to all processes of a batch job: in a thread, as the handler may meet a lock held
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, args=(stop,), daemon=True).start())
    threading.Thread(target=_follow_parent, args=(stop,), daemon=True).start()


def _follow_parent(stop: Any) -> None:
    """End this worker if its parent was killed: the pool's own pipes would keep it waiting for ever."""
    parent = multiprocessing.parent_process()  # not os.getppid(): the parent may be dead before this worker has started
    if parent is not None:
        parent.join()
    _end(stop)


def _end(stop: Any) -> None:
    stop.set()
    time.sleep(_GRACE_S)  # for the training to write its state
    os._exit(1)


def _work(job: Job, checkpoint: Path) -> JobResult | None:
    last = 0.0

    def progress(done: int, total: int, loss: float, phase: str) -> None:
        nonlocal last
        if _worker["stop"].is_set():
            raise _Stopped
        if time.monotonic() - last > _REPORT_EVERY_S:
            last = time.monotonic()
            _worker["queue"].put((job.id, done, loss, phase))

    def log(line: str) -> None:
        _worker["queue"].put(f"{job.id}: {line}")

    if _worker["stop"].is_set():
        return None
    try:
        return run_job(job, shared_backend(job.backend, job.method, log), checkpoint, progress, log)
    except _Stopped:
        return None


def _run_pool(
    jobs: Sequence[Job], n_workers: int, context: RunContext, board: _Board
) -> Iterator[tuple[Job, JobResult]]:
    spawn = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads can hang
    queue, stop = spawn.Queue(), spawn.Event()
    # BLAS reads these once, when a worker loads NumPy: one thread each, or the workers fight over the processors
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    pool = ProcessPoolExecutor(n_workers, spawn, _start_worker, (queue, stop))
    try:
        with spared_interrupts():
            pending = {pool.submit(_work, job, context.checkpoints / f"{job.id}.npz"): job for job in jobs}
        workers = multiprocessing.active_children()
        while pending:
            finished, _ = wait(pending, timeout=_REPORT_EVERY_S, return_when=FIRST_COMPLETED)
            for message in _drain(queue):
                if isinstance(message, str):
                    context.log(message)
                else:
                    board.report(*message)
            for future in finished:
                job, result = pending.pop(future), future.result()
                if result is None:
                    raise KansciError("a worker process was told to end: the same command resumes the runs")
                yield job, result
    except BrokenProcessPool as error:
        pool.shutdown(wait=True)  # ends the others by SIGTERM
        how = {ending(worker.exitcode) for worker in workers}
        how = how - {"SIGTERM", ending(0)} or {"SIGTERM"}
        raise KansciError(
            f"a worker process died ({', '.join(sorted(how))}): the same command resumes the runs;"
            f" {WORKERS_VARIABLE}=1 runs them one by one"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        queue.close()
        queue.cancel_join_thread()


def _drain(queue: Any) -> Iterator[Any]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return


# ---- record ---------------------------------------------------------------------------------------------------------


def _collect(jobs: Sequence[Job], results: Sequence[JobResult]) -> Result:
    arrays: dict[str, np.ndarray] = {}
    systems: dict[str, Any] = {}
    for job in jobs:
        system = job.resolve()
        if system.name not in systems:
            systems[system.name], extra = describe(system)
            arrays |= extra
    for result in results:
        arrays |= result.arrays
    return Result({"systems": systems, "runs": [result.row for result in results]}, arrays)


# ---- variants -------------------------------------------------------------------------------------------------------


def variant_fields(
    system: System, models: Sequence[str], matches: Sequence[str], **options: Any
) -> dict[str, FieldSpec]:
    """Variant name -> field: ``mlp``, ``kan-width`` (same hidden width), ``kan-params`` (no more parameters),
    ``kan-flops`` (no more operations)."""
    fields: dict[str, FieldSpec] = {}
    if "mlp" in models:
        fields["mlp"] = make_field(system, "mlp", **options)
    if "kan" in models:
        for match in matches:
            if match == "flops":
                fields["kan-flops"] = flops_field(system, **options)
            else:
                fields[f"kan-{match}"] = make_field(system, "kan", match=match, **options)
    return fields


def flops_field(system: System, **options: Any) -> FieldSpec:
    """A KAN with at most as many operations per evaluation (`field_flops`) as the MLP of the given hidden widths.

    Its hidden widths are those of the MLP shrunk by one factor, as `make_field` shrinks them to match parameters; where
    even one unit takes more than the MLP, it has one. `options`: as for `make_field`.
    """
    mlp = make_field(system, "mlp", **options)
    hidden, budget = mlp.widths[1:-1], field_flops(mlp)
    for width in range(hidden[0], 0, -1):
        shrunk = tuple(max(1, round(h * width / hidden[0])) for h in hidden)
        field = make_field(system, "kan", **(options | {"hidden": shrunk}))
        if field_flops(field) <= budget:
            break
    return field


def field_flops(spec: FieldSpec) -> float:
    """Operations of one evaluation of the network in a field, at one state (`kansciml.analysis.cost`).

    What a KAN does once per parameter vector, scaling its spline weights, is shared among `matching.IMAGES`
    evaluations, fewer than a solve takes. The normalisation of states, the same for all fields, is not counted.
    """
    if spec.model == "mlp":
        return mlp_size(Slot("field", spec.widths, rows=1, count=1), "flops")
    return kan_size(spec.widths, 1, "spline", "flops", spec.grid, spec.spline_order)
