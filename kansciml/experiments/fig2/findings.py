"""Findings of Figure 2: which neural ODEs end at the lower loss, and what KANs struggle with.

The paper prints neither widths nor budgets for them, so a run with enough seeds and steps decides its claims.
"""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.analysis.comparison import REFUTED, SUPPORTED, UNDECIDED, Comparison, compare_losses
from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.experiments.ode.tables import STRUGGLE_FACTOR, OdeClaim, claims
from kansciml.reporting.judging import OPPOSITE, by_seeds, diverged, shortfalls
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

LEAST_SEEDS = 5
LEAST_STEPS = {"adam_steps": 1000, "lbfgs_steps": 1000}
"""Steps from which a training counts as converged; those of the preset ``small``."""
LIMIT = 10**-9.5
"""Of the difference on FitzHugh-Nagumo, "in the order of 10^-10": up to half an order more counts as that."""


def findings(record: Record) -> list[Finding]:
    """What a run says about each system that the paper names, at equal width and with equal parameters.

    Raises:
        KansciError: the record holds no finished run of a neural ODE.
    """
    ode = OdeRecord.read(record)
    short = shortfalls(record.config.get("training", {}), LEAST_STEPS, {})
    several = ("final_losses",) if sum(len(group.rows) for group in ode.groups) > 1 else ()
    made = claims(ode)
    scaling = {(claim.system.name, claim.group.name): claim for claim in made if claim.name == "scaling"}
    found = []

    def tell(claim: OdeClaim, text: str, printed: str, measured: str, said: tuple[str, str], *figures: str) -> None:
        verdict, evidence = said
        sizes = [f"{side.label}: {side.n_parameters:,} parameters" for side in (claim.reference, claim.group)]
        found.append(
            Finding(
                item="Figure 2",
                claim=text,
                case=f"{claim.system.title}, {claim.group.comparison}",
                printed=printed,
                measured=measured,
                verdict=verdict,
                evidence=f"{evidence}. {', '.join(sizes)}",
                figures=several + figures,
            )
        )

    for claim in made:
        if claim.name == "lower" and claim.paper == "yes":
            text = '"MLPs converge to a lower final loss compared to KANs in all problems" (Figure 2)'
            said = by_seeds(claim.outcome, short, LEAST_SEEDS)
            tell(claim, text, "MLP lower; no number: a picture", _losses(claim), said, "loss_curves")
        elif claim.name == "lower" and claim.paper == "no":
            text = 'MLPs converge lower "except Fitzhugh Nagumo" (Figure 2)'
            said = by_seeds(claim.outcome, short, LEAST_SEEDS, "MLP not lower", OPPOSITE[claim.outcome.verdict])
            tell(claim, text, "MLP not lower", _losses(claim), said, "loss_curves")
            text = '"Fitzhugh Nagumo where the difference in final loss is in the order of 10^-10" (Figure 2)'
            difference = format_number(abs(claim.reference.middle() - claim.group.middle()))
            measured = f"difference of the medians {difference}; {_losses(claim)}"
            outcome = within(claim.reference.losses(), claim.group.losses(), LIMIT)
            said = by_seeds(outcome, short, LEAST_SEEDS, f"train MSE closer than {LIMIT:.1e} both ways")
            tell(claim, text, "10^-10; how the loss is scaled is not said", measured, said)
    for claim in made:
        if claim.name == "struggle":
            text = '"KANs struggle to fit dynamical systems like the Pleiades and Spiral ODE problems" (section 4.1)'
            printed = "no number; neither grid range nor scaling of the state is given"
            what = f"median at least {STRUGGLE_FACTOR:g} times the MLP's, taken for struggling"
            verdict, evidence = by_seeds(claim.outcome, short, LEAST_SEEDS, what)
            evidence += _of_scaling(scaling.get((claim.system.name, claim.group.name)))
            name = claim.system.name
            pictures = [f"trajectories_{name}"] + [f"orbits_{name}"] * bool(claim.system.bodies)
            measured = _losses(claim, "train_relative_mse", "relative train MSE")
            tell(claim, text, printed, measured, (verdict, evidence), *pictures)
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


def _of_scaling(claim: OdeClaim | None) -> str:
    """What the KAN with its state scaled into the grid says beside one whose state is not."""
    if claim is None:
        return ""
    ratio, said = format_number(claim.outcome.median_ratio), claim.outcome
    return (
        f". Train MSE {ratio} times that of the same KAN with its state scaled into the grid; that the scaled one ends"
        f" lower: {said.verdict}, {said.reason}"
    )


def _losses(claim: OdeClaim, name: str = "train_mse", title: str = "train MSE") -> str:
    """Medians over seeds, from the lowest to the highest that did not diverge, and their ratio."""

    def middle(group: OdeGroup) -> str:
        low, high = (format_number(value) for value in group.range(name))
        return f"{format_number(group.middle(name))} ({low} to {high})"

    sides = {"MLP": claim.reference, "KAN": claim.group}
    texts = ", ".join(f"{model} {middle(group)}" for model, group in sides.items())
    lost = diverged({model: (group.n_diverged, len(group.rows)) for model, group in sides.items()})
    ratio = format_number(claim.outcome.median_ratio)
    return f"{title}, median (lowest to highest seed): {texts}; KAN / MLP {ratio}{lost}"
