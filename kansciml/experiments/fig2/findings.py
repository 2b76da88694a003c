"""Findings of Figure 2: which neural ODEs end at the lower loss, and what KANs struggle with.

The paper prints neither widths nor budgets for them, so a run with enough seeds and steps decides its claims.
"""

from __future__ import annotations

from kansciml.experiments.ode.record import OdeRecord
from kansciml.experiments.ode.run_rows import OdeGroup
from kansciml.experiments.ode.tables import LIMIT, STRUGGLE_FACTOR, OdeClaim, claims
from kansciml.reporting.claims import RATIO, effect_text
from kansciml.reporting.judging import diverged, judged, shortfalls
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

LEAST_STEPS = {"adam_steps": 1000, "lbfgs_steps": 1000}
"""Steps from which a training counts as converged; those of the preset ``small``."""


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
            tell(claim, text, "MLP lower; no number: a picture", _losses(claim), judged(claim, short), "loss_curves")
        elif claim.name == "lower" and claim.paper == "no":
            text = 'MLPs converge lower "except Fitzhugh Nagumo" (Figure 2)'
            said = judged(claim, short, "MLP not lower", opposite=True)
            tell(claim, text, "MLP not lower", _losses(claim), said, "loss_curves")
        elif claim.name == "close":
            text = '"Fitzhugh Nagumo where the difference in final loss is in the order of 10^-10" (Figure 2)'
            said = judged(claim, short, f"train MSE closer than {LIMIT:.1e} both ways")
            tell(claim, text, "10^-10; how the loss is scaled is not said", _losses(claim, effect="KAN - MLP"), said)
    for claim in made:
        if claim.name == "struggle":
            text = '"KANs struggle to fit dynamical systems like the Pleiades and Spiral ODE problems" (section 4.1)'
            printed = "no number; neither grid range nor scaling of the state is given"
            what = f"at least {STRUGGLE_FACTOR:g} times the MLP's, taken for struggling"
            verdict, evidence = judged(claim, short, what)
            evidence += _of_scaling(scaling.get((claim.system.name, claim.group.name)))
            name = claim.system.name
            pictures = [f"trajectories_{name}"] + [f"orbits_{name}"] * bool(claim.system.bodies)
            measured = _losses(claim, "train_relative_mse", "relative train MSE")
            tell(claim, text, printed, measured, (verdict, evidence), *pictures)
    return found


def _of_scaling(claim: OdeClaim | None) -> str:
    """What the KAN with its state scaled into the grid says beside one whose state is not."""
    if claim is None:
        return ""
    said = claim.outcome
    return (
        f". Train MSE {effect_text(said)} times that of the same KAN with its state scaled into the grid; that the"
        f" scaled one ends lower: {said.corrected} after Holm's correction, {said.why}"
    )


def _losses(claim: OdeClaim, name: str = "train_mse", title: str = "train MSE", effect: str = RATIO) -> str:
    """Medians over seeds, from the lowest to the highest that did not diverge, and the effect."""

    def middle(group: OdeGroup) -> str:
        low, high = (format_number(value) for value in group.range(name))
        return f"{format_number(group.middle(name))} ({low} to {high})"

    sides = {"MLP": claim.reference, "KAN": claim.group}
    texts = ", ".join(f"{model} {middle(group)}" for model, group in sides.items())
    lost = diverged({model: (group.n_diverged, len(group.rows)) for model, group in sides.items()})
    return f"{title}, median (lowest to highest seed): {texts}; {effect} {effect_text(claim.outcome)}{lost}"
