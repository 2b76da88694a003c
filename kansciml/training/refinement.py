"""Trains on a coarse grid, refines the grid without changing the function, and trains on.

`train_refined` does so with an optimiser of PyTorch, `fit_flat` with Adam and L-BFGS of `kansciml.training.flat`, on
one grid or several, and keeps what a comparison at equal cost needs: errors against evaluations and processor time.

Source: Liu et al. (2024), section 2.4."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import SolveError
from kansciml.training.flat import FlatTraining, train_flat


@dataclass(frozen=True)
class Stage:
    """Result of training on one grid.

    Args:
        grid: number of grid intervals.
        parameters: number of learnable parameters.
        refit_error: largest change of an edge's splines by the refinement before this stage (0 for the first).
        start, end: loss before and after the stage.
    """

    grid: int
    parameters: int
    refit_error: float
    start: float
    end: float


def train_refined(
    network: nn.Module,
    loss: Callable[[], Tensor],
    grids: Sequence[int],
    steps: int = 100,
    optimiser: Callable[..., torch.optim.Optimizer] | None = None,
    x: Tensor | None = None,
    report: Callable[[Stage], None] = lambda stage: None,
) -> list[Stage]:
    """Train `network` on each of `grids` in turn.

    Args:
        network: has ``extend_grid(grid, x)``, as `kansciml.KAN` and `kansciml.SplineKAN` do.
        loss: computes the loss of the network as it is now, a scalar tensor.
        grids: increasing numbers of intervals; the first may be the network's own. Multiples are refined exactly.
        steps: optimiser steps per grid, at least 1.
        optimiser: makes an optimiser from parameters, anew for each grid because their shapes are (default: L-BFGS
            with a strong Wolfe line search). The parameters stay the same ones; frozen ones stay frozen.
        x: inputs over which a refinement is fitted; None: points spread over each grid.
        report: called with each finished stage.

    Returns:
        One `Stage` per grid.

    Raises:
        ValueError: a network without ``extend_grid``, or of RSWAF layers, no grids, grids that do not increase, steps
            below 1, a loss that is not finite, or what `SplineKAN.extend_grid` refuses.
    """
    extend_grid: Any = getattr(network, "extend_grid", None)
    if extend_grid is None:
        raise ValueError(f"got a {type(network).__name__} without extend_grid: expected a KAN or SplineKAN of kansciml")
    if not grids or any(b <= a for a, b in zip(grids[:-1], grids[1:])):
        raise ValueError(f"got grids {tuple(grids)}: expected increasing numbers of intervals, such as 5, 10, 20")
    if steps < 1:
        raise ValueError(f"got steps {steps}: expected at least 1")
    stages: list[Stage] = []
    for grid in grids:
        errors = extend_grid(grid, x)
        errors = errors if isinstance(errors, list) else [errors]
        rule = optimiser(network.parameters()) if optimiser else _lbfgs(network.parameters(), steps)

        def closure() -> float:
            rule.zero_grad()  # noqa: B023 (called within this stage alone)
            value = loss()
            value.backward()
            if not bool(torch.isfinite(value)):
                raise ValueError(f"got loss {float(value.detach())} on grid {grid}: expected a finite one")  # noqa: B023
            return float(value.detach())

        start = float(loss().detach())
        for _ in range(steps if optimiser else 1):
            rule.step(closure)
        size = sum(parameter.numel() for parameter in network.parameters())
        change = max(error.max_abs for error in errors) if stages else 0.0
        stages.append(Stage(grid, size, change, start, float(loss().detach())))
        report(stages[-1])
    return stages


def _lbfgs(parameters: Iterable[nn.Parameter], steps: int) -> torch.optim.Optimizer:
    """L-BFGS that makes all its steps in one call, which keeps its history, and stops only where nothing is left."""
    return torch.optim.LBFGS(
        parameters, max_iter=steps, max_eval=25 * steps, tolerance_grad=1e-12, tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )  # fmt: skip


DENSE, GROWTH = 10, 1.15
"""Iterations after each of which `fit_flat` watches a training, and the factor between two watches from then on."""


@dataclass(frozen=True)
class Curve:
    """What was watched of a training after some of its iterations, each (K,).

    Args:
        iterations, evaluations: of the loss and its gradient, until then. seconds: of the processor, watching apart.
        grid: grid intervals then; 0 without grids. losses: of the network as it was. watched: what `watch` gave.
    """

    iterations: np.ndarray
    evaluations: np.ndarray
    seconds: np.ndarray
    grid: np.ndarray
    losses: np.ndarray
    watched: np.ndarray


@dataclass(frozen=True)
class FlatFit:
    """Outcome of `fit_flat`: loss, status and how it ended as in `FlatResult`, and the `Curve` up to there."""

    loss: float
    status: str
    ended: str
    curve: Curve


def fit_flat(
    network: nn.Module,
    loss: Callable[[], Tensor],
    settings: FlatTraining,
    grids: Sequence[int] = (),
    watch: Callable[[], float] = lambda: 0.0,
) -> FlatFit:
    """Train `network` by Adam, then L-BFGS, and leave it with the parameters of the lowest loss.

    Args:
        network: with `grids`, it has ``extend_grid(grid)``, as `kansciml.KAN` does.
        loss: computes the loss of the network as it is now, a scalar tensor.
        settings: with `grids`, they are `shared_out` among them.
        grids: increasing numbers of intervals to train on in turn; the first may be the network's own.
        watch: an error of the network as it is now, on data that it is not trained on.
    """
    rows: list[tuple[float, ...]] = []
    counts = {"iterations": 0, "evaluations": 0}
    watching = 0.0
    began, due = time.process_time(), 0.0
    result = None
    for grid, own in zip(grids or (0,), shared_out(settings, len(grids or (0,)))):
        if grid:
            extend: Any = network.extend_grid
            extend(grid)
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        last = float("nan")

        def value_and_grad(flat: np.ndarray, subset: Any) -> tuple[float, np.ndarray]:
            nonlocal last
            _load(parameters, flat)  # noqa: B023 (called within this stage alone)
            value = loss()
            if not bool(torch.isfinite(value)):
                raise SolveError("the loss is not finite")
            slopes = torch.autograd.grad(value, parameters)  # noqa: B023
            counts["evaluations"] += 1
            last = float(value.detach())
            return last, torch.cat([slope.reshape(-1) for slope in slopes]).double().numpy()

        def look() -> None:
            nonlocal watching, due
            now = time.process_time()
            rows.append((*counts.values(), now - began - watching, grid, last, watch()))  # noqa: B023
            due = max(due + DENSE, GROWTH * counts["iterations"])
            watching += time.process_time() - now

        def progress(*_: object) -> None:
            counts["iterations"] += 1
            if counts["iterations"] >= due:
                look()

        first = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]).double().numpy()
        result = train_flat(value_and_grad, first, own, progress=progress)
        _load(parameters, result.params)
        last = result.loss
        look()
    assert result is not None
    return FlatFit(result.loss, result.status, result.ended, Curve(*np.array(rows, dtype=np.float64).T))


def shared_out(settings: FlatTraining, stages: int) -> list[FlatTraining]:
    """Settings of each of several stages of a training.

    Adam trains in the first one, and each takes an equal part of the L-BFGS iterations; or of Adam's, with an annealing
    of its own, where there are none of L-BFGS.
    """
    if not settings.lbfgs_steps:
        return [replace(settings, adam_steps=settings.adam_steps // stages)] * stages
    first = replace(settings, lbfgs_steps=settings.lbfgs_steps // stages)
    return [first] + [replace(first, adam_steps=0)] * (stages - 1)


@torch.no_grad()
def _load(parameters: Sequence[nn.Parameter], flat: np.ndarray) -> None:
    for parameter, part in zip(parameters, torch.from_numpy(flat).split([p.numel() for p in parameters])):
        parameter.copy_(part.view_as(parameter))
