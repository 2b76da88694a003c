"""Losses of trainings against what they cost: best so far, over seeds, and where the curves of two models cross.

The best loss so far is that at the tolerance of the moment: on a ladder it starts anew at each, as a loss at a loose
tolerance can be too low by noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import OdeGroup, Run

COSTS = {"evaluations": "evaluations", "cpu_s": "processor seconds", "flops": "FLOPs"}
"""Array of a run, and what it counts: of loss and gradient, of all its processes, of the network for the solver."""
POINTS = 300
FIRST = 0.01
"""Share of the cost of the cheaper of two trainings from which it is told who leads."""
LEAD = 1.1
"""Factor between two medians from which the lower one leads: below it they are alike."""


@dataclass(frozen=True)
class Pair:
    """An MLP and a KAN that are compared on a system."""

    system: OdeSystem
    mlp: OdeGroup
    kan: OdeGroup

    @property
    def sides(self) -> tuple[OdeGroup, OdeGroup]:
        return self.mlp, self.kan

    def known(self, cost: str) -> bool:
        """Whether the record knows what all of its runs cost."""
        runs = [run for side in self.sides for run in side.rows]
        return all(len(run.array(cost)) and np.isfinite(run.array(cost)).all() for run in runs)


def pairs(ode: OdeRecord, variants: Sequence[str] = ("kan-width", "kan-params", "kan-flops")) -> list[Pair]:
    """Each KAN of these variants beside the MLP of its system and backend."""
    found = []
    for system in ode.systems:
        mlps = {group.first.backend: group for group in system.groups if group.variant == "mlp"}
        for group in system.groups:
            if group.variant in variants and group.first.backend in mlps:
                found.append(Pair(system, mlps[group.first.backend], group))
    return found


def best_so_far(run: Run) -> Float64[np.ndarray, " K"]:
    """The lowest loss up to each iteration among those at its tolerance."""
    loss, rung = np.array(run.array("loss"), dtype=np.float64), run.array("rung")
    loss[~(loss > 0)] = np.inf  # NaN
    for one in np.unique(rung):
        loss[rung == one] = np.minimum.accumulate(loss[rung == one])
    return loss


def at_cost(run: Run, cost: str, spent: Float64[np.ndarray, " M"]) -> Float64[np.ndarray, " M"]:
    """Best loss for so much spent: infinite before the first one, and after its end if the run diverged."""
    own = run.array(cost)
    found = np.append(best_so_far(run), np.inf)[np.searchsorted(own, spent, side="right") - 1]
    return np.where((spent > own[-1]) & run.diverged, np.inf, found)


def final_cost(run: Run, cost: str) -> float:
    """What the whole training cost."""
    return float(run.array(cost)[-1])


def grid(groups: Sequence[OdeGroup], cost: str) -> Float64[np.ndarray, " M"]:
    """Costs, evenly spaced on a logarithmic scale, from the first at which all runs have a loss to the largest."""
    runs = [run for group in groups for run in group.rows]
    first = max(run.array(cost)[0] for run in runs)
    return np.geomspace(first, max(final_cost(run, cost) for run in runs), POINTS)


def quartiles(group: OdeGroup, cost: str, spent: Float64[np.ndarray, " M"]) -> Float64[np.ndarray, "3 M"]:
    """Lower quartile, median and upper quartile over the seeds of the best loss."""
    losses = np.array([at_cost(run, cost, spent) for run in group.rows])
    with np.errstate(invalid="ignore"):  # between two infinite ones
        found = np.quantile(losses, (0.25, 0.5, 0.75), axis=0)
    return np.where(np.isnan(found), np.inf, found)


@dataclass(frozen=True)
class Lead:
    """Which of two models has the lower median from a cost on: ``"MLP"``, ``"KAN"``, or ``""`` where they are alike."""

    begin: float
    model: str


def leads(pair: Pair, cost: str) -> list[Lead]:
    """Who leads from which cost on. A lead below `LEAD` changes nothing; a new one begins where the curves cross."""
    whole = grid(pair.sides, cost)
    spent = whole[whole >= FIRST * cheaper(pair, cost)]
    mlp, kan = (quartiles(side, cost, spent)[1] for side in pair.sides)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isinf(mlp) & np.isinf(kan), 1.0, kan / mlp)
    found: list[Lead] = []
    crossed = spent[0]
    for at, one, before in zip(spent, ratio, [1.0, *ratio]):
        if (one < 1) != (before < 1):
            crossed = at
        model = "KAN" if one < 1 / LEAD else "MLP" if one > LEAD else ""
        if model and (not found or model != found[-1].model):
            found.append(Lead(float(crossed), model))
    return found or [Lead(float(spent[0]), "")]


def cheaper(pair: Pair, cost: str) -> float:
    """What the cheaper of the two trainings costs in all, by medians over seeds."""
    return min(float(np.median([final_cost(run, cost) for run in side.rows])) for side in pair.sides)


def ratio_at(pair: Pair, cost: str, share: float) -> float:
    """Median loss of the KAN over the MLP's at a share of what the cheaper of the two costs in all, by medians."""
    mlp, kan = (quartiles(side, cost, np.array([share * cheaper(pair, cost)]))[1, 0] for side in pair.sides)
    return float(kan / mlp) if math.isfinite(kan) and math.isfinite(mlp) else math.nan


def paired_at_equal(pair: Pair, cost: str) -> tuple[dict[int, float], dict[int, float]]:
    """Losses of MLP and KAN by seed, both for the cost at which the first of the two was done."""
    mlps, kans = ({run.seed: run for run in side.rows} for side in pair.sides)
    found: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for seed in sorted(mlps.keys() & kans.keys()):
        runs = mlps[seed], kans[seed]
        spent = np.array([min(final_cost(run, cost) for run in runs)])
        for losses, run in zip(found, runs):
            losses[seed] = math.inf if run.diverged else float(at_cost(run, cost, spent)[0])
    return found
