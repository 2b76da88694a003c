"""Findings by claim: one claim of the paper is often tried in many cases, and need not be quoted for each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kansciml.reproduce.page.content import Entry
from kansciml.runs.findings import VERDICTS, Finding

_CASE = re.compile(r'(.*\)[^():]*): (.+)|("[^"]+"), (.+)', re.DOTALL)
"""``"what it says" (Figure 2): Spiral, equal width``, or ``"what it says", DeiT-Tiny``."""


@dataclass(frozen=True)
class Claim:
    """One claim with the cases in which it was tried.

    Args:
        entry: where it was tried. item: of the paper. text: the claim.
        cases: name (empty if it is the only one) and finding of each.
    """

    entry: Entry
    item: str
    text: str
    cases: tuple[tuple[str, Finding], ...]

    @property
    def printed(self) -> str:
        """What the paper prints, if that is the same for all cases; else empty."""
        found = {finding.printed for _, finding in self.cases}
        return found.pop() if len(found) == 1 else ""

    def counts(self) -> dict[str, int]:
        """How many cases have each verdict that occurs."""
        found = [finding.verdict for _, finding in self.cases]
        return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}


def split_claim(text: str) -> tuple[str, str]:
    """The claim and the case of a finding's claim; the case is empty where none is named."""
    match = _CASE.fullmatch(text)
    if match is None:
        return text, ""
    claim, case = (part for part in match.groups() if part is not None)
    return claim, case


def claims_of(entry: Entry) -> list[Claim]:
    """The claims of an entry, in the order in which they first occur."""
    cases: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for finding in entry.findings:
        text, case = split_claim(finding.claim)
        cases.setdefault((finding.item, text), []).append((case, finding))
    return [
        # a single case is better told in the finding's own words
        Claim(entry, item, text if len(found) > 1 else found[0][1].claim,
              tuple(found) if len(found) > 1 else (("", found[0][1]),))
        for (item, text), found in cases.items()
    ]  # fmt: skip
