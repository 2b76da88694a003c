"""Tables in HTML. The page's script makes them sortable: every cell carries what it is sorted by."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
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


def table_html(table: Table, anchor: str) -> str:
    """`table` in a box of its own that scrolls where it is too wide, with its notes below."""
    columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    numeric = [sorts_as_numbers(column) for column in columns]
    texts = [[_shown(*cell) for cell in zip(*row)] for row in zip(table.rows, table.cells())]
    right = [number and max(map(len, column)) <= SHORT for number, column in zip(numeric, zip(*texts))]
    kinds = ["number" if number else "text" for number in numeric]
    head = "".join(
        f'<th scope="col" data-sort="{kind}"{_class(num=at_right)}>{escape(str(name).strip())}</th>'
        for name, kind, at_right in zip(table.columns, kinds, right or numeric)
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(*cell) for cell in zip(row, shown, numeric, right)) + "</tr>"
        for row, shown in zip(table.rows, texts)
    )
    return (
        f'<div class="table" id="{anchor}"><h4 id="{anchor}-title">{escape(table.title)}</h4>{scroll_box(table.title)}'
        f'<table class="sortable" aria-labelledby="{anchor}-title">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>{notes_html(table.notes)}</div>"
    )


def scroll_box(name: str) -> str:
    """Opening tag of a box that scrolls sideways; it can take the focus, so that the keyboard scrolls it too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'


def prose(text: str) -> str:
    """Plain text as HTML: what stands between backticks becomes code, and no line breaks within 5.6e-6."""
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\b\d+(?:\.\d+)?e-\d+\b", r'<span class="whole">\g<0></span>', coded)


def notes_html(notes: Sequence[str]) -> str:
    """What stands below a table."""
    if not notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{prose(note)}</li>" for note in notes) + "</ul>"


def _shown(value: Any, text: str) -> str:
    """The text of a cell; large whole numbers in groups of three digits."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return f"{int(value):,}" if whole and abs(int(value)) >= GROUPED else text


def _cell(value: Any, shown: str, numeric: bool, right: bool) -> str:
    attributes = _class(num=right, long=len(shown) > LONG)
    if is_missing(value):
        return f'<td{attributes} data-value=""><span class="none">{escape(shown or MISSING)}</span></td>'
    # the script reads Infinity, and not Python's inf
    key = f"{sort_value(value):.17g}".replace("inf", "Infinity") if numeric else shown
    # where the text is what it is sorted by, it need not be said twice
    own = "" if key == shown else f' data-value="{escape(key)}"'
    return f"<td{attributes}{own}>{escape(shown)}</td>"


def _class(**wanted: bool) -> str:
    names = [name for name, use in wanted.items() if use]
    return f' class="{" ".join(names)}"' if names else ""
