"""Trains on a coarse grid, refines the grid without changing the function, and trains on.

Source: Liu et al. (2024), section 2.4."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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
