"""Runs many trainings of neural ODEs over a pool of processes, and makes their record.

Every job keeps its own checkpoint, so an interrupted experiment resumes each of them where it was. Jobs run in worker
processes with one thread each, of which each has a Julia of its own where a job is on Julia; a single one runs here.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kansciml._errors import SolveError, UsageError
from kansciml._workers import tell
from kansciml.backends.select import OdeBackend
from kansciml.experiments.ode.backends import shared_backend
from kansciml.experiments.ode.jobs import Job, Plan, read_again
from kansciml.experiments.ode.record import ROLES, OdeSeries, OdeSystem, ode_result
from kansciml.experiments.ode.run_rows import Run, numbered, run_json
from kansciml.experiments.ode.trained import model_folder
from kansciml.experiments.ode.variants import training_flops
from kansciml.ode import OdeRun, train
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.pool import check_stop, each
from kansciml.runs.progress import Task
from kansciml.runs.typed import attributes
from kansciml.tasks.ode.data import training_data, training_trajectories
from kansciml.tasks.ode.fingerprint import fingerprint
from kansciml.tasks.ode.scaling import solved
from kansciml.tasks.ode.system import System

REPORT_EVERY_S = 0.25
LINE = 501
"""Times of a curve, with which its corners cannot be seen."""
ROWS = 4000
PLANE = 25
"""States along each side of the plane on which fields are compared."""
Steps = tuple[int, float, str]
"""How many steps are done, the loss, and the name of the phase."""
read_once = functools.lru_cache(read_again)


def run_jobs(plan: Plan, context: RunContext) -> Result:
    """Run all jobs and collect the record: see `kansciml.experiments.ode.record` for its layout.

    Raises:
        UsageError: a file that gives another system each time it is read.
        KansciError: a worker process died.
        KeyboardInterrupt: after every job wrote its state.
    """
    jobs = plan.jobs
    for note in plan.notes:
        context.log(note)
    for source, system in plan.systems.items():
        if source.is_code:
            read_again(source, fingerprint(system))
    runs = {}
    with context.progress.task("training", sum(job.steps for job in jobs)) as bar:
        board = _Board(bar, context.log, jobs)
        for name, run in _run_all(plan, context, board):
            runs[name] = run
            context.metrics(run_json(run))
            board.finish(name)
    shown = jobs[0].shown
    return ode_result([describe(system, shown) for system in plan.systems.values()], [runs[job.id] for job in jobs])


class _Board:
    """Adds up the progress of all jobs into one bar."""

    def __init__(self, bar: Task, log: Callable[[str], None], jobs: Sequence[Job]) -> None:
        self.bar, self.log, self.n_done = bar, log, 0
        self.steps, self.done = {job.id: job.steps for job in jobs}, dict.fromkeys((job.id for job in jobs), 0)

    def tell(self, job_id: str, message: str | Steps) -> None:
        """Take what a job has to say: a line for the user, or where it is."""
        if isinstance(message, str):
            self.log(f"{job_id}: {message}")
        else:
            self.done[job_id], loss, phase = message
            self._update(loss=loss, now=f"{job_id} {phase}")

    def finish(self, job_id: str) -> None:
        self.n_done += 1
        self.done[job_id] = self.steps[job_id]
        self._update()

    def _update(self, **values: Any) -> None:
        self.bar.update(completed=sum(self.done.values()), **values, runs=f"{self.n_done}/{len(self.steps)}")


@dataclass(frozen=True)
class _Asked:
    """A job for a worker, with the fingerprint of its system, which is read there: equations cannot be sent."""

    job: Job
    digest: str
    checkpoint: Path


def _run_all(plan: Plan, context: RunContext, board: _Board) -> Iterator[tuple[str, Run]]:
    digests = {source: fingerprint(system) for source, system in plan.systems.items()}

    def alone(asked: _Asked) -> Run:
        job, report = asked.job, functools.partial(board.tell, asked.job.id)
        backend = shared_backend(job.backend, job.method, context.log)
        return run_job(job, plan.systems[job.system], backend, asked.checkpoint, report)

    asked = {job.id: _Asked(job, digests[job.system], context.checkpoints / f"{job.id}.npz") for job in plan.jobs}
    return each(_work, asked, told=lambda one: board.tell(*one), cost=lambda one: one.job.cost, alone=alone)


def _work(asked: _Asked) -> Run:
    """In a worker: `run_job`."""
    job, last = asked.job, 0.0

    def report(message: str | Steps) -> None:
        nonlocal last
        check_stop()
        if isinstance(message, str) or time.monotonic() - last > REPORT_EVERY_S:
            last = time.monotonic()
            tell((job.id, message))

    backend = shared_backend(job.backend, job.method, report)
    return run_job(job, read_once(job.system, asked.digest), backend, asked.checkpoint, report)


def run_job(
    job: Job, system: System, backend: OdeBackend, checkpoint: Path, report: Callable[[str | Steps], None]
) -> Run:
    """Train, re-evaluate, keep the model, and put the rest into the record's form."""
    config = job.config
    run = train(
        system,
        job.spec,
        seed=job.seed,
        backend=backend,
        training=config.training,
        rtol=config.rtol,
        atol=config.atol,
        ladder=config.ladder,
        max_steps=config.max_steps,
        solver=config.solver,
        **vars(config.fit),
        checkpoint=checkpoint,
        progress=lambda done, total, loss, phase: report((done, loss, phase)),
        log=report,
    )
    run.save(model_folder(checkpoint.parents[1], job.id))
    history = shortened(run.fit.history)
    arrays = {name: values for name, values in history.items() if name not in ("seconds", "work")}
    arrays["flops"] = history["work"] * training_flops(job.spec)
    arrays |= {"params": run.params, "trajectory": run.states}
    arrays |= {numbered("line", place): _line(run, k) for place, (k, _) in enumerate(roles(system, job.shown))}
    if (states := plane(system)) is not None:
        arrays["slopes"] = run(states)
    return Run(
        id=job.id,
        system=system.name,
        model=job.spec.model,
        variant=job.variant,
        group=job.group,
        label=job.spec.label(),
        n_parameters=run.field.n_parameters,
        seed=job.seed,
        backend=run.backend,
        method=run.method,
        status=run.fit.status,
        message=run.fit.message,
        final_loss=run.fit.loss,
        **run.metrics,
        not_computed=run.metrics.missing,
        evaluations=run.fit.evaluations,
        ended=run.fit.ended,
        rung=int(run.fit.history["rung"].max(initial=0)),
        estimates=run.estimates,
        wall_s=run.fit.wall_s,
        cpu_s=run.fit.cpu_s,
        arrays={f"{job.id}.{name}": array for name, array in arrays.items()},
    )


