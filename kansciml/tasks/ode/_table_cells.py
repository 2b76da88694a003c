"""Splits a CSV file into cells of text: encoding, separator, decimal sign, header."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml._errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "blanks"}
MISSING = frozenset(("", "nan", "nat", "na", "n/a", "#n/a", "null", "none", "-", ".", "?", "missing"))
_SAMPLE = 200
"""Rows that tell separator and decimal sign."""
_COMMENT = re.compile(r"\s*[#%](?!N/A|NA\b|DIV/0|VALUE|REF|NUM|NAME)")  # not the errors of a spreadsheet
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?|(?:\d+ days? )?\d+:\d\d(?::\d\d(?:\.\d+)?)?"
    r"|(?:\d{1,2}[- .]+[A-Za-z]{3,9}|[A-Za-z]{3,9} \d{1,2},)[- .]+\d{2,4}(?: .*)?"
)


@dataclass
class Cells:
    """Text of a table.

    Args:
        frame: stripped cells; its index holds the line numbers of the file, from 1.
        names: of the columns, "" where a header has none; None without a header.
        decimal: "." or ",".
        separator: one of `SEPARATORS`.
        notes: what was taken for what, where that is doubtful.
        numbers: values of columns that are numbers already, by place; NaN: missing.
    """

    frame: pd.DataFrame
    names: list[str] | None
    decimal: str
    separator: str
    notes: list[str] = field(default_factory=list)
    numbers: dict[int, np.ndarray] = field(default_factory=dict)


def plain_number(decimal: str) -> str:
    """Regular expression of a number without thousands separators."""
    d = re.escape(decimal)
    return rf"[+-]?(?:\d+{d}?\d*|{d}\d+)(?:[eEdD][+-]?\d+)?"


def grouped_number(decimal: str) -> str:
    """Regular expression of a number with thousands separators."""
    other = "," if decimal == "." else "."
    return rf"[+-]?\d{{1,3}}(?:[{other}'\u2019\u00a0\u202f ]\d{{3}})+(?:{re.escape(decimal)}\d+)?"


def read_cells(path: Path) -> Cells:
    """The cells of a file, as it is or compressed by gzip, bzip2, xz or zip.

    Blank lines, lines of separators alone and comments (``#``, ``%``) are left out. The header is the first row if none
    of its cells is a number, or the last comment before the data if it has as many cells (as NumPy writes it); a row of
    units below it is left out.

    Raises:
        UsageError: no such file, not text, no rows, one column, or rows of unequal length.
    """
    notes: list[str] = []
    lines, comment, separator = _lines(path, _text(path, _content(path), notes))
    if not lines:
        raise UsageError(f"{path} holds no rows of data: expected a time and at least one state component in each row")
    step = max(1, len(lines) // _SAMPLE)
    separator, decimal = _dialect([line for _, line in lines[:3] + lines[3::step]], separator)
    rows = _rows(path, [line for _, line in lines], separator)
    if max(map(len, rows)) < 2:
        raise UsageError(
            f"{path} has only one column: expected the time, then at least one state component, separated by commas,"
            " semicolons, tabs or blanks"
        )
    widths = [len(row) for row in rows]
    start = widths.index(max(set(widths), key=widths.count))
    if start and not any(_numeric(cell, decimal) for cell in rows[start]):  # a whole header below shorter rows
        notes.append(f"what stands above row {lines[start][0]}, the header, is left out")
        rows, lines = rows[start:], lines[start:]
    names = None
    if _is_header(rows, decimal):
        names = rows.pop(0)
        header_line, _ = lines.pop(0)
        while len(rows) > 1 and len(rows[0]) == len(names) and _is_units(rows[0], decimal):
            notes.append(f"row {lines.pop(0)[0]} is taken for units ({', '.join(rows.pop(0))})")
    if not rows:
        raise UsageError(f"{path} holds no rows of data: expected a time and at least one state component in each row")
    if names is None and comment is not None:
        found = _split(_COMMENT.sub("", comment, count=1), separator)
        names = found if len(found) == len(rows[0]) and not any(_numeric(cell, decimal) for cell in found) else None
    width = len(rows[0])
    for (line, _), row in zip(lines, rows):
        if len(row) != width or (names is not None and len(row) < len(names) and names[len(row) :] != [""]):
            expected = width if names is None else len(names)
            raise UsageError(f"{path} row {line}: got {len(row)} cells, expected {expected} as in the first row")
    if names is not None and width == len(names) + 1:
        trailing = not any(row[-1] for row in rows)
        names = [*names, ""] if trailing else ["", *names]  # R names no column of row names
    if names is not None and width > len(names):
        line = lines[0][0]
        raise UsageError(f"{path} row {line}: got {width} cells, expected {len(names)} as in row {header_line}")
    import pandas as pd

    frame = pd.DataFrame(rows, index=[number for number, _ in lines], dtype=str)
    if names is not None:
        names = names[:width]
    if (names is None or not names[-1]) and (frame[width - 1] == "").all():  # every line ends in a separator
        frame, names = frame.drop(columns=width - 1), names and names[:-1]
    return Cells(frame, names, decimal, separator, notes)


def _content(path: Path) -> bytes:
    expected = "expected a CSV file of times and states"
    try:
        data = path.read_bytes()
        for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress)):
            if data.startswith(magic):
                return unpack(data)
        if not data.startswith(b"PK\x03\x04"):
            return data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                what = "an Excel workbook" if any(name.startswith("xl/") for name in names) else "an archive of files"
                raise UsageError(f"{path} is {what}: save the table as CSV")
            return archive.read(names[0])
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: {expected}") from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} cannot be unpacked ({error}): {expected}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}): {expected}") from None


def _text(path: Path, data: bytes, notes: list[str]) -> str:
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        notes.append("the file is not UTF-8 and read as Windows-1252")
    if re.search(r"[\x00-\x08\x0e-\x1f]", text):
        raise UsageError(f"{path} is not readable text: expected a CSV file (UTF-8) of times and states")
    return text.replace("\u2212", "-")  # a typographer's minus


def _lines(path: Path, text: str) -> tuple[list[tuple[int, str]], str | None, str | None]:
    """(number, text) of each line of cells, the last comment before them, and a separator that the file names."""
    lines: list[tuple[int, str]] = []
    comment = separator = None
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not line.strip(' \t,;|"'):
            continue
        named = re.fullmatch(r'"?sep=(.)"?[,;]*', line.strip()) if not lines else None
        if named:
            separator = named[1]
        elif _COMMENT.match(line):
            comment = comment if lines else line
        elif lines and lines[-1][1].count('"') % 2 and line.count('"') % 2:  # a name of two lines, in quotes
            lines[-1] = lines[-1][0], f"{lines[-1][1]} {line}"
        else:
            lines.append((number, line))
    return lines, comment, separator


def _split(line: str, separator: str) -> list[str]:
    if separator == " ":
        line = re.sub(r"\s+", " ", line.strip())
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _rows(path: Path, lines: Sequence[str], separator: str) -> list[list[str]]:
    try:
        if separator == " ":
            rows = [_split(line, separator) for line in lines if line.count('"') % 2 == 0]
        else:
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
            rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error:
        rows = []
    if len(rows) != len(lines):
        raise UsageError(f"{path} has a quotation mark that is not closed: expected one line of the file for each row")
    return rows


def _dialect(lines: Sequence[str], named: str | None) -> tuple[str, str]:
    """Separator and decimal sign by which most cells are numbers, in rows of one length of at least two."""
    best, found = 0.0, (named or ",", ".")
    for separator in [named] if named else SEPARATORS:
        rows = [_split(line, separator) for line in lines]
        widths = [len(row) for row in rows]
        width = max(set(widths), key=widths.count)
        if width < 2:
            continue
        for decimal in ".,":
            cells = [cell for row in rows for cell in row]
            score = sum(_numeric(cell, decimal) or (cell.lower() in MISSING) / 2 for cell in cells) / len(cells)
            score *= widths.count(width) / len(widths)
            if score > best + 1e-9:
                best, found = score, (separator, decimal)
    return found


def _numeric(cell: str, decimal: str) -> float:
    """1 for a number, less for what could be one."""
    if re.fullmatch(plain_number(decimal), cell):
        return 1.0
    return 0.9 if re.fullmatch(grouped_number(decimal), cell) or DATE.fullmatch(cell) else 0.0


def _is_header(rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether the first row names the columns: no number in it, or names that are numbers behind an empty cell or t."""
    first = rows[0]
    numbers = [_numeric(cell, decimal) for cell in first]
    if not any(numbers):
        return True
    below = rows[1] if len(rows) > 1 else []
    behind = (first[0] == "" and below[:1] != [""]) or first[0].lower() in ("t", "time")
    return bool(below) and behind and all(numbers[1:])


def _is_units(row: Sequence[str], decimal: str) -> bool:
    """Whether a row below the header names units, such as ``s,m`` or ``[s],1``."""
    words = [cell for cell in row if cell.lower() not in MISSING | {"1"}]
    infinite = any(cell.lower().lstrip("+-") in ("inf", "infinity") for cell in words)
    return bool(words) and bool(row[0]) and not infinite and not any(_numeric(cell, decimal) for cell in words)
