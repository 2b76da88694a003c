"""Trainings on functions: which network, of which size, on which function; and what one of them gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import torch

from kansciml._errors import UsageError
from kansciml.analysis.regressor_sizes import regressor_size, widest
from kansciml.experiments.functions.record import Run, TargetRow, curve_of, functions_result
from kansciml.models.regressors.regressor import Regressor
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.pool import run_kept
from kansciml.runs.typed import attributes, write
from kansciml.tasks.functions.registry import get_target
from kansciml.tasks.functions.target import samples
from kansciml.training.flat import FlatTraining
from kansciml.training.refinement import fit_flat

PASSES = 3
"""Operations of a loss with its gradient, in those of the loss alone: a backward pass takes about two forward ones."""


@dataclass(frozen=True)
class Networks:
    """Settings of the networks that are compared."""

    activation: str = "tanh"
    """Activation of the MLPs: tanh, silu, gelu, relu or sigmoid."""
    hidden_layers: int = 2
    """Hidden layers of the MLPs, also of those with B-spline activations."""
    kan_hidden_layers: int = 1
    """Hidden layers of the KANs."""
    grid: int = 5
    """Grid intervals G of the splines."""
    spline_order: int = 3
    """Order S of the splines."""
    grids: tuple[int, ...] = (3, 5, 10)
    """Grids of the KAN that is refined, each for an equal part of the L-BFGS iterations."""

    def __post_init__(self) -> None:
        for name in ("hidden_layers", "kan_hidden_layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}: expected at least 1")

    def regressor(self, variant: str, inputs: int, limit: float, by: str) -> Regressor:
        """The widest network of a variant within a limit, as it begins.

        Args:
            by: ``params``, of a network that is refined on its last grid; or ``flops``, there the mean over its grids.

        Raises:
            UsageError: there is none.
        """
        refined = variant == "kan-refined"
        model, own = ("kan", self.grids) if refined else (variant, (self.grid,))
        counted = own[-1:] if by == "params" else own
        layers = self.kan_hidden_layers if model == "kan" else self.hidden_layers

        def size(widths: tuple[int, ...]) -> float:
            return fmean(regressor_size(model, widths, by, grid, self.spline_order) for grid in counted)

        widths = widest(inputs, layers, size, limit, "parameters" if by == "params" else "FLOPs")
        return Regressor(model, widths, self.activation, own[0], self.spline_order)


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        target: name of the function. noise: see `samples`. n_train, n_test: points.
        variant: of the network. match: what it is as large as the others in. regressor: the network as it begins.
        grids: that it is trained on in turn; none: its own.
        seed: of the points and of the first weights.
    """

    target: str
    noise: float
    variant: str
    match: str
    regressor: Regressor
    seed: int
    training: FlatTraining
    grids: tuple[int, ...] = ()
    n_train: int = 1000
    n_test: int = 1000

    @property
    def id(self) -> str:
        return f"{self.target}.{self.noise:g}.{self.variant}.{self.match}.{self.seed}"

    @property
    def last(self) -> Regressor:
        """The network as it ends."""
        return replace(self.regressor, grid=self.grids[-1]) if self.grids else self.regressor

    def size(self, by: str, grid: int = 0) -> float:
        """Parameters, or FLOPs of one evaluation at one point, on the last grid or another."""
        one = self.last
        return regressor_size(one.model, one.widths, by, grid or one.grid, one.spline_order)

    @property
    def flops(self) -> float:
        """FLOPs of one evaluation at one point; the mean over its grids where it is refined."""
        return fmean(self.size("flops", grid) for grid in self.grids or (0,))


def train_job(job: Job) -> dict[str, Any]:
    """Train one network: a `Run` in JSON types. Called in a process with one thread."""
    train, test = samples(get_target(job.target), job.n_train, job.n_test, job.noise, job.seed)
    (x, y), (fresh_x, fresh_y) = (
        (torch.from_numpy(one.x), torch.from_numpy(one.y).unsqueeze(1)) for one in (train, test)
    )
    network = job.regressor.build(job.seed)

    @torch.no_grad()
    def error() -> float:
        return float((network(fresh_x) - fresh_y).square().mean().sqrt())

    fit = fit_flat(network, lambda: (network(x) - y).square().mean(), job.training, job.grids, error)
    curve = fit.curve
    each = np.array([job.size("flops", int(grid)) for grid in curve.grid])
    flops = np.cumsum(np.diff(curve.evaluations, prepend=0.0) * each) * PASSES * job.n_train
    run = Run(
        **attributes(job, "id target noise variant match seed"),
        label=job.last.label,
        n_parameters=int(job.size("params")),
        flops=job.flops,
        error=float(curve.watched[-1]) if fit.status == "finished" else float("inf"),
        status=fit.status,
        ended=fit.ended,
        iterations=int(curve.iterations[-1]),
        curve=curve_of((curve.evaluations, curve.seconds, flops, np.sqrt(curve.losses), curve.watched)),
    )  # fmt: skip
    return write(run)


def run_all(jobs: Sequence[Job], context: RunContext) -> Result:
    """Train all, or the rest of them, and collect the record."""
    found = run_kept(train_job, {job.id: job for job in jobs}, context)
    targets = [target_row(name) for name in dict.fromkeys(job.target for job in jobs)]
    return functions_result(targets, list(found.values()))


def target_row(name: str) -> TargetRow:
    """A function as the record has it."""
    return TargetRow(**attributes(get_target(name), "name kind formula inputs"))
