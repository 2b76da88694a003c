"""Findings of Figure 2: which neural ODEs end at the lower loss, and what KANs struggle with.

The paper prints neither widths nor budgets for them, so a run with enough seeds and steps decides its claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kansciml.analysis.comparison import REFUTED, SUPPORTED, UNDECIDED, Comparison, compare_losses
from kansciml.experiments.ode.record import OdeGroup, OdeRecord
from kansciml.experiments.ode.tables import (
    STRUGGLE_FACTOR,
    OdeClaim,
    kind,
    lower_claims,
    scaling_claims,
    struggle_claims,
)
from kansciml.reporting.judging import OPPOSITE, by_seeds, diverged, shortfalls
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEM = "Figure 2"
LEAST_SEEDS = 5
LEAST_STEPS = {"adam_steps": 1000, "lbfgs_steps": 1000}
"""Steps from which a training counts as converged; those of the preset ``small``."""
ORDER = -10
"""Of the difference on FitzHugh-Nagumo, "in the order of 10^-10"; up to half an order more counts as that."""


def findings(record: Record) -> list[Finding]:
    """What a run says about each system that the paper names, at equal width and with equal parameters.

    Raises:
        KansciError: the record holds no finished run of a neural ODE.
    """
    ode = OdeRecord.read(record)
    short = _steps(record.config)
    found = []
    for claim in lower_claims(ode):
        if claim.paper == "yes":
            found.append(_lower(ode, claim, short))
        elif claim.paper == "no":
            found += [_exception(ode, claim, short), _size_of_exception(ode, claim, short)]
    scaling = {(claim.group.task, claim.group.name): claim for claim in scaling_claims(ode)}
    for claim in struggle_claims(ode):
        found.append(_struggle(ode, claim, scaling.get((claim.group.task, claim.group.name)), short))
    return found


def within(a: Sequence[float], b: Sequence[float], limit: float) -> Comparison:
    """The claim that the losses of a and b differ by less than `limit`.

    Each side must lie below the other plus `limit`: supported if `compare_losses` supports both, refuted if it refutes
    one, undecided otherwise.
    """
    ends = compare_losses(a, [loss + limit for loss in b]), compare_losses(b, [loss + limit for loss in a])
    verdicts = {end.verdict for end in ends}
    verdict = REFUTED if REFUTED in verdicts else SUPPORTED if verdicts == {SUPPORTED} else UNDECIDED
    end = max((end for end in ends if end.verdict == verdict), key=lambda end: end.p_value)
    return Comparison(verdict, end.p_value, float("nan"), float("nan"), len(a), len(b), end.reason)


def _lower(ode: OdeRecord, claim: OdeClaim, short: list[str]) -> Finding:
    verdict, evidence = by_seeds(claim.outcome, short, LEAST_SEEDS)
    return Finding(
        item=ITEM,
        claim='"MLPs converge to a lower final loss compared to KANs in all problems" (Figure 2):'
        f" {_where(ode, claim)}",
        printed="MLP lower; no number: a picture",
        measured=_losses(claim),
        verdict=verdict,
        evidence=evidence + _sizes(claim),
        figures=_pictures(ode, claim, "loss_curves"),
    )


def _exception(ode: OdeRecord, claim: OdeClaim, short: list[str]) -> Finding:
    verdict, evidence = by_seeds(claim.outcome, short, LEAST_SEEDS, "MLP not lower", OPPOSITE[claim.outcome.verdict])
    return Finding(
        item=ITEM,
        claim=f'MLPs converge lower "except Fitzhugh Nagumo" (Figure 2): {_where(ode, claim)}',
        printed="MLP not lower",
        measured=_losses(claim),
        verdict=verdict,
        evidence=evidence + _sizes(claim),
        figures=_pictures(ode, claim, "loss_curves"),
    )


def _size_of_exception(ode: OdeRecord, claim: OdeClaim, short: list[str]) -> Finding:
    outcome = within(claim.reference.losses(), claim.group.losses(), 10 ** (ORDER + 0.5))
    what = f"train MSE closer than {10 ** (ORDER + 0.5):.1e} both ways"
    verdict, evidence = by_seeds(outcome, short, LEAST_SEEDS, what)
    return Finding(
        item=ITEM,
        claim='"Fitzhugh Nagumo where the difference in final loss is in the order of 10^-10" (Figure 2):'
        f" {_where(ode, claim)}",
        printed="10^-10; how the loss is scaled is not said",
        measured=f"difference of the medians {format_number(abs(claim.reference.middle() - claim.group.middle()))};"
        f" {_losses(claim)}",
        verdict=verdict,
        evidence=evidence + _sizes(claim),
        figures=_pictures(ode, claim),
    )


def _struggle(ode: OdeRecord, claim: OdeClaim, scaling: OdeClaim | None, short: list[str]) -> Finding:
    what = f"median at least {STRUGGLE_FACTOR:g} times the MLP's, taken for struggling"
    verdict, evidence = by_seeds(claim.outcome, short, LEAST_SEEDS, what)
    system = ode.systems[claim.reference.task]
    if scaling is not None:
        ratio, said = format_number(scaling.outcome.median_ratio), scaling.outcome
        evidence += (
            f". Train MSE {ratio} times that of the same KAN with its state scaled into the grid; that the scaled one"
            f" ends lower: {said.verdict}, {said.reason}"
        )
    pictures = [f"trajectories_{system.name}"] + ([f"orbits_{system.name}"] if system.bodies else [])
    return Finding(
        item=ITEM,
        claim='"KANs struggle to fit dynamical systems like the Pleiades and Spiral ODE problems" (section 4.1):'
        f" {_where(ode, claim)}",
        printed="no number; neither grid range nor scaling of the state is given",
        measured=_losses(claim, "train_relative_mse", "relative train MSE"),
        verdict=verdict,
        evidence=evidence + _sizes(claim),
        figures=_pictures(ode, claim, *pictures),
    )


def _steps(config: Mapping[str, Any]) -> list[str]:
    return shortfalls(config.get("training", {}), LEAST_STEPS, {})


def _where(ode: OdeRecord, claim: OdeClaim) -> str:
    return f"{ode.systems[claim.reference.task].title}, {kind(claim.group.name)}"


def _losses(claim: OdeClaim, name: str = "train_mse", title: str = "train MSE") -> str:
    """Medians over seeds, from the lowest to the highest that did not diverge, and their ratio."""
    sides = (("MLP", claim.reference), ("KAN", claim.group))
    texts = [f"{model} {_spread(group, name)}" for model, group in sides]
    lost = diverged({model: (group.n_diverged, len(group.rows)) for model, group in sides})
    ratio = format_number(claim.outcome.median_ratio)
    return f"{title}, median (lowest to highest seed): {', '.join(texts)}; KAN / MLP {ratio}{lost}"


def _spread(group: OdeGroup, name: str) -> str:
    low, high = (format_number(value) for value in group.spread(lambda run: run.metric(name)))
    return f"{format_number(group.middle(name))} ({low} to {high})"


def _sizes(claim: OdeClaim) -> str:
    return ". " + ", ".join(
        f"{side.label}: {side.n_parameters:,} parameters" for side in (claim.reference, claim.group)
    )


def _pictures(ode: OdeRecord, claim: OdeClaim, *further: str) -> tuple[str, ...]:
    several = sum(len(group.rows) for group in ode.groups) > 1
    return (("final_losses",) if several else ()) + further