def shortened(history: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The history of a training, of a long one `ROWS` at most, evenly in log, and those where phase and rung change."""
    count = len(history["iteration"])
    if count <= ROWS:
        return history
    changes = np.flatnonzero(np.diff(history["rung"]) | np.diff(history["phase"]))
    kept = np.unique(np.concatenate([np.geomspace(1, count, ROWS).astype(int) - 1, changes, changes + 1]))
    return {name: values[kept] for name, values in history.items()}


def roles(system: System, shown: Collection[str] = tuple(ROLES)) -> list[tuple[int, str]]:
    """Index and role of each trajectory, those that are trained on first; without data, of the one from `u0`.
    `shown`: which roles."""
    kinds = {"train": system.training or (0,), "validation": system.validation, "unseen": system.unseen}
    return [(k, role) for role, own in kinds.items() if role in shown for k in own]


def line_times(system: System, k: int) -> np.ndarray:
    """Times of the curves of a trajectory: dense, and with those at which it is known."""
    if system.rhs is None:
        known = system.trajectories[k].t
    else:
        begin = system.trajectories[k].t[0] if system.trajectories else system.t0
        known = system.test_saveat[system.test_saveat >= begin]
    if system.log_time:
        return np.union1d(known, np.geomspace(known[known > 0][0], known[-1], LINE))
    return np.union1d(known, np.linspace(known[0], known[-1], LINE))


def plane(system: System) -> np.ndarray | None:
    """States (G, G, 2) around the data of an autonomous system of two components, where its field can be shown."""
    if system.state_size != 2 or system.input_size or system.time_dependent:
        return None
    states = np.concatenate([one.states for one in training_trajectories(system)])
    low, high = np.nanmin(states, axis=0), np.nanmax(states, axis=0)
    margin = np.where(high > low, 0.1 * (high - low), np.abs(high) + 1.0)
    return np.stack(np.meshgrid(*(np.linspace(*ends, PLANE) for ends in zip(low - margin, high + margin))), axis=-1)


def _line(run: OdeRun, k: int) -> np.ndarray:
    """States of a trajectory at `line_times`, NaN where they cannot be computed."""
    times = line_times(run.system, k)
    states = np.full((len(times), run.system.state_size), np.nan)
    for known in (np.full(len(times), True), times <= run.system.end_of(k)):  # it may blow up beyond its training data
        with suppress(SolveError, UsageError):
            states[known] = run.predicted(k, times[known])
            break
    return states


def _truth(system: System, times: np.ndarray, k: int) -> np.ndarray | None:
    if system.rhs is not None:
        with suppress(SolveError):  # it may blow up beyond the training data
            return solved(system, times, k).states
    return None


def describe(system: System, shown: Collection[str]) -> OdeSystem:
    """A system as the record holds it, with its trajectories of these roles."""
    states, first = plane(system), roles(system)[0][0]
    return OdeSystem(
        **attributes(system, "title labels train_end test_end phase_plane name log_time time_label"),
        n=system.state_size,
        loss_scale=tuple(np.asarray(system.loss_scale).tolist()),
        series=tuple(_series(system, k, role) for k, role in roles(system, shown)),
        t=system.test_saveat,
        truth=_truth(system, system.test_saveat, first),
        plane=states,
        slopes=None if states is None or system.rhs is None else np.asarray(system.rhs(system.t0, states)),
    )


def _series(system: System, k: int, role: str) -> OdeSeries:
    """One trajectory as the record holds it, with those of its data that are trained on, or all where these are all."""
    times = line_times(system, k)
    data = system.trajectories[k] if system.trajectories else training_data(system)
    data = data.until(system.end_of(k)) if system.rhs is not None and role == "train" else data
    used, truth = data.used().states, _truth(system, times, k)
    unused = None if data.used() is data else np.where(np.isnan(used), data.states, np.nan)
    return OdeSeries(system.end_of(k), data.name, role, times, truth, data.t, used, unused)
