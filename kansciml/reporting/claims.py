"""Claims of the paper on two groups of runs, what their seeds say of them, and the table of verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kansciml.analysis.comparison import ALPHA, Comparison
from kansciml.runs.tables import Table

VERDICT_NOTE = (
    f"Verdict: exact two-sided Mann-Whitney U test over seeds at level {ALPHA:g}; a diverged seed ranks worst; to"
    " decide takes at least 4 seeds a side (or 3 against 5)."
)

G = TypeVar("G")


@dataclass(frozen=True)
class Claim(Generic[G]):
    """A claim on one group of runs against another, and what the seeds, or a count, say of it.

    Args:
        name: key by which findings tell claims apart. text: the claim in words.
        group: the model in question. reference: the one that it is compared with.
        outcome: of the comparison of their seeds, or `counted`.
        found: what the table shows of the two, such as a ratio of medians.
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
        return self.outcome.n_a + self.outcome.n_b > 0


def counted(verdict: str, reason: str) -> Comparison:
    """The outcome of a claim that no seeds decide; an empty verdict where there is none."""
    return Comparison(verdict, math.nan, math.nan, math.nan, 0, 0, reason)


def claim_table(
    title: str,
    about: Sequence[str],
    found: Sequence[str],
    rows: Iterable[tuple[Sequence[object], Claim]],
    notes: Sequence[str],
    effect: bool = True,
) -> Table:
    """Verdicts with the statistics behind them.

    Args:
        about: headings of the first columns. found: headings of `Claim.found`.
        rows: the cells below `about`, and the claim. effect: whether to show Cliff's delta.
    """
    body = []
    for cells, claim in rows:
        one = claim.outcome
        seeds = f"{one.n_a} / {one.n_b}" if claim.tested else None
        body.append([*cells, one.verdict or None, *claim.found, one.p_value, *[one.effect] * effect, seeds, one.reason])
    columns = [*about, "Verdict", *found, "p", *["Cliff's delta"] * effect, "Seeds", "Why"]
    return Table(title, columns, body, notes)
