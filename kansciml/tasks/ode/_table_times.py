"""Turns dates, clock times and durations into seconds, and sees whether times are those of one run."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int

from kansciml._errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

TIME_OF_DAY = re.compile(r"\d{1,2}:\d\d(?::\d\d(?:[.]\d+)?)?(?: ?[AaPp][Mm])?")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")


def seconds_of(column: pd.Series, since: str = "") -> tuple[Float64[np.ndarray, " T"], str] | None:
    """Seconds of a column of text, and the date or time of day that they count from (see `Clock`); None if it holds
    neither dates nor times of day.

    Times of day with seconds and durations count from zero, others and dates from the first of them, or from `since`;
    those that name time zones are compared.

    Raises:
        UsageError: dates that could be day-first or month-first; dates where times of day are expected by `since`, or
            the reverse.
    """
    import pandas as pd

    epoch, date = pd.Timestamp("1970-01-01"), False
    if column.str.fullmatch(r"(?:\d+ days? )?\d+:\d\d:\d\d(?:[.,]\d+)?").all():
        passed = pd.to_timedelta(column.str.replace(",", ".", regex=False))
        first = pd.Timedelta(0)
    elif column.str.fullmatch(TIME_OF_DAY).all():
        try:
            passed = pd.to_datetime("1970-01-01 " + column, format="mixed") - epoch
        except ValueError:
            return None
        first = passed.iloc[0]
    else:
        dates, date = _dates(column), True
        if dates is None:
            return None
        passed = dates.dt.tz_localize(None) - epoch
        first = passed.iloc[0]
    if since and date == bool(TIME_OF_DAY.fullmatch(since)):
        what = ("dates", "times of day") if date else ("times of day", "dates")
        raise UsageError(f"got {what[0]}, {column.iloc[0]!r}: expected {what[1]}, which count from {since}")
    if since:
        first = pd.Timestamp(since) - epoch if date else pd.Timedelta(since)
    else:
        since = (epoch + first).isoformat() if date else str(first).rpartition(" ")[2]
    return ((passed - first) / pd.Timedelta(1, "ns")).to_numpy(dtype=np.float64) / 1e9, since


def _dates(column: pd.Series) -> pd.Series | None:
    import pandas as pd

    def parsed(text: pd.Series = column, format: str | None = None) -> pd.Series | None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas warns where it guesses
            try:
                return pd.to_datetime(text, utc=True, format=format)
            except (ValueError, OverflowError, UserWarning):
                return None

    if column.str.fullmatch(r"\d{8}").all():
        return parsed(format="%Y%m%d")
    year_first = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
    if column.str.match(year_first).all():
        padded = column.str.replace(year_first, lambda m: f"{m[1]}-{int(m[2]):02}-{int(m[3]):02}", n=1, regex=True)
        return parsed(padded, format="ISO8601")
    numeric = re.match(r"\d{1,2}([-/.])\d{1,2}\1(\d{4}|\d{2})(?!\d)", column.iloc[0])
    if numeric is None:  # names of months, or no dates
        return parsed() if column.str.contains(r"\d.*[-/. :].*\d").all() else None
    year = "%Y" if len(numeric[2]) == 4 else "%y"
    orders = ["%d{0}%m{0}", "%m{0}%d{0}"][: 1 if numeric[1] == "." else 2]  # dots are of those who write the day first
    found = []
    for order in orders:
        tried = (parsed(format=order.format(numeric[1]) + year + clock) for clock in _CLOCKS)
        found += [dates for dates in tried if dates is not None][:1]
    if len(found) == 2 and not found[0].equals(found[1]):
        first, second = (dates.iloc[0].date() for dates in found)
        raise UsageError(f"{column.iloc[0]!r} could be {first} or {second}: write dates as YYYY-MM-DD")
    return found[0] if found else None


def restarts(t: Float64[np.ndarray, " T"]) -> Int[np.ndarray, " starts"]:
    """Rows at which times start again, as those of several runs below one another do; empty if they do not.

    They go back beyond the middle of the run before, and increase until they go back again.
    """
    falls = np.flatnonzero(np.diff(t) <= 0) + 1
    starts, ends = np.concatenate([[0], falls]), np.concatenate([falls, [len(t)]])
    for start, end, start_before, end_before in zip(starts[1:], ends[1:], starts, ends):
        back = t[start] < (t[start_before] + t[end_before - 1]) / 2
        if not back or (end - start < 2 and t[start] > t[0]):
            return falls[:0]
    return falls if ends[0] > 1 else falls[:0]


def side_by_side(t: Float64[np.ndarray, " T"]) -> bool:
    """Whether most times occur more than once, as those of runs that are sorted by time do."""
    times, counts = np.unique(t, return_counts=True)
    return len(times) > 1 and bool(np.mean(counts > 1) > 0.5)
