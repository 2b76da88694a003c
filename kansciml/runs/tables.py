"""Tables: one set of rows, shown as aligned text, Markdown, or JSON, with numbers formatted in one place."""

from __future__ import annotations

import io
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TextIO

from kansciml._errors import printable
from kansciml._files import to_jsonable, write_json, write_text

GAP = 2
"""Blanks between columns."""
MISSING = "-"
"""Shown for None and NaN: not measured, or not applicable."""


def format_number(value: Any, digits: int = 3) -> str:
    """`value` for a reader: integers in full, other numbers to `digits` significant digits.

    Plain notation from 0.001 to 99999, scientific elsewhere; None and NaN are a dash, booleans yes and no.
    """
    if value is None:
        return MISSING
    if isinstance(value, str):
        return printable(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's is no subclass of Python's
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(int(value))
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return MISSING
    if math.isinf(number) or number == 0:
        return f"{number + 0:g}"  # without the sign of zero
    text = f"{number:.{digits - 1}e}"  # rounded first, so that 0.00099996 counts as 0.001
    exponent = int(text.partition("e")[2])
    if not -3 <= exponent < 5:
        return f"{text.partition('e')[0]}e{exponent}"
    return f"{float(text):.{max(digits - 1 - exponent, 0)}f}"


@dataclass(frozen=True)
class Table:
    """A titled table.

    Args:
        title: one line.
        columns: headings, with units in brackets.
        rows: raw values (numbers, text, booleans, None), one per column.
        notes: lines below the table: what is compared, how, and what was left out.

    Raises:
        ValueError: a row of another length than `columns`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: got a row of {len(row)} values, expected {len(self.columns)}")

    def _numeric(self) -> list[bool]:
        """Columns with a number and no text: those are aligned right."""
        columns = [[row[index] for row in self.rows] for index in range(len(self.columns))]
        return [
            any(value is not None for value in column) and not any(isinstance(value, str) for value in column)
            for column in columns
        ]

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[format_number(value) for value in row] for row in self.rows]

    def text(self, width: int | None = None) -> str:
        """Aligned plain text without colours; `width` None makes it as wide as it needs to be."""
        stream = io.StringIO()
        self.print(stream, width=width or 10_000)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

    def print(self, stream: TextIO | None = None, width: int | None = None) -> None:
        """Print to `stream` (default standard output), in colour where it is a terminal.

        `width` None means the terminal's width, and as wide as needed where there is no terminal.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        stream = sys.stdout if stream is None else stream
        if width is None:
            width = Console(file=stream).width if stream.isatty() else 10_000
        headings, widths = self._layout(width)
        # A terminal too narrow for the numbers breaks the lines itself; cutting numbers off would lose them.
        console = Console(file=stream, width=max(width, sum(widths) + GAP * len(widths)), highlight=False)
        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for heading, size, numeric in zip(headings, widths, self._numeric()):
            table.add_column(Text(heading), justify="right" if numeric else "left", width=size, overflow="fold")
        for row in self.cells():
            table.add_row(*map(Text, row))
        console.print(Text(self.title, style="bold"))
        console.print(table)
        for note in self.notes:
            console.print(Text(note, style="dim"))

    def _layout(self, width: int) -> tuple[list[str], list[int]]:
        """Headings and widths of the columns: text is broken between words where `width` is short, numbers never."""
        cells, numeric = self.cells(), self._numeric()
        headings, widths, least = [], [], []
        for index, heading in enumerate(self.columns):
            column = [row[index] for row in cells]
            words = column if numeric[index] else " ".join(column).split()
            least.append(max(map(len, [*words, *heading.split()]), default=0))
            if numeric[index]:
                heading = "\n".join(textwrap.wrap(heading, least[-1], break_on_hyphens=False))
            widths.append(least[-1] if numeric[index] else max(map(len, [heading, *column])))
            headings.append(heading)
        while sum(widths) + GAP * len(widths) > width and widths != least:
            slack = [now - minimum for now, minimum in zip(widths, least)]
            widths[slack.index(max(slack))] -= 1  # the column with most to give narrows first
        return headings, widths

    def markdown(self) -> str:
        """A GitHub-flavoured Markdown table with its title as a heading."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = ["---:" if numeric else "---" for numeric in self._numeric()]
        body = [line(self.columns), line(rule), *map(line, self.cells())]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"### {self.title}\n", *body, *notes]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Title, rows as objects keyed by heading with unrounded values, and notes, in JSON types."""
        rows = [dict(zip(self.columns, row)) for row in self.rows]
        return to_jsonable({"title": self.title, "rows": rows, "notes": list(self.notes)})


def save_tables(tables: Sequence[Table], folder: Path, stem: str) -> list[Path]:
    """Write `tables` to ``stem.md`` and ``stem.json`` in `folder`; returns both paths."""
    markdown = write_text(folder / f"{stem}.md", "\n".join(table.markdown() for table in tables))
    return [markdown, write_json(folder / f"{stem}.json", [table.to_json() for table in tables])]
