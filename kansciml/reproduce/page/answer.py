"""The page's first paragraph: what came out, in sentences made from the findings."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.reproduce.page.claims import claims_of
from kansciml.reproduce.page.content import FINISHED, Entry, Page
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, VERDICTS

PAPER = "Understanding the Limitations of B-Spline KANs (Pal & Das, 2024)"
BUDGETS = {
    "smoke": "The preset smoke shows that everything runs, in minutes: its models and trainings are far too small to"
    " decide anything about accuracy.",
    "small": "The preset small is what two processor cores can do in hours: smaller models, less data and fewer steps"
    " than the paper's, so a verdict holds for that size.",
    "paper": "",
}
"""What a reader has to know of a preset before reading a verdict."""


def count_by_verdict(entries: Sequence[Entry]) -> dict[str, int]:
    """How many findings of `entries` have each of the verdicts."""
    found = [finding.verdict for entry in entries for finding in entry.findings]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def answer(page: Page) -> str:
    """One paragraph: how the claims that were examined fared, what is missing, and what the budget is worth."""
    counts = count_by_verdict(page.of_paper)
    examined = sum(counts.values())
    sentences = []
    if examined:
        claims = sum(len(claims_of(entry)) for entry in page.of_paper)
        cases = f" in {examined} cases" if examined > claims else ""
        sentences.append(
            f"These runs examined {_number(claims, 'claim')} of the paper{cases}: {counts[REPRODUCED]}"
            f" {_were(counts[REPRODUCED])} reproduced, {counts[NOT_REPRODUCED]} {_were(counts[NOT_REPRODUCED])} not,"
            f" and {counts[UNDECIDED]} cannot be decided at this budget."
        )
        for verdict, start in ((REPRODUCED, "Reproduced"), (NOT_REPRODUCED, "Not reproduced")):
            items = _items(page, verdict)
            sentences += [f"{start}: {items}."] if items else []
    sentences += [f"On equal terms: {note}" for note in map(headline, page.beyond) if note]
    finished = sum(entry.status == FINISHED for entry in page.entries)
    if finished < len(page.entries):
        lacking = ", ".join(
            "fair comparisons" if entry.beyond else entry.item for entry in page.entries if entry.status != FINISHED
        )
        sentences.append(f"{finished} of {len(page.entries)} runs are finished; without results: {lacking}.")
    elif not examined:
        sentences.append("All runs are finished; none of them states a verdict on a claim of the paper.")
    sentences += [BUDGETS[page.preset]] if BUDGETS.get(page.preset) else []
    return " ".join(sentences)


def headline(entry: Entry) -> str:
    """What came out of a run without claims of the paper, or empty: the first note below its first table says it."""
    tables = entry.tables if entry.beyond else ()
    return tables[0].notes[0] if tables and tables[0].notes else ""


def _items(page: Page, verdict: str) -> str:
    """``Figure 1 (2), Figure 4a``: the items with findings of a verdict, and how many where there are several."""
    found: dict[str, int] = {}
    for entry, finding in page.findings():
        if finding.verdict == verdict and not entry.beyond:
            found[finding.item] = found.get(finding.item, 0) + 1
    return ", ".join(item + (f" ({count})" if count > 1 else "") for item, count in found.items())


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 07 s``, ``8.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
