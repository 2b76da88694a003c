"""What a run on two backends is held to: the gates between them, on every field that it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from kansciml import crosscheck
from kansciml.backends.torch import DEFAULT_GRADIENT, TorchOdeSolver
from kansciml.experiments.ode.backends import shared_backend
from kansciml.experiments.ode.forecast.told import forecast
from kansciml.experiments.ode.jobs import Plan
from kansciml.experiments.ode.runs import run_jobs
from kansciml.runs.experiment import Result, RunContext


def run_on_backends(plan: Plan, context: RunContext) -> Result:
    """As `run_jobs`, after lines on what is trained and how long that takes; on two backends the record also has the
    gates between them."""
    for line in forecast(plan, context):
        context.log(line)
    found = run_jobs(plan, context)
    if {job.backend for job in plan.jobs} == {"torch", "julia"}:
        found.result["gates"] = list(backend_gates(plan, context))
    return found


def backend_gates(plan: Plan, context: RunContext) -> Iterator[dict[str, Any]]:
    """The six gates between torch and Julia on every variant of every system; one row each."""
    jobs = {(job.system, job.variant): job for job in plan.jobs if job.backend == "torch"}.values()
    tolerance = crosscheck.TOLERANCE
    with context.progress.task("cross-check", len(jobs)) as bar:
        for job in jobs:
            own, system = job.config, plan.systems[job.system]
            problem = replace(job, config=replace(own, rtol=tolerance, atol=tolerance)).problem(system)
            on_julia = shared_backend("julia", own.sensealg, context.log).solver(problem)
            solvers = TorchOdeSolver(problem, own.gradient or DEFAULT_GRADIENT), on_julia
            params = problem.initial_parameters(0)
            allowed = crosscheck.training_allowed(problem, params, own.training)
            for gate in crosscheck.compare(*solvers, system.name, params, own.training, allowed):
                yield {**asdict(gate), "passed": gate.passed}
            on_julia.close()
            bar.update(advance=1)
