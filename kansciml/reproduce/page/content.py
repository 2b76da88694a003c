"""What a page shows, as plain data: whoever writes HTML or Markdown needs to know no experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

FINISHED, FAILED, UNFINISHED, MISSING = "finished", "failed", "unfinished", "missing"
STATUSES = (FINISHED, FAILED, UNFINISHED, MISSING)


@dataclass(frozen=True)
class Setting:
    """One setting of a run beside that of the paper's preset, both as text."""

    name: str
    here: str
    paper: str

    @property
    def differs(self) -> bool:
        """Whether the run's setting is not the paper's."""
        return self.here != self.paper


@dataclass(frozen=True)
class Entry:
    """One experiment of the page, whether or not it was run.

    Args:
        name: of the experiment, such as ``"fig2"``. item: what it reproduces, such as ``"Figure 2"``.
        title: one line.
        command: what the reader types to get this run.
        status: one of `STATUSES`; a failed or unfinished run shows `message` and no results.
        message: why it failed, or how to go on.
        record: of the run; None where there is none.
        tables, findings, pictures: of a finished run; pictures are paths of SVG files.
        settings: all of them.
        problems: parts of a finished run that could not be shown, one line each.
        beyond: whether it is a comparison that the paper does not have.

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
    beyond: bool = False

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"got status {self.status!r}: expected one of {', '.join(STATUSES)}")

    @property
    def slug(self) -> str:
        """Name of anchors and files: ``figure-2``; comparisons beyond the paper go by their experiment's name."""
        return slug(self.name if self.beyond else self.item)

    @property
    def went_wrong(self) -> bool:
        """Whether the run failed, or a part of it cannot be shown."""
        return self.status == FAILED or bool(self.problems)


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
class Page:
    """All of a page.

    Args:
        preset: of the runs. entries: in the paper's order, those beyond the paper last.
        errors: of the paper. errors_problem: why those could not be computed, or empty.
        made: when, UTC. version: of kansciml.
    """

    preset: str
    entries: Sequence[Entry]
    errors: Sequence[PaperError] = ()
    errors_problem: str = ""
    made: str = ""
    version: str = ""

    @property
    def of_paper(self) -> list[Entry]:
        """What reproduces an item of the paper."""
        return [entry for entry in self.entries if not entry.beyond]

    @property
    def beyond(self) -> list[Entry]:
        """Comparisons that the paper does not have."""
        return [entry for entry in self.entries if entry.beyond]

    def findings(self) -> list[tuple[Entry, Finding]]:
        """All findings with the entry they come from."""
        return [(entry, finding) for entry in self.entries for finding in entry.findings]


def slug(text: str) -> str:
    """`text` as a part of a file name or anchor: lower-case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
