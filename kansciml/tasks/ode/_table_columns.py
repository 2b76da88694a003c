"""Which column of a table is what, by the names and the cells of the columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.ode._table_cells import DATE, Cells, grouped_number, plain_number

_UNIT = r"(?:[fpnuµμm]?s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|d|days?|weeks?|months?|a|yrs?|years?)"
_TIME = re.compile(rf"(?:t|times?|elapsed|elapsed[ _]time|time[ _]elapsed)(?:[\s_,.:-]+{_UNIT}\.*)?", re.I)
_STAMP = re.compile(r"timestamp|time[ _]?stamp|date|date[ _]?time|datum", re.I)
_INDEX = re.compile(
    r"|unnamed: ?\d+(\.\d+)?|index|idx|row(s|[ _.]?names?|[ _]?(number|no|nr|id|index))?|#|no\.?|nr\.?"
    r"|id|obs|observation|sample|record|entry",
    re.I,
)
_STEP = re.compile(r"step|iteration|iter|frame|tick|cycle", re.I)
_NUMBERED = r"(?:[ _.-]?(?:id|no|nr|num|number|name|index|idx|#))?"
RUN = re.compile(
    rf"(?:run|traj|trajectory|exp|experiment|trial|subject|patient|episode|sim|simulation|replicate|individual)"
    rf"{_NUMBERED}|id|.+[ _.-]id",
    re.I,
)
_SPELLED = {
    "s": "secs?|seconds?", "min": "mins|minutes?", "h": "hrs?|hours?", "d": "days?", "week": "weeks", "month": "months",
    "a": "y|yrs?|years?",
}  # fmt: skip
_ASK = "say which one holds the times by time_column= or --time-column"
COMPONENT = re.compile(r"variable|component|species|sensor|channel|measurement|signal|quantity|parameter", re.I)


class Columns:
    """The columns of a table; a column is told by its place, from 0, and in messages from 1.

    Args:
        source: name of the table for messages.
        cells: its text.

    Attributes:
        kept: places of the columns in use. notes: what was taken for what, where that is doubtful.
    """

    def __init__(self, source: str, cells: Cells) -> None:
        self.source, self.cells, self.frame = source, cells, cells.frame
        self.header = cells.names is not None
        self.names = cells.names or [""] * self.frame.shape[1]
        self.notes = list(cells.notes)
        self.number_note = ""
        """What was taken for a number, if it is not written as one."""
        self.kept = list(range(self.frame.shape[1]))
        self._parsed = {place: (values, ~np.isfinite(values)) for place, values in cells.numbers.items()}

    def error(self, text: str) -> UsageError:
        return UsageError(f"{self.source} {text}")

    def told(self, place: int) -> str:
        return f"column {place + 1}" + (f" {self.names[place]!r}" if self.names[place] else "")

    def named(self, wanted: str | int, what: str) -> int:
        """The place of a column by its name or number; `what` it is for, in messages.

        Raises:
            UsageError: there is none, or several.
        """
        wanted = str(wanted).strip()
        for same in (str, str.casefold, lambda name: _plain(name)[0]):
            found = [place for place, name in enumerate(self.names) if name and same(name) == same(wanted)]
            if len(found) > 1:
                raise self.error(f"has {len(found)} columns named {wanted!r}: give the number of the one for {what}")
            if found:
                return found[0]
        if wanted.isdigit() and 1 <= int(wanted) <= len(self.names):
            return int(wanted) - 1
        valid = [name for name in self.names if name] or [f"1 to {len(self.names)}, as there is no header"]
        raise self.error(f"has no column {wanted!r} for {what}: expected one of {', '.join(valid)}")

    def drop_indices(self, chosen: int | None) -> None:
        """Leave out what pandas and R write in front of the columns: numbers or names of rows."""
        times = [place for place in self.kept if self._rank(place) is not None] if chosen is None else [chosen]
        while (
            len(self.kept) > 1
            and (first := self.kept[0]) not in times
            and (_INDEX.fullmatch(self.names[first]) or _STEP.fullmatch(self.names[first]))
        ):
            column = self.frame[first]
            unnamed = self.names[first].lower().startswith("unnamed") or not self.names[first]
            whole, counts = bool(column.str.fullmatch(r"\d+").all()), self.counts(first)
            text = not column.str.fullmatch(plain_number(self.cells.decimal)).any() and not self.days(first)
            if counts and not times and not _STEP.fullmatch(self.names[first]):
                raise self.error(
                    f"has row numbers ({self.told(first)}) and no column named t or time: {_ASK};"
                    f" {first + 1} takes the row numbers"
                )
            steps = set(np.diff(column.astype(np.float64))) if whole else set()
            even = len(steps) == 1 and min(steps) > 0  # every tenth row
            if not times or not (even or counts or (unnamed and (whole or text))):
                return
            self.kept.pop(0)
            self.notes.append(f"{self.told(first)} is taken for row {'names' if text else 'numbers'} and left out")

    def counts(self, place: int) -> bool:
        """Whether a column counts the rows from 0 or 1."""
        return self.frame[place].tolist() in ([str(i + start) for i in range(len(self.frame))] for start in (0, 1))

    def _rank(self, place: int) -> int | None:
        """How much a name is that of a time, 0 the most; None if it is not."""
        plain, unit = _plain(self.names[place])
        if plain in ("t", "T") and unit and not re.fullmatch(_UNIT, unit, re.I):
            return None  # T [K]
        if _TIME.fullmatch(plain):
            return 1 if plain == "T" else 0  # beside a t, T is a temperature
        return 2 if _STAMP.fullmatch(plain) else None

    def is_time(self, place: int) -> bool:
        """Whether the name of a column is that of a time, beyond doubt."""
        return self._rank(place) in (0, 2)

    def time(self) -> int:
        """The column that is named as a time, else the first."""
        ranks = {place: rank for place in self.kept if (rank := self._rank(place)) is not None}
        best = [place for place, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) > 1:
            raise self.error(
                f"has {len(best)} columns that could be the time: {', '.join(map(self.told, best))}; {_ASK}"
            )
        if len(ranks) > 1:
            self.notes.append("another column could be the time, too")
        if best:
            return best[0]
        first, *others = self.kept
        if self.header:
            self.notes.append("no column is named t or time: the first is taken")
        elif len(others) > 1 and len(self.frame) > 2 and self.counts(first):
            values, bad = self.numbers(others[0])
            if not bad.any() and np.all(np.diff(values) > 0):
                self.notes.append("column 1 counts rows, and column 2 increases as times do")
        return first

    def drop_runs(self, time: int) -> None:
        """Leave out the name of the one run there is."""
        for place in [place for place in self.kept if place != time]:
            if RUN.fullmatch(self.names[place]) and len(self.kept) > 2 and self.frame[place].nunique() == 1:
                self.kept.remove(place)
                self.notes.append(f"{self.told(place)} has one value and is left out")

    def labels(self, states: Sequence[int]) -> tuple[str, ...]:
        """Names of columns, told apart where they have one name; none without a header."""
        if not self.header:
            return ()
        labels = [self.names[place] or f"u{i + 1}" for i, place in enumerate(states)]
        for i, label in enumerate(labels):
            if labels.index(label) != i:
                labels[i] = f"{label} ({states[i] + 1})"
                self.notes.append(f"columns {states[labels.index(label)] + 1} and {states[i] + 1} have one name")
        return tuple(labels)

    def numbers(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (T,) of a column, and which of its cells hold no finite number."""
        if place not in self._parsed:
            self._parsed[place] = self._parse(place)
        return self._parsed[place]

    def _parse(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        column, decimal = self.frame[place], self.cells.decimal
        plain = column.str.fullmatch(plain_number(decimal))
        grouped = ~plain & column.str.fullmatch(grouped_number(decimal))
        text = column.mask(grouped, column.str.replace(rf"[{',' if decimal == '.' else '.'}'\u2019\s]", "", regex=True))
        commas = plain & text.str.contains(",", regex=False)
        thousands = text[commas].str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}")
        if self.cells.separator == "," and commas.any() and thousands.all():
            cell = text[commas].iloc[0]
            raise self.error(
                f"{self.told(place)} holds {cell!r}, which could be {cell.replace(',', '')} or"
                f" {cell.replace(',', '.')}: write numbers without thousands separators"
            )
        text = text.str.replace(",", ".", regex=False).str.replace("[dD]", "e", regex=True)
        odd = column[grouped | commas]
        if len(odd) and not self.number_note:
            self.number_note = f"{odd.iloc[0]!r} is taken for {text[odd.index[0]]}"
        values = np.full(len(column), np.nan)
        good = (plain | grouped).to_numpy()
        values[good] = text[good].to_numpy(dtype=object).astype(np.float64)  # by Python's float, which is exact
        return values, ~np.isfinite(values)

    def days(self, place: int) -> bool:
        """Whether a column holds dates without times of day."""
        column = self.frame[place]
        return bool(column.str.fullmatch(DATE).all() and not column.str.contains(":").any())

    def groups(self, place: int) -> bool:
        """Whether a column tells groups of rows apart, and does not count rows or hold numbers that vary."""
        column = self.frame[place]
        names = column.str.fullmatch(r"[+-]?\d+(\.0*)?").all() or self.numbers(place)[1].all()
        return bool(names) and 1 < column.nunique() <= len(column) // 2

    def constant_within(self, place: int, starts: np.ndarray) -> bool:
        parts = [set(part) for part in np.split(self.frame[place].to_numpy(), starts)]
        return all(len(part) == 1 for part in parts) and len(set().union(*parts)) > 1


def unit_of(name: str) -> str:
    """The unit of time that the name of a column tells, such as ``min`` of ``t [min]``, ``t_min`` and ``minutes``;
    empty: none."""
    plain, unit = _plain(name)
    unit = unit or (found[1] if (found := re.fullmatch(rf"(?:.*[\s_,.:-])?({_UNIT})\.?", plain, re.I)) else "")
    unit = unit.strip(".").lower().replace("µ", "u").replace("μ", "u")
    return next((short for short, words in _SPELLED.items() if re.fullmatch(words, unit)), unit)


def _plain(name: str) -> tuple[str, str]:
    """A name without its unit in brackets or behind a slash, and that unit."""
    found = re.fullmatch(r"(.*?)\s*(?:[\[({<](.*?)[\])}>]?|/\s*([^/]*))", name.strip())
    return (found[1], (found[2] or found[3] or "").strip()) if found else (name.strip(), "")
