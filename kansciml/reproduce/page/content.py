"""What a page shows, as plain data, with the names and counts that its HTML and its Markdown share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.runs.experiment import BEYOND
from kansciml.runs.findings import VERDICTS, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from kansciml.reproduce.answer import Answer

FINISHED, FAILED, UNFINISHED, MISSING = "finished", "failed", "unfinished", "missing"
STATUSES = (FINISHED, FAILED, UNFINISHED, MISSING)
NAMED = 160
"""Characters that the cases of a claim may take where they are named by verdict; more of them are only counted."""


@dataclass(frozen=True)
class Setting:
    """One setting of a run beside that of the paper's preset, both as text."""

    name: str
    here: str
    paper: str

    @property
    def differs(self) -> bool:
        return self.here != self.paper


@dataclass(frozen=True)
class Claim:
    """One claim of the paper with the findings on the cases in which it was tried."""

    item: str
    cases: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """The claim; of a single case in full."""
        return self.cases[0].claim if len(self.cases) > 1 else self.cases[0].text

    @property
    def printed(self) -> str:
        """What the paper prints, if that is the same for all cases; else empty."""
        found = {finding.printed for finding in self.cases}
        return found.pop() if len(found) == 1 else ""

    @property
    def measured(self) -> str:
        """What was measured; of several cases which have which verdict, where that differs."""
        if len(self.cases) == 1:
            return self.cases[0].measured
        named = {verdict: [one.case for one in self.cases if one.verdict == verdict] for verdict in self.counts}
        text = ". ".join(f"{verdict.capitalize()}: {'; '.join(cases)}" for verdict, cases in named.items())
        return f"{text}." if len(named) > 1 and len(text) <= NAMED else f"{len(self.cases)} cases"

    @property
    def counts(self) -> dict[str, int]:
        """How many cases have each verdict that occurs."""
        return {verdict: count for verdict, count in count_by_verdict(self.cases).items() if count}


@dataclass(frozen=True)
class Entry:
    """One experiment of the page, whether or not it was run.

    Args:
        name: of the experiment, such as ``"fig2"``. item: what it reproduces, such as ``"Figure 2"``.
        title: one line. command: what the reader types to get this run.
        status: one of `STATUSES`; a failed or unfinished run shows `message` and no results.
        message: why it failed, or how to go on. record: of the run; None where there is none.
        tables, findings, pictures: of a finished run; pictures are paths of SVG files.
        settings: all of them. problems: parts of a finished run that could not be shown, one line each.
        captions: of pictures, by the stems of their files; ``*`` stands for any name, put where the braces are.

    Raises:
        ValueError: an unknown status.
    """

    name: str
    item: str
    title: str
    command: str
    status: str
    message: str = ""
    record: Record | None = None
    tables: Sequence[Table] = ()
    findings: Sequence[Finding] = ()
    pictures: Sequence[Path] = ()
    settings: Sequence[Setting] = ()
    problems: Sequence[str] = ()
    captions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"got status {self.status!r}: expected one of {', '.join(STATUSES)}")

    @property
    def beyond(self) -> bool:
        """Whether it is a comparison that the paper does not have."""
        return self.item == BEYOND

    @property
    def slug(self) -> str:
        """Name of anchors and files: ``figure-2``; comparisons beyond the paper go by their experiment's name."""
        return slug(self.name if self.beyond else self.item)

    @property
    def went_wrong(self) -> bool:
        """Whether the run failed, or a part of it cannot be shown."""
        return self.status == FAILED or bool(self.problems)

    @cached_property
    def claims(self) -> list[Claim]:
        """In the order in which they first occur: a claim is often tried in many cases."""
        found: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            found.setdefault((finding.item, finding.claim), []).append(finding)
        return [Claim(item, tuple(cases)) for (item, _), cases in found.items()]

    @property
    def counts(self) -> dict[str, int]:
        return count_by_verdict(self.findings)

    @property
    def headline(self) -> str:
        """What came out of a run without claims of the paper, or empty: the first note below its first table."""
        tables = self.tables if self.beyond else ()
        return tables[0].notes[0] if tables and tables[0].notes else ""

    def anchor(self, picture: Path) -> str:
        return f"{self.slug}-{slug(picture.stem)}"

    def file_stem(self, picture: Path) -> str:
        """``figure-2-loss-curves``; a picture named after its item alone is not named twice."""
        own = slug(picture.stem)
        return self.slug if own.replace("-", "") == self.slug.replace("-", "") else f"{self.slug}-{own}"

    def caption(self, picture: Path) -> str:
        """Its caption; of a picture without one its name in words."""
        for pattern, text in self.captions.items():
            if (match := _match(pattern, picture.stem)) is not None:
                return text.format(*(name.replace("_", " ") for name in match.groups()))
        words = slug(picture.stem).replace("-", " ")
        return f"{words[:1].upper()}{words[1:]}."

    def place(self, picture: Path) -> tuple[int, int]:
        """What pictures are sorted by: those that findings name, then in the order of the captions."""
        named = [stem for finding in self.findings for stem in finding.figures]
        patterns = [_match(pattern, picture.stem) is not None for pattern in self.captions]
        return _place(picture.stem, named), _place(True, patterns)


