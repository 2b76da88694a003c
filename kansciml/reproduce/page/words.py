"""Words, numbers and tables of the page: how the runs stand, what they took, and what templates turn into text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from markupsafe import Markup

from kansciml.reproduce.page.content import FAILED, MISSING, UNFINISHED, Page, Setting
from kansciml.reproduce.page.mathml import with_formulas
from kansciml.runs import tables
from kansciml.runs.progress import duration
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

TITLE = "When is a KAN worth its cost against an MLP?"
PAPER = "Understanding the Limitations of B-Spline KANs (Pal & Das, 2024)"
STATUS_WORDS = {FAILED: "failed", UNFINISHED: "unfinished", MISSING: "not run yet"}
BUDGETS = {
    "smoke": "The preset smoke shows that everything runs, in minutes: its models and trainings are far too small to"
    " decide anything about accuracy.",
    "small": "The preset small is what two processor cores can do in hours: smaller models, less data and fewer steps"
    " than the paper's, so a verdict holds for that size.",
    "paper": "",
}
"""What a reader has to know of a preset before reading a verdict."""
_NUMBER = r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER_FIRST = re.compile(
    rf"\s*({_NUMBER})\s*(?:%|[a-zA-Z]{{1,3}})?\s*(?:(?:\+-|/)\s*{_NUMBER}\s*%?)?\s*(?:\(.*\).*)?\s*"
)
"""A number, perhaps with a unit, an error or a second number, and a remark that begins in brackets; not ``2-50-2``."""
SHORT = 16
"""A column of numbers is aligned right if no cell has more characters."""
LONG = 28
"""Text of more characters may be broken into lines; shorter text, and numbers, may not."""
SHORT_TABLE, SHORT_NOTES = 12, 2
"""A table that leads is unfolded if it has no more rows, and notes are if there are no more of them."""
GROUPED = 10_000
"""Whole numbers from here on are shown with a comma every three digits."""


def standing(page: Page) -> str:
    """How many runs are finished, and what the budget is worth."""
    finished = len(page.entries) - len(page.lacking)
    return f"{finished} of {len(page.entries)} runs are finished. {BUDGETS.get(page.preset, '')}".strip()


def cost_facts(record: Record) -> list[tuple[str, str]]:
    """Name and text of what is known about a run's cost and origin: time, memory, machine, versions, commit, seeds."""
    machine, memory = record.machine, (record.peak_memory_mb, record.peak_memory_workers_mb)
    own, largest = ("" if peak is None else f"{format_number(peak)} MB" for peak in memory)
    threads = machine.get("threads")
    hardware = [machine.get("processor"), machine.get("device") if machine.get("device") != "cpu" else "no GPU"]
    hardware += [f"{machine['cores']} cores"] if machine.get("cores") else []
    hardware += [f"{threads} thread{'s' * (threads != 1)}"] if threads else []
    facts = [
        ("wall time", duration(record.wall_s, 1) + (f" in {record.sessions} sessions" if record.sessions > 1 else "")),
        ("peak memory", own),
        ("largest child process", largest),
        ("machine", ", ".join(str(part) for part in hardware if part)),
        ("system", str(machine.get("platform", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items() if version)),
        ("commit", record.commit or "installed package"),
        ("seeds", ", ".join(map(str, record.seeds)) or "none used"),
        ("finished", record.finished or "no"),
        ("record", f"{record.experiment}/{record.config_hash}"),
    ]
    return [(name, text) for name, text in facts if text]


def prose(text: str) -> Markup:
    """Plain text as HTML: what stands between backticks becomes code, and formulas become MathML."""
    parts = enumerate(re.split("`([^`]+)`", text))
    coded = Markup("<code>{}</code>")
    return Markup("").join(coded.format(part) if index % 2 else with_formulas(part) for index, part in parts)


def claims_table(page: Page) -> Table:
    """Each claim once, and how its cases fared."""
    rows = [
        [one.item, one.text, one.printed or None, one.measured, counted(one.counts)]
        for entry in page.entries
        for one in entry.claims
    ]
    return Table("Claims and verdicts", ["Item", "Claim", "The paper", "Here", "Verdict"], rows)


def counted(verdicts: Mapping[str, int]) -> str:
    """``2 reproduced, 1 not reproduced``; of one case its verdict alone."""
    if sum(verdicts.values()) == 1:
        return next(iter(verdicts))
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def sentences_table(page: Page) -> Table:
    """The paper, sentence by sentence."""
    rows = []
    for one in page.sentences:
        items = [entry.name if entry.beyond else entry.item for entry, _ in page.checked(one)]
        by = "; ".join([*items, *[one.why] * bool(one.why)])
        verdicts = counted(page.told(one)) or ("not run yet" if items else "not checked")
        rows.append([one.section, one.text, by, verdicts])
    return Table("The paper, sentence by sentence", ["Where", "Sentence", "Checked by", "Verdicts"], rows)


def settings_table(settings: Sequence[Setting]) -> Table:
    """The settings that are not the paper's; the others in a note."""
    rows = [[one.name, one.here, one.paper] for one in settings if one.differs]
    rest = [f"{one.name} {one.here}" for one in settings if not one.differs]
    notes = [f"As in the preset paper: {'; '.join(rest)}."] if rest else []
    return Table("Settings", ["setting", "here", "preset paper"], rows, notes)


def markdown(table: Table, level: int) -> str:
    """`Table.markdown` with its heading at another level, and line breaks within cells taken out."""
    rows = [[" ".join(cell.split()) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    columns = [" ".join(name.split()) for name in table.columns]
    return "#" * level + Table(table.title, columns, rows, table.notes).markdown().lstrip("#")


class Head(NamedTuple):
    """Heading of a column, and whether it is sorted as ``number`` or ``text``."""

    text: str
    kind: str
    css: str | None


class Cell(NamedTuple):
    """A cell; `key` is what it is sorted by where that is not its text."""

    text: str
    css: str | None
    key: str | None
    missing: bool


def table_view(table: Table) -> tuple[list[Head], list[list[Cell]]]:
    """Headings and cells of a table, with their classes and keys."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    numeric = [sorts_as_numbers(column) for column in columns]
    texts = [[_shown(*cell) for cell in zip(*row)] for row in zip(table.rows, table.cells())]
    right = [number and max(map(len, column)) <= SHORT for number, column in zip(numeric, zip(*texts))]
    heads = [
        Head(name.strip(), "number" if number else "text", "num" if at_right else None)
        for name, number, at_right in zip(table.columns, numeric, right or numeric)
    ]
    rows = [[_cell(*cell) for cell in zip(*row, numeric, right)] for row in zip(table.rows, texts)]
    return heads, rows


def sort_value(value: Any) -> float | None:
    """The number by which a cell is sorted: its own, or the one its text begins with (``0.3 +- 0.1``); else None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, Real):
        return float(value)
    match = _NUMBER_FIRST.fullmatch(str(value))
    return float(match[1].replace(",", "")) if match else None


def is_missing(value: Any) -> bool:
    """Whether a cell has no value: None, NaN, a dash or nothing."""
    if isinstance(value, Real):
        return math.isnan(value)
    return value is None or str(value).strip() in ("", tables.MISSING)


def sorts_as_numbers(column: Sequence[Any]) -> bool:
    """Whether all cells that are not missing begin with a number."""
    present = [value for value in column if not is_missing(value)]
    return bool(present) and all(sort_value(value) is not None for value in present)


def _shown(value: Any, text: str) -> str:
    """The text of a cell; large whole numbers in groups of three digits."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return f"{int(value):,}" if whole and abs(int(value)) >= GROUPED else text


def _cell(value: Any, shown: str, numeric: bool, right: bool) -> Cell:
    css = " ".join(["num"] * right + ["long"] * (len(shown) > LONG)) or None
    if is_missing(value):
        return Cell(shown or tables.MISSING, css, "", True)
    # the script reads Infinity, and not Python's inf
    key = f"{sort_value(value):.17g}".replace("inf", "Infinity") if numeric else shown
    return Cell(shown, css, None if key == shown else key, False)
