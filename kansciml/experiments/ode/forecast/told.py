"""What a run says before it begins: what is trained, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from kansciml._errors import SolveError
from kansciml._workers import worker_count
from kansciml.backends.torch import DEFAULT_GRADIENT, TorchOdeSolver
from kansciml.experiments.ode.forecast.steps import step_seconds, training_seconds, wall_seconds
from kansciml.experiments.ode.jobs import Job, Plan
from kansciml.runs.experiment import RunContext
from kansciml.runs.progress import duration
from kansciml.tasks.ode.fitting.windows import in_windows
from kansciml.tasks.ode.system import System


def forecast(plan: Plan, context: RunContext) -> Iterator[str]:
    """What is about to be trained, and how long that takes: the steps of each model are timed, a few of each.

    No time is told on Julia, where the first evaluation compiles, nor where a loss does not exist at first.
    """
    jobs, settings = plan.jobs, plan.jobs[0].config.training
    workers = min(worker_count(), len(jobs))
    steps = f"{settings.adam_steps} steps of Adam, then at most {settings.lbfgs_steps} of L-BFGS"
    models, backends, names = (
        dict.fromkeys(own)
        for own in (
            (job.spec.label() for job in jobs),
            (job.backend for job in jobs),
            (one.name for one in plan.systems.values()),
        )
    )
    count = f"{len(jobs)} training{'s' * (len(jobs) != 1)}"
    yield f"plan: {count} on {', '.join(names)} by {' and '.join(backends)}, {workers} at a time; {steps}"
    yield f"models: {', '.join(models)}"
    begun = sum((context.checkpoints / f"{job.id}.npz").exists() for job in jobs)
    if begun:
        yield f"{begun} of these trainings were begun or done before, and go on from there"
    elif set(backends) == {"torch"}:
        kinds = {(job.system, job.spec): job for job in jobs}
        with suppress(SolveError), torch.random.fork_rng(devices=()):  # making networks draws from it
            costs = {key: _step_seconds(job, plan.systems[job.system]) for key, job in kinds.items()}
            seconds = [training_seconds(costs[job.system, job.spec], job.config.training) for job in jobs]
            start = time.process_time() * (workers > 1)  # a worker loads what this process did
            low, high = (f"{1e3 * pick(own[0] for own in costs.values()):.2g}" for pick in (min, max))
            step = f"a step takes {low}{f' to {high}' * (high != low)} ms here and now"
            about = duration(max(1.0, start + wall_seconds(seconds, workers)))
            yield f"time: about {about} of training, less where it ends early ({step})"


def _step_seconds(job: Job, system: System) -> list[float]:
    """Seconds of a step of a job's optimiser at each tolerance that it goes to."""
    problem, settings = job.problem(system), job.config.training
    problem = in_windows(problem, job.config.fit.shooting) if job.config.fit.shooting else problem
    initial, found = problem.initial_parameters(job.seed), []
    for factor in (1.0, *job.config.ladder):
        own = replace(problem, rtol=problem.rtol * factor, atol=problem.atol * factor)
        solver = TorchOdeSolver(own, job.method or DEFAULT_GRADIENT)
        found.append(step_seconds(solver.value_and_grad, initial, settings))
    return found