@dataclass(frozen=True)
class PaperError:
    """One error of the paper, or one thing that its numbers hide.

    Args:
        title: one line. paragraphs: plain text. tables: the numbers, computed. command: shows them, or empty.
    """

    title: str
    paragraphs: Sequence[str]
    tables: Sequence[Table] = ()
    command: str = ""


@dataclass(frozen=True)
class Reference:
    """Findings of an experiment by a part of their claim, which no other claim of that experiment has."""

    experiment: str
    claim: str


@dataclass(frozen=True)
class Sentence:
    """One sentence of the paper that says something which is true or false.

    Args:
        section: where it stands, such as ``"4.1"``, ``"Figure 2"`` or ``"Footnote 3"``.
        text: quoted, up to a formula or its end.
        by: what tells whether it holds. why: what of it, or why all of it, cannot be checked; empty if all can.

    Raises:
        ValueError: neither findings nor a reason.
    """

    section: str
    text: str
    by: Sequence[Reference] = ()
    why: str = ""

    def __post_init__(self) -> None:
        if not self.by and not self.why:
            raise ValueError(f"got no findings on {self.text!r}: expected some, or why it cannot be checked")


@dataclass(frozen=True)
class Further:
    """A finished run that the answer takes into account beside those of the entries, and what it has set otherwise."""

    record: Record
    settings: Sequence[Setting]

    @property
    def text(self) -> str:
        """``lbfgs_steps 4000, noise 0.01``"""
        return ", ".join(f"{one.name.rpartition('.')[2]} {one.here}" for one in self.settings)


@dataclass(frozen=True)
class Page:
    """All of a page.

    Args:
        preset: of the runs. entries: in the paper's order, those beyond the paper last.
        answer: None where the runs give none. problems: parts of the page that could not be made, one line each.
        errors: of the paper. made: when, UTC. version: of kansciml. sentences: of the paper, in its order.
        further: runs of the answer that have no entry.
    """

    preset: str
    entries: Sequence[Entry]
    answer: Answer | None = None
    problems: Sequence[str] = ()
    errors: Sequence[PaperError] = ()
    made: str = ""
    version: str = ""
    sentences: Sequence[Sentence] = ()
    further: Sequence[Further] = ()

    @property
    def of_paper(self) -> list[Entry]:
        """Finished runs of what the paper shows."""
        return [entry for entry in self.entries if entry.status == FINISHED and not entry.beyond]

    @property
    def beyond(self) -> list[Entry]:
        """Finished comparisons that the paper does not have."""
        return [entry for entry in self.entries if entry.status == FINISHED and entry.beyond]

    @property
    def lacking(self) -> list[Entry]:
        """Those without results."""
        return [entry for entry in self.entries if entry.status != FINISHED]

    @property
    def records(self) -> list[Record]:
        """Of finished runs."""
        own = [entry.record for entry in self.entries if entry.record and entry.status == FINISHED]
        return [*own, *(one.record for one in self.further)]

    @property
    def findings(self) -> list[tuple[Entry, Finding]]:
        """All findings with the entry they come from."""
        return [(entry, finding) for entry in self.entries for finding in entry.findings]

    def checked(self, sentence: Sentence) -> list[tuple[Entry, Sequence[Finding]]]:
        """Each experiment that checks a sentence, with its findings on it; none where it was not run."""
        found: list[tuple[Entry, Sequence[Finding]]] = []
        for entry in self.entries:
            parts = [one.claim for one in sentence.by if one.experiment == entry.name]
            if parts:
                found.append((entry, [one for one in entry.findings if any(part in one.claim for part in parts)]))
        return found

    def told(self, sentence: Sentence) -> dict[str, int]:
        """How many findings on a sentence have each verdict that occurs."""
        counts = count_by_verdict([one for _, findings in self.checked(sentence) for one in findings])
        return {verdict: count for verdict, count in counts.items() if count}

    @property
    def counts(self) -> dict[str, int]:
        """How many findings on the paper have each of the verdicts."""
        return count_by_verdict([one for entry, one in self.findings if not entry.beyond])


def count_by_verdict(findings: Sequence[Finding]) -> dict[str, int]:
    found = [finding.verdict for finding in findings]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def slug(text: str) -> str:
    """`text` as a part of a file name or anchor: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _match(pattern: str, stem: str) -> re.Match[str] | None:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), stem)


def _place(value: object, among: Sequence[object]) -> int:
    return among.index(value) if value in among else len(among)
