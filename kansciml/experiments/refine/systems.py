"""Trainings of neural ODEs for the study of refinement, as rows like those of trainings on functions."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kansciml.analysis.matching import pass_flops
from kansciml.backends.torch import TorchOdeSolver
from kansciml.experiments.functions.record import Run, TargetRow, curve_of
from kansciml.models.field_spec import FieldSpec
from kansciml.models.fields import refined_field
from kansciml.runs.typed import attributes, write
from kansciml.tasks.ode.problem import make_problem
from kansciml.tasks.ode.registry import get_system
from kansciml.training.flat import FlatTraining, train_flat
from kansciml.training.refinement import shared_out

TOLERANCE = 1e-8
"""Of the solver, relative and absolute."""
ROWS = 40
"""Iterations of a training that the record has."""


@dataclass(frozen=True)
class SystemJob:
    """One training of a neural ODE, as `kansciml.experiments.functions.jobs.Job` is one on a function.

    Args:
        match: the optimiser. field: as it begins. grids: that it is trained on in turn; none: its own.
    """

    target: str
    variant: str
    match: str
    field: FieldSpec
    seed: int
    training: FlatTraining
    grids: tuple[int, ...] = ()
    noise: float = 0.0

    @property
    def id(self) -> str:
        return f"{self.target}.{self.noise:g}.{self.variant}.{self.match}.{self.seed}"


def described(name: str) -> TargetRow:
    """A system as the record has it among the functions."""
    system = get_system(name)
    return TargetRow(name, "system", f"{system.title}, learned by a neural ODE", system.state_size)


def train_system(job: SystemJob) -> dict[str, Any]:
    """Train one neural ODE on torch: a `Run` in JSON types; its error is that of the data that it is trained on."""
    system, spec = get_system(job.target), job.field
    params = make_problem(system, spec, TOLERANCE, TOLERANCE).initial_parameters(job.seed)
    stages = shared_out(job.training, len(job.grids or (0,)))
    rows: list[np.ndarray] = []
    spent = np.zeros(3)  # evaluations, seconds, FLOPs before this stage
    for stage, (grid, settings) in enumerate(zip(job.grids or (spec.grid,), stages)):
        if stage:
            spec, params = refined_field(spec, params, grid)
        solver = TorchOdeSolver(make_problem(system, spec, TOLERANCE, TOLERANCE))
        each = sum(pass_flops(spec.model, spec.widths, spec.grid, spec.spline_order))
        began = time.process_time()
        result = train_flat(solver.value_and_grad, params, settings, work=partial(getattr, solver, "evaluations"))
        params, own = result.params, result.history
        losses = np.minimum.accumulate(own["loss"])
        counts = np.stack([own["evaluations"], own["cpu_s"], each * own["work"]], axis=1) + spent
        rows.append(np.column_stack([counts, losses, losses]))
        spent = spent + np.array([result.evaluations, time.process_time() - began, each * own["work"][-1]])
    table = np.concatenate(rows)
    table[:, 3:] = np.sqrt(np.minimum.accumulate(table[:, 3:], axis=0))
    kept = np.unique(np.round(np.geomspace(1, len(table), ROWS)).astype(int)) - 1
    run = Run(
        **attributes(job, "id target noise variant match seed"),
        label=spec.label(),
        n_parameters=spec.n_parameters,
        flops=pass_flops(spec.model, spec.widths, spec.grid, spec.spline_order)[0],
        error=float(table[-1, 4]) if result.status == "finished" else float("inf"),
        status=result.status,
        ended=result.ended,
        iterations=len(table),
        curve=curve_of(table[kept].T),
    )
    return write(run)
