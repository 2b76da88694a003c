"""Tables as the page's templates show them: every cell carries what the page's script sorts it by."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from kansciml.runs.tables import MISSING, Table

_NUMBER = r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER_FIRST = re.compile(
    rf"\s*({_NUMBER})\s*(?:%|[a-zA-Z]{{1,3}})?\s*(?:(?:\+-|/)\s*{_NUMBER}\s*%?)?\s*(?:\(.*\).*)?\s*"
)
"""A number, perhaps with a unit, an error or a second number, and a remark that begins in brackets; not ``2-50-2``."""
SHORT = 16
"""A column of numbers is aligned right if no cell has more characters."""
LONG = 28
"""Text of more characters may be broken into lines; shorter text, and numbers, may not."""
GROUPED = 10_000
"""Whole numbers from here on are shown with a comma every three digits."""


@dataclass(frozen=True)
class Head:
    """Heading of a column, and whether it is sorted as ``number`` or ``text``."""

    text: str
    kind: str
    css: str | None


@dataclass(frozen=True)
class Cell:
    """A cell; `key` is what it is sorted by where that is not its text."""

    text: str
    css: str | None
    key: str | None
    missing: bool


@dataclass(frozen=True)
class TableView:
    """Headings and cells of a table."""

    heads: list[Head]
    rows: list[list[Cell]]


def table_view(table: Table) -> TableView:
    """`table` with the classes and the keys of its cells."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    numeric = [sorts_as_numbers(column) for column in columns]
    texts = [[_shown(*cell) for cell in zip(*row)] for row in zip(table.rows, table.cells())]
    right = [number and max(map(len, column)) <= SHORT for number, column in zip(numeric, zip(*texts))]
    heads = [
        Head(name.strip(), "number" if number else "text", "num" if at_right else None)
        for name, number, at_right in zip(table.columns, numeric, right or numeric)
    ]
    rows = [[_cell(*cell) for cell in zip(*row, numeric, right)] for row in zip(table.rows, texts)]
    return TableView(heads, rows)


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
    return value is None or str(value).strip() in ("", MISSING)


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
        return Cell(shown or MISSING, css, "", True)
    # the script reads Infinity, and not Python's inf
    key = f"{sort_value(value):.17g}".replace("inf", "Infinity") if numeric else shown
    return Cell(shown, css, None if key == shown else key, False)
