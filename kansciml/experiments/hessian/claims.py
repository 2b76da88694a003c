"""The paper's claims on the sharpness of minima of two groups of trainings, and what a run says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from kansciml.analysis.paired import SUPPORTED, UNDECIDED
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.reporting.claims import Claim, effect_text
from kansciml.reporting.groups import Group
from kansciml.reporting.judging import judged
from kansciml.runs import findings
from kansciml.runs.tables import format_number

CLAIMED = {
    "positive_exact": "more positive eigenvalues",
    "positive_exact_share": "more positive eigenvalues, of all",
    "positive_count": "more positive eigenvalues",
    "positive_share": "more positive eigenvalues, of all",
    "count_above_0.01_top": "more eigenvalues above 1 % of the largest",
}
"""Measure -> the claim that a model has more of it than another."""
EXACT = {"positive_exact": "positive_count", "positive_exact_share": "positive_share"}
"""Counts of all eigenvalues, and what the quadrature can tell, which gives way to them."""
MEASURES = {
    "positive_exact": "positive eigenvalues",
    "positive_exact_share": "share of positive eigenvalues",
    "positive_count": "positive eigenvalues",
    "positive_share": "share of positive eigenvalues",
    "count_above_0.01_top": "eigenvalues above 1 % of the largest",
}
MOST_UNRESOLVED = 0.5
"""Least share of the pairs of seeds whose difference must exceed the errors of probes and quadrature."""
FAMILY = "sharpness"

G = TypeVar("G", bound=Group)


@dataclass(frozen=True)
class SharpnessClaim(Claim[G]):
    """That a group of models has more of a measure than its reference; `found` are both medians, the reference's first.

    Args:
        name: a key of `CLAIMED`, or that of another claim on the same groups.
        resolved: of the pairs of one seed, the share in which an eigenvalue measure differs in the verdict's direction
            by more than the errors of its probes and of the quadrature; None of other claims and where undecided.
    """

    resolved: float | None = None


def sharpness_claims(measured: HessianRecord, group: G, reference: G) -> list[SharpnessClaim[G]]:
    """One claim per measure of `CLAIMED` on a group of trainings that the record compares with `reference`."""
    found, own = [], [one for one in measured.verdicts if (one.task, one.group) == (group.task, group.name)]
    less = {EXACT[one.outcome.measure] for one in own if one.outcome.measure in EXACT}
    for verdict in own:
        one = verdict.outcome
        if one.measure in CLAIMED and one.measure not in less:
            apart = one.pairs_sharper if one.outcome.verdict == SUPPORTED else one.pairs_flatter
            resolved = apart / one.pairs if one.outcome.verdict != UNDECIDED and one.pairs else None
            medians, text = (one.b, one.a), CLAIMED[one.measure]
            found.append(SharpnessClaim(one.measure, text, group, reference, one.outcome, medians, resolved=resolved))
    return found


def family(claim: Claim) -> str:
    """The family of Holm's correction: all claims on eigenvalues are one."""
    return FAMILY if claim.name in CLAIMED else claim.name


def measured_text(claim: SharpnessClaim) -> str:
    """``positive eigenvalues, median over seeds: KAN 960, MLP 310; KAN - MLP 640 (580 to 700)``."""
    mlp, kan = (format_number(value) for value in claim.found)
    what = f"{MEASURES[claim.name]}, median over seeds: KAN {kan}, MLP {mlp}"
    return f"{what}; KAN - MLP {effect_text(claim.outcome)}"


def sharper(claim: SharpnessClaim, short: Sequence[str], what: str = "", opposite: bool = False) -> tuple[str, str]:
    """`judged`; undecided where the pairs of models differ by no more than what the spectra leave open."""
    verdict, evidence = judged(claim, short, what, opposite)
    if claim.tested and claim.resolved is not None and claim.resolved < MOST_UNRESOLVED:
        some = f"Only {100 * claim.resolved:.0f} % of the pairs of models differ"
        share = some if claim.resolved else "No pair of models differs"
        evidence += f". {share} by more than 2 standard errors of probes and quadrature: it takes more Lanczos steps"
        verdict = findings.UNDECIDED
    if claim.name in ("positive_exact", "positive_count"):
        evidence += ". Such a number grows with the number of parameters by itself; the share of all does not"
    return verdict, evidence
