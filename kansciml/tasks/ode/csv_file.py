"""Reads a trajectory from a CSV file: finds out which column is what, and refuses what is doubtful."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.ode._csv_cells import DATE, MISSING, Cells, grouped_number, plain_number, read_cells
from kansciml.tasks.ode._csv_times import restarts, seconds_of, side_by_side
from kansciml.tasks.ode.trajectory import Trajectory

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
_RUN = re.compile(
    rf"(?:run|traj|trajectory|exp|experiment|trial|subject|patient|episode|sim|simulation|replicate|individual)"
    rf"{_NUMBERED}|id|.+[ _.-]id",
    re.I,
)
_ASK = "say which one holds the times by time_column= or --time-column"
_COMPONENT = re.compile(r"variable|component|species|sensor|channel|measurement|signal|quantity|parameter", re.I)


def read_csv(path: str | Path, time_column: str | None = None, log: Callable[[str], None] | None = None) -> Trajectory:
    """Read a table with one row per time: a column of times, every other column one component of the state.

    Separators (comma, semicolon, tab, bar, blanks), decimal sign, encoding and compression are recognised, comments
    (``#``, ``%``), blank lines and a row of units are left out: see `read_cells`. The time is the column of that name
    (``t``, ``time``, also ``Time [s]``, ``t_ms``, ``timestamp``, ``date``), else the first. Dates, also with times of
    day in a column of their own, become seconds from the first of them; clock times and durations become seconds. An
    index that pandas or R wrote (a first column without a name, or named as an index, that counts rows) is left out.
    Row numbers in messages are line numbers of the file, column numbers count from 1.

    Args:
        path: the file, also compressed by gzip, bzip2, xz or zip.
        time_column: name or number (from 1) of the column of times, where it is not found by its name.
        log: takes one line that says what was taken for what, where that is doubtful (default: a Python warning).

    Raises:
        UsageError: missing or unreadable file; a cell that is not a finite number; rows of unequal length; fewer than
            two columns or two rows; a time column that is not clear; several trajectories in one table; times that do
            not increase.
    """
    path = Path(path).expanduser()
    table = _Table(path, read_cells(path))
    found = table.trajectory(time_column)
    if table.notes:
        line = f"{path}: {'; '.join(table.notes)}"
        warnings.warn(line, stacklevel=2) if log is None else log(line)
    return found


class _Table:
    def __init__(self, path: Path, cells: Cells) -> None:
        self.path, self.cells, self.frame = path, cells, cells.frame
        self.header = cells.names is not None
        self.names = cells.names or [""] * self.frame.shape[1]
        self.notes = list(cells.notes)
        self.number_note = ""
        self.kept = list(range(self.frame.shape[1]))
        """Places of the columns in use, from 0."""
        self.parsed: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def trajectory(self, time_column: str | None) -> Trajectory:
        if len(self.kept) < 2:
            raise self.error(
                "has only one column: expected the time, then at least one state component, separated by commas"
            )
        chosen = self._named(time_column) if time_column is not None else None
        if self.header:
            self._drop_indices(chosen)
        time = self._time() if chosen is None else chosen
        t = self._times(time)
        self._refuse_several(t, time)
        self._drop_runs(time)
        states = [place for place in self.kept if place != time]
        if not states:
            raise self.error(f"has only one column, {self._told(time)}, besides row numbers: expected states, too")
        values = self._numbers(states)
        if len(self.frame) < 2:
            raise self.error("has only one row of data: expected at least two, the first being the initial state")
        self._require_increasing(t, time)
        found = Trajectory(t, values, self._labels(states), source=self.path.name)
        if self.number_note:
            self.notes.append(self.number_note)
        if self.notes:
            self.notes.insert(0, f"the time is {self._told(time)}, the state {', '.join(found.labels)}")
        return found

    def error(self, text: str) -> UsageError:
        return UsageError(f"{self.path} {text}")

    def _told(self, place: int) -> str:
        return f"column {place + 1}" + (f" {self.names[place]!r}" if self.names[place] else "")

    # ---- which column is what

    def _named(self, wanted: str) -> int:
        wanted = str(wanted).strip()
        for same in (str, str.casefold, lambda name: _plain(name)[0]):
            found = [place for place, name in enumerate(self.names) if name and same(name) == same(wanted)]
            if len(found) > 1:
                raise self.error(
                    f"has {len(found)} columns named {wanted!r}: give the number of the one with the times"
                )
            if found:
                return found[0]
        if wanted.isdigit() and 1 <= int(wanted) <= len(self.names):
            return int(wanted) - 1
        valid = [name for name in self.names if name] or [f"1 to {len(self.names)}, as there is no header"]
        raise self.error(f"has no column {wanted!r} for the time: expected one of {', '.join(valid)}")

    def _drop_indices(self, chosen: int | None) -> None:
        """Leave out what pandas and R write in front of the columns: numbers or names of rows."""
        times = [place for place in self.kept if self._rank(place) is not None] if chosen is None else [chosen]
        while (
            len(self.kept) > 1
            and (first := self.kept[0]) not in times
            and (_INDEX.fullmatch(self.names[first]) or _STEP.fullmatch(self.names[first]))
        ):
            column = self.frame[first]
            unnamed = self.names[first].lower().startswith("unnamed") or not self.names[first]
            whole, counts = bool(column.str.fullmatch(r"\d+").all()), self._counts(first)
            text = not column.str.fullmatch(plain_number(self.cells.decimal)).any() and not self._days(first)
            if counts and not times and not _STEP.fullmatch(self.names[first]):
                raise self.error(
                    f"has row numbers ({self._told(first)}) and no column named t or time: {_ASK};"
                    f" {first + 1} takes the row numbers"
                )
            steps = set(np.diff(column.astype(np.float64))) if whole else set()
            even = len(steps) == 1 and min(steps) > 0  # every tenth row
            if not times or not (even or counts or (unnamed and (whole or text))):
                return
            self.kept.pop(0)
            self.notes.append(f"{self._told(first)} is taken for row {'names' if text else 'numbers'} and left out")

    def _counts(self, place: int) -> bool:
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

    def _time(self) -> int:
        """The column that is named as a time, else the first."""
        ranks = {place: rank for place in self.kept if (rank := self._rank(place)) is not None}
        best = [place for place, rank in ranks.items() if rank == min(ranks.values())]
        if len(best) > 1:
            raise self.error(
                f"has {len(best)} columns that could be the time: {', '.join(map(self._told, best))}; {_ASK}"
            )
        if len(ranks) > 1:
            self.notes.append("another column could be the time, too")
        if best:
            return best[0]
        first, *others = self.kept
        if self.header:
            self.notes.append("no column is named t or time: the first is taken")
        elif len(others) > 1 and len(self.frame) > 2 and self._counts(first):
            values, bad = self._parsed(others[0])
            if not bad.any() and np.all(np.diff(values) > 0):
                self.notes.append("column 1 counts rows, and column 2 increases as times do")
        return first

    def _drop_runs(self, time: int) -> None:
        """Leave out the name of the one run there is."""
        for place in [place for place in self.kept if place != time]:
            if _RUN.fullmatch(self.names[place]) and len(self.kept) > 2 and self.frame[place].nunique() == 1:
                self.kept.remove(place)
                self.notes.append(f"{self._told(place)} has one value and is left out")

    def _labels(self, states: Sequence[int]) -> tuple[str, ...]:
        if not self.header:
            return ()
        labels = [self.names[place] or f"u{i + 1}" for i, place in enumerate(states)]
        for i, label in enumerate(labels):
            if labels.index(label) != i:
                labels[i] = f"{label} ({states[i] + 1})"
                self.notes.append(f"columns {states[labels.index(label)] + 1} and {states[i] + 1} have one name")
        return tuple(labels)

    # ---- numbers

    def _parsed(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (T,) of a column, and which of its cells hold no finite number."""
        if place not in self.parsed:
            self.parsed[place] = self._parse(place)
        return self.parsed[place]

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
                f"{self._told(place)} holds {cell!r}, which could be {cell.replace(',', '')} or"
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

    def _numbers(self, places: Sequence[int]) -> np.ndarray:
        parsed = [self._parsed(place) for place in places]
        bad = np.column_stack([wrong for _, wrong in parsed])
        for place, wrong in zip(places, bad.T):
            texts = [cell for cell in self.frame[place] if cell.lower() not in MISSING] if wrong.all() else []
            if texts and len(self.frame) > 1:
                raise self.error(
                    f"{self._told(place)} holds no numbers (row {self.frame.index[0]}, column {place + 1}: got"
                    f" {texts[0]!r}): expected a state component, leave the column out"
                )
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise self._cell_error(row, places[column])
        return np.column_stack([values for values, _ in parsed])

    def _cell_error(self, row: int, place: int) -> UsageError:
        cell = self.frame[place].iloc[row]
        gap = "; gaps are not supported yet, fill it in or leave the row out" if cell.lower() in MISSING else ""
        name = f" for {self.names[place]!r}" if self.names[place] else ""
        return self.error(
            f"row {self.frame.index[row]}, column {place + 1}: got {repr(cell) if cell else 'an empty cell'},"
            f" expected a finite number{name}{gap}"
        )

    # ---- times

    def _times(self, place: int) -> np.ndarray:
        """Values of the column of times, dates and clock times in seconds."""
        column = self.frame[place]
        values, bad = self._parsed(place)
        clock = column.str.fullmatch(r"\d{1,2}:\d\d(?::\d\d(?:[.]\d+)?)?(?: ?[AaPp][Mm])?").all()
        days = [other for other in self.kept if self._days(other)] if clock else []
        if len(days) == 1:  # times of day, and the days in a column of their own
            column = self.frame[days[0]] + " " + column
            self.kept.remove(days[0])
        if bad.all() or column.str.fullmatch(r"(?:19|20)\d{6}").all():  # 20240131 is a date as well
            try:
                found = seconds_of(column)
            except UsageError as error:
                raise self.error(f"{self._told(place)}: {error}") from None
            if found is not None:
                told = " with ".join(map(self._told, [place, *days]))
                self.notes.append(f"{told} is turned into {found[1]}")
                return found[0]
        if bad.any():
            gaps = column.str.lower().isin(MISSING).to_numpy()
            raise self._cell_error(int(np.argmax(gaps if gaps.any() else bad)), place)
        return values

    def _days(self, place: int) -> bool:
        """Whether a column holds dates without times of day."""
        column = self.frame[place]
        return bool(column.str.fullmatch(DATE).all() and not column.str.contains(":").any())

    def _refuse_several(self, t: np.ndarray, time: int) -> None:
        """Refuse a table of several trajectories, whether or not a column tells them apart."""
        others = [place for place in self.kept if place != time]
        again, mixed = restarts(t), side_by_side(t)
        by = [place for place in others if _RUN.fullmatch(self.names[place]) and self._groups(place)]
        if not (len(again) or mixed or by):
            return
        by = by or [place for place in others if len(again) and self._constant_within(place, again)]
        by = by or [place for place in others if mixed and self._parsed(place)[1].all() and self._groups(place)]
        if by and _COMPONENT.fullmatch(self.names[by[0]]):
            raise self.error(
                f"holds the components of the state below one another ({self._told(by[0])}): expected a column for each"
                " component and a row for each time, as pandas' DataFrame.pivot makes them"
            )
        why = [f"{self._told(by[0])} has {self.frame[by[0]].nunique()} values"] if by else []
        if len(again):
            why.append(f"the times start again in row {self.frame.index[again[0]]}")
        elif mixed:
            why.append("most times occur more than once")
        split = f" by {self._told(by[0])}" if by else ""
        digits = "; if they are of one, write its times to more digits" if mixed and not by and not len(again) else ""
        raise self.error(
            f"holds several trajectories ({', '.join(why)}), which are not supported yet in one table (there is no"
            f" --id-column yet): split it{split}, one file for each{digits}"
        )

    def _groups(self, place: int) -> bool:
        """Whether a column tells groups of rows apart, and does not count rows or hold numbers that vary."""
        column = self.frame[place]
        names = column.str.fullmatch(r"[+-]?\d+(\.0*)?").all() or self._parsed(place)[1].all()
        return bool(names) and 1 < column.nunique() <= len(column) // 2

    def _constant_within(self, place: int, starts: np.ndarray) -> bool:
        parts = [set(part) for part in np.split(self.frame[place].to_numpy(), starts)]
        return all(len(part) == 1 for part in parts) and len(set().union(*parts)) > 1

    def _require_increasing(self, t: np.ndarray, time: int) -> None:
        steps = np.diff(t)
        if np.all(steps > 0):
            return
        i = int(np.argmax(steps <= 0))
        before, now = self.frame[time].iloc[i], self.frame[time].iloc[i + 1]
        what, remedy = "repeats", "drop repeats"
        if steps[i] < 0:
            what = "is earlier than"
            remedy = "sort the rows by time if they are of one trajectory (several in one table are not supported yet)"
        told = f" ({self._told(time)})" if self.header else ""
        raise self.error(
            f"row {self.frame.index[i + 1]}: time {now} {what} the time {before} before it{told}: expected strictly"
            f" increasing times; {remedy}, or name another column by time_column= or --time-column"
        )


def _plain(name: str) -> tuple[str, str]:
    """A name without its unit in brackets or behind a slash, and that unit."""
    found = re.fullmatch(r"(.*?)\s*(?:[\[({<](.*?)[\])}>]?|/\s*([^/]*))", name.strip())
    return (found[1], (found[2] or found[3] or "").strip()) if found else (name.strip(), "")
