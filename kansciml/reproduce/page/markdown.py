"""The page as Markdown, for places that show no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kansciml.reproduce.page.answer import PAPER, answer, headline
from kansciml.reproduce.page.captions import caption
from kansciml.reproduce.page.content import FINISHED, Entry, Page, PaperError
from kansciml.reproduce.page.document import TITLE
from kansciml.reproduce.page.figures import figure_stem
from kansciml.reproduce.page.sections import STATUS_WORDS, cost_facts
from kansciml.runs.tables import Table


def markdown_page(page: Page) -> str:
    """The document; pictures are those that `kansciml.reproduce.page.figures` puts into ``figures/``."""
    rows = [
        [finding.item, finding.claim, finding.printed or None, finding.measured, finding.verdict]
        for _, finding in page.findings()
    ]
    rows += [
        [entry.item, entry.title, None, headline(entry) or None, STATUS_WORDS.get(entry.status, "no verdict")]
        for entry in page.entries
        if not entry.findings
    ]
    parts = [
        f"# {TITLE}",
        f"The experiments of *{PAPER}*, run again by kansciml {page.version}, preset {page.preset}.",
        answer(page),
        _table(Table("All findings", ["Item", "Claim", "The paper", "Here", "Verdict"], rows), 2),
        "## The paper, item by item",
        *(part for entry in page.of_paper for part in _entry(entry)),
    ]
    if page.beyond:
        parts += ["## Beyond the paper: fair comparisons", *(part for entry in page.beyond for part in _entry(entry))]
    if page.errors or page.errors_problem:
        parts += ["## Errors in the paper", page.errors_problem]
        parts += [part for number, error in enumerate(page.errors, 1) for part in _error(number, error)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _entry(entry: Entry) -> list[str]:
    parts = [f"### {entry.title}" if entry.beyond else f"### {entry.item}: {entry.title}"]
    if entry.status != FINISHED:
        parts.append(f"**{STATUS_WORDS[entry.status].capitalize()}.** {entry.message}")
    parts += entry.problems
    for finding in entry.findings:
        parts.append(
            f"**{finding.claim}**\n\n- The paper: {finding.printed or 'prints no number'}\n- Here: {finding.measured}\n"
            f"- Verdict: **{finding.verdict}**\n- Evidence: {finding.evidence}"
        )
    parts += [
        f"![{caption(entry.name, path.stem)}](figures/{figure_stem(entry, path)}.svg)" for path in _existing(entry)
    ]
    parts += [_table(table, 4) for table in entry.tables]
    if entry.settings:
        parts.append(_settings(entry))
    if entry.record is not None:
        facts = "\n".join(f"- {name}: {text}" for name, text in cost_facts(entry.record))
        parts.append(f"#### Cost and provenance\n\n{facts}")
    return [*parts, _command(entry.command)]


def _existing(entry: Entry) -> list[Path]:
    return [path for path in entry.pictures if path.is_file()]


def _settings(entry: Entry) -> str:
    rows = [[one.name, one.here, one.paper] for one in entry.settings if one.differs]
    rest = [f"{one.name} {one.here}" for one in entry.settings if not one.differs]
    notes = [f"As in the preset paper: {'; '.join(rest)}."] if rest else []
    return _table(Table("Settings", ["setting", "here", "preset paper"], rows, notes), 4)


def _error(number: int, error: PaperError) -> list[str]:
    command = [_command(error.command)] if error.command else []
    tables = [_table(table, 4) for table in error.tables]
    return [f"### {number}. {error.title}", *error.paragraphs, *tables, *command]


def _command(command: str) -> str:
    return f"```sh\n{command}\n```"


def _table(table: Table, level: int) -> str:
    """`Table.markdown` with its heading at another level, and line breaks within cells taken out."""
    rows = [[" ".join(cell.split()) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    flat: Sequence[str] = [" ".join(str(name).split()) for name in table.columns]
    return "#" * level + Table(table.title, flat, rows, table.notes).markdown().lstrip("#")
