"""KANs against MLPs on neural ODEs: where trainings end, at equal cost, and beyond the training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kansciml.experiments.ode.anytime.curves import COSTS as CUT
from kansciml.experiments.ode.anytime.tables import SPANS, cost_claims, span_claims
from kansciml.experiments.ode.record import OdeRecord, OdeSystem
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.experiments.ode.tables import claims
from kansciml.reporting.claims import Claim
from kansciml.runs.findings import ELSEWHERE, ERROR, KanOverMlp
from kansciml.runs.records import Record

KIND = "neural ODEs"
LOSS = "training loss"
IN_JULIA = "with Julia's seconds"
"""A comparison of its own: how many steps of an MLP one of a KAN costs differs between torch and Julia."""
HELD = {"kan-params": "params", "kan-width": "width", "kan-flops": "flops"}
"""Variant -> what it has as much of as the MLP."""
COSTS = {"evaluations": "evaluations", "cpu_s": "time", "flops": "flops"}
"""Cost of a training -> what is equal of a KAN and an MLP with as many parameters, the dearer of which is cut short."""


def comparisons(record: Record, shares: Mapping[str, float] | None = None) -> list[KanOverMlp]:
    """Losses at the end and at equal cost, and errors at later times and unseen initial states.

    Of noisy data the errors from the true states on the training span alone, where errors at unseen states were
    measured too: a lower loss may be fitted noise.

    Args:
        shares: of the most iterations of L-BFGS, by the names of systems that have fewer.

    Raises:
        KansciError: the record holds no finished run of a neural ODE.
    """
    shares = shares or {}
    ode = OdeRecord.read(record)
    noise = record.config.get("noise", 0.0)
    training = record.config.get("training", {})

    def made(
        claim: Claim[OdeGroup], system: OdeSystem, equal: str, measure: str, about: str, cut: str = ""
    ) -> KanOverMlp:
        kan, mlp = claim.group, claim.reference
        steps = {"L-BFGS": round(shares.get(system.name, 1.0) * training.get("lbfgs_steps", 0))}
        steps["Adam"] = training.get("adam_steps", 0)
        return KanOverMlp(
            kind=KIND,
            task=system.title,  # of two backends either stands for it
            measure=measure,
            equal=equal,
            outcome=claim.outcome,
            about=about,
            parameters=(kan.n_parameters, mlp.n_parameters),
            ended=None if cut else _ended(kan, mlp),
            budget=" after ".join(f"{count:,} iterations of {name}" for name, count in steps.items() if count),
            steps=sum(steps.values()),
            cut=cut,
        )

    if noise:
        own = [(pair, claim) for pair, span, claim in span_claims(ode) if span == "train"]
        measure = f"with {100 * noise:g} % noise"
        return [made(claim, pair.system, HELD[pair.kan.variant], measure, ELSEWHERE) for pair, claim in own]
    found = []
    for one in claims(ode):
        if one.name == "lower" and one.group.variant in HELD:
            found.append(made(one, one.system, HELD[one.group.variant], LOSS, ERROR))
    for pair, cost, claim in cost_claims(ode):
        if pair.kan.variant == "kan-params":
            julia = cost == "cpu_s" and pair.kan.first.backend == "julia"
            cut = CUT[cost] + f" with {pair.kan.first.backend}" * (cost == "cpu_s")
            measure, about = (IN_JULIA, ELSEWHERE) if julia else (LOSS, ERROR)
            found.append(made(claim, pair.system, COSTS[cost], measure, about, cut))
    for pair, span, claim in span_claims(ode):
        if span != "train":
            found.append(made(claim, pair.system, HELD[pair.kan.variant], SPANS[span], ELSEWHERE))
    return found


def _ended(*sides: OdeGroup) -> Any:
    """Share of each side's trainings that ended, if the record knows."""
    counts = [(side.converged, side.at_floor, len(side.rows)) for side in sides]
    known = [(converged + floor) / n for converged, floor, n in counts if converged is not None]
    return tuple(known) if len(known) == len(sides) else None
