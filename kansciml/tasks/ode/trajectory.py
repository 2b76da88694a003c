"""Observed states over time, and reading them from a CSV file."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kansciml._errors import UsageError


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States at save points. Arrays become read-only float64.

    Args:
        t: times (T,), strictly increasing, T >= 1.
        states: states (T, n), finite.
        labels: names of the n components; empty means u1, u2, ...
        source: where the numbers come from, for captions, e.g. a file name.

    Raises:
        UsageError: wrong shape, non-finite numbers, unsorted or repeated times.
    """

    t: np.ndarray
    states: np.ndarray
    labels: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        t = np.array(self.t, dtype=np.float64)
        states = np.array(self.states, dtype=np.float64)
        if t.ndim != 1 or states.ndim != 2 or len(t) != len(states) or len(t) == 0 or states.shape[1] == 0:
            raise UsageError(
                f"got times of shape {t.shape} and states of shape {states.shape}: expected (T,) and (T, n), T, n >= 1"
            )
        if not (np.isfinite(t).all() and np.isfinite(states).all()):
            raise UsageError("the trajectory holds a number that is not finite: remove NaN and infinite values")
        if np.any(np.diff(t) <= 0):
            raise UsageError("the times must be strictly increasing: sort them, drop repeats")
        labels = tuple(self.labels) or tuple(f"u{i + 1}" for i in range(states.shape[1]))
        if len(labels) != states.shape[1]:
            raise UsageError(f"got {len(labels)} labels: expected {states.shape[1]}, one per state component")
        t.setflags(write=False)
        states.setflags(write=False)
        object.__setattr__(self, "t", t)
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "labels", labels)

    @property
    def state_size(self) -> int:
        return self.states.shape[1]

    def __len__(self) -> int:
        """Number of save points T."""
        return len(self.t)

    def until(self, end: float) -> Trajectory:
        """The part with t <= end."""
        keep = self.t <= end
        return Trajectory(self.t[keep], self.states[keep], self.labels, self.source)

    def after(self, end: float) -> Trajectory:
        """The part with t > end."""
        keep = self.t > end
        return Trajectory(self.t[keep], self.states[keep], self.labels, self.source)


def read_csv(path: str | Path) -> Trajectory:
    """Read comma-separated data: first column time, every other column one state component.

    A first row in which no cell is a number is the header and names the components. Leading lines that start with ``#``
    are comments; the last of them is the header where there is no other, as NumPy writes it. Blank lines are skipped.
    Row numbers in messages are line numbers of the file, counted from 1.

    Raises:
        UsageError: missing or unreadable file; a cell that is not a finite number; rows of unequal length; fewer than
            two columns or two rows; times that are not strictly increasing.
    """
    path = Path(path)
    rows = _rows(path)
    comment: list[str] = []
    while rows and rows[0][1][0].startswith("#"):
        comment = [cell.lstrip("#").strip() for cell in rows.pop(0)[1]]
    if rows and all(_number(cell) is None for cell in rows[0][1]):
        labels = rows.pop(0)[1]
    else:
        labels = comment if rows and len(comment) == len(rows[0][1]) else []
    if not rows:
        raise UsageError(f"{path} holds no rows of data: expected a time and at least one state component in each row")
    width = len(labels) or len(rows[0][1])
    if width < 2:
        raise UsageError(
            f"{path} has only one column: expected the time, then at least one state component, separated by commas"
        )
    values = np.array([_values(path, line, cells, width) for line, cells in rows])
    if len(rows) < 2:
        raise UsageError(f"{path} has only one row of data: expected at least two, the first being the initial state")
    steps = np.diff(values[:, 0])
    if np.any(steps <= 0):
        i = int(np.argmax(steps <= 0))
        what = "repeats" if steps[i] == 0 else "is earlier than"
        raise UsageError(
            f"{path} row {rows[i + 1][0]}: time {values[i + 1, 0]:g} {what} the time {values[i, 0]:g} before it:"
            " expected strictly increasing times; sort the rows, drop repeats"
        )
    names = tuple(label or f"u{i + 1}" for i, label in enumerate(labels[1:]))
    return Trajectory(values[:, 0], values[:, 1:], names, source=path.name)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, stripped cells) of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if "".join(row).strip()]
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: expected a CSV file of times and states") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): expected a CSV file of times and states") from None
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(f"{path} is not readable text: expected a CSV file (UTF-8) of times and states") from None


def _number(cell: str) -> float | None:
    """The number in the cell, NaN and infinity included, or None."""
    try:
        return float(cell)
    except ValueError:
        return None


def _values(path: Path, line: int, cells: list[str], width: int) -> list[float]:
    if len(cells) != width:
        raise UsageError(f"{path} row {line}: got {len(cells)} cells, expected {width} as in the first row")
    numbers = []
    for column, cell in enumerate(cells, start=1):
        number = _number(cell)
        if number is None or not math.isfinite(number):
            got = repr(cell) if cell else "an empty cell"
            raise UsageError(f"{path} row {line}, column {column}: got {got}, expected a finite number")
        numbers.append(number)
    return numbers
