"""Claims of the paper on two groups of runs, what their seeds say of them, and the table of verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import RECOMMENDED_SEEDS, Comparison, corrected
from kansciml.runs.tables import Table, format_number

TEST = "exact two-sided signed-rank test over runs paired by seed"
RATIO, POINTS = "KAN / MLP", "KAN - MLP (points)"
"""Headings of effects."""
STANDS = " *"
"""What a verdict in a cell ends with that stands after the correction."""

G = TypeVar("G")
C = TypeVar("C", bound="Claim[Any]")


@dataclass(frozen=True)
class Claim(Generic[G]):
    """A claim on one group of runs against another, and what the seeds, or a count, say of it.

    Args:
        name: key by which findings tell claims apart; those of one name are a family of Holm's correction.
        text: the claim in words.
        group: the model in question. reference: the one that it is compared with.
        outcome: of the comparison of their seeds, or `counted`.
        found: what the table shows of the two beside the effect, such as medians.
        paper: whether Pal & Das (2024) claim it, ``"yes"`` or ``"no"``; None where they say nothing.
    """

    name: str
    text: str
    group: G
    reference: G
    outcome: Comparison
    found: tuple[object, ...] = ()
    paper: str | None = "yes"

    @property
    def tested(self) -> bool:
        """Whether seeds were compared."""
        return not math.isnan(self.outcome.p_value)


def counted(verdict: str, reason: str) -> Comparison:
    """The outcome of a claim that no seeds decide; an empty verdict where there is none."""
    return Comparison(verdict, math.nan, math.nan, math.nan, math.nan, 0, 0, reason, corrected=verdict)


def in_families(claims: Iterable[C], family: Callable[[C], str] = lambda claim: claim.name) -> list[C]:
    """The claims with Holm's correction over all of each family; what was not tested is in none."""
    found = list(claims)
    for name in dict.fromkeys(map(family, found)):
        own = [place for place, claim in enumerate(found) if family(claim) == name]
        for place, outcome in zip(own, corrected([found[place].outcome for place in own])):
            found[place] = replace(found[place], outcome=outcome)
    return found


def effect_text(outcome: Comparison, digits: int = 3) -> str:
    """``0.31 (0.22 to 0.48)``: the effect and its interval."""
    effect, low, high = (format_number(value, digits) for value in (outcome.effect, outcome.low, outcome.high))
    return f"{effect} ({low} to {high})"


def claim_table(
    title: str,
    about: Sequence[str],
    effect: str,
    rows: Sequence[tuple[Sequence[object], Claim]],
    notes: Sequence[str] = (),
    found: Sequence[str] = (),
) -> Table:
    """Verdicts with the statistics behind them.

    Args:
        about: headings of the first columns. effect: heading of the effect, such as ``"KAN / MLP"``.
        rows: the cells below `about`, and the claim. found: headings of `Claim.found`.
    """
    body = []
    for cells, claim in rows:
        one = claim.outcome
        told: list[object] = [one.verdict or None, one.corrected if claim.tested else None, *claim.found]
        told += [one.effect, one.low, one.high, one.p_value, one.adjusted_p, one.n_pairs if claim.tested else None]
        body.append([*cells, *told, one.why])
    columns = [*about, "Verdict", "After Holm", *found, effect, "from", "to", "p", "p after Holm", "Seeds", "Why"]
    return Table(title, columns, body, [verdict_note([claim for _, claim in rows]), *notes])


def verdict_note(claims: Sequence[Claim]) -> str:
    """The statistics of a table in words, with its families and their sizes."""
    families = {claim.name: (claim.outcome.family, claim.outcome.needed) for claim in claims if claim.tested}
    sizes = ", or ".join(
        f"{size} claim{'s' * (size > 1)}, decided by {needed} seeds or more"
        for size, needed in dict.fromkeys(sorted(families.values(), reverse=True))
    )
    return (
        f"Verdict: {TEST}, at level {ALPHA:g}; a run that diverged ranks worst. Effect, from, to: Hodges-Lehmann"
        " estimate with the interval that the test does not reject. After Holm: corrected over all claims of one kind"
        f" of this run ({sizes or 'none was tested'}; {RECOMMENDED_SEEDS} are recommended)."
    )
