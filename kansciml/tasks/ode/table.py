"""Reads trajectories from tables: finds out which column is what, and refuses what is doubtful."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml._errors import UsageError
from kansciml.models.inputs import Inputs
from kansciml.tasks.ode._table_cells import MISSING, Cells, read_cells
from kansciml.tasks.ode._table_columns import COMPONENT, RUN, Columns, unit_of
from kansciml.tasks.ode._table_frames import frame_cells, parquet_cells, xarray_frame
from kansciml.tasks.ode._table_times import TIME_OF_DAY, restarts, seconds_of, side_by_side
from kansciml.tasks.ode.trajectory import Clock, Trajectory

if TYPE_CHECKING:
    import pandas as pd

PARQUET = (".parquet", ".pq")


def read_table(
    table: str | Path | pd.DataFrame | Any,
    id_column: str | int | None = None,
    time_column: str | int | None = None,
    states: Sequence[str | int] = (),
    inputs: Sequence[str | int] = (),
    weights: Sequence[str | int] = (),
    input_kind: str = "linear",
    log: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> tuple[Trajectory, ...]:
    """Read trajectories from a table with one row per time of each: a column of times, columns of states, and others.

    Of text files separators (comma, semicolon, tab, bar, blanks), decimal sign, encoding and compression are
    recognised, comments (``#``, ``%``), blank lines and a row of units are left out: see `read_cells`. The time is the
    column of that name (``t``, ``time``, also ``Time [s]``, ``t_ms``, ``timestamp``, ``date``), else the first. Dates,
    also with times of day in a column of their own, become seconds from the first of them; clock times and durations
    become seconds. An index that pandas or R wrote (a first column without a name, or named as an index, that counts
    rows) is left out. Empty cells, ``nan`` and ``NA`` are states that were not measured. Row numbers in messages are
    line numbers of the file, or the index of a pandas table; column numbers count from 1.

    Args:
        table: a text file, also compressed by gzip, bzip2, xz or zip; a Parquet file; a pandas DataFrame, whose named
            index counts as columns; an xarray Dataset or DataArray (see `xarray_frame`).
        id_column: name or number (from 1) of the column that tells trajectories apart, by any values, in any order of
            rows; None: the table holds one trajectory.
        time_column: name or number of the column of times, where it is not found by its name.
        states: those of the columns of states; none: all columns that are nothing else.
        inputs: those of known inputs; the column of times may be one of them. Cells missing between others are filled.
        weights: those of the weights of the states in the training loss, as many as states, or one for all.
        input_kind: ``"linear"`` or ``"held"`` between rows: see `Trajectory`.
        log: takes one line that says what was taken for what, where that is doubtful (default: a Python warning).
        clock: that of another table of the same system: the time is the column of that name, if there is one, and dates
            count from where they do there (default: dates count from the first of this table).

    Raises:
        UsageError: missing or unreadable file; an unknown column; a cell that is no number; rows of unequal length;
            fewer than two columns, or than two rows of a trajectory; a time column that is not clear; several
            trajectories and no `id_column`; a row without id; times that do not increase; dates, numbers or a unit of
            time where `clock` tells others; what `Trajectory` refuses.
    """
    name, source = "the table", ""
    if isinstance(table, (str, Path)):
        path = Path(table).expanduser()
        name, source = str(path), path.name
        cells = parquet_cells(path) if path.suffix in PARQUET else read_cells(path)
    else:
        if hasattr(table, "data_vars") or hasattr(table, "to_dataset"):
            table, id_column = xarray_frame(table, id_column, time_column)
        if not hasattr(table, "iloc"):
            raise UsageError(f"got {type(table).__name__}: expected a path, a pandas DataFrame or xarray data")
        cells = frame_cells(table)
    reader = _Reader(name, cells, clock)
    found = reader.trajectories(id_column, time_column, states, inputs, weights, input_kind, source)
    reader.tell(log)
    return found


def read_csv(
    path: str | Path, time_column: str | int | None = None, log: Callable[[str], None] | None = None
) -> Trajectory:
    """The one trajectory of a table: see `read_table`."""
    (found,) = read_table(path, None, time_column, log=log)
    return found


def read_inputs(
    path: str | Path,
    inputs: Sequence[str | int],
    time_column: str | int | None = None,
    kind: str = "linear",
    log: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> Inputs:
    """Known inputs over time from a text or Parquet file with a row per knot: these columns, in this order.

    The column of times is found as by `read_table`, and may be one of the inputs if no other column is named as a time.
    `log` and `clock` are those of `read_table`.

    Raises:
        UsageError: what `read_table` refuses of a file; a missing number; times that do not increase.
    """
    path = Path(path).expanduser()
    reader = _Reader(str(path), parquet_cells(path) if path.suffix in PARQUET else read_cells(path), clock)
    found = reader.inputs(inputs, time_column, kind)
    reader.tell(log)
    return found


class _Reader:
    def __init__(self, name: str, cells: Cells, clock: Clock | None) -> None:
        self.columns, self.frame = Columns(name, cells), cells.frame
        self.expected, self.clock = clock, clock or Clock()

    def tell(self, log: Callable[[str], None] | None) -> None:
        """What was taken for what, in one line."""
        if self.columns.notes:
            line = f"{self.columns.source}: {'; '.join(self.columns.notes)}"
            warnings.warn(line, stacklevel=3) if log is None else log(line)

    def _named_time(self, time_column: str | int | None, taken: Sequence[int] = ()) -> int | None:
        """The column of times that is asked for, else the one of the expected name, if there is one."""
        if time_column is not None:
            return self.columns.named(time_column, "the time")
        name = self.clock.column
        found = [place for place, own in enumerate(self.columns.names) if name and own == name and place not in taken]
        return found[0] if len(found) == 1 else None

    def inputs(self, inputs: Sequence[str | int], time_column: str | int | None, kind: str) -> Inputs:
        columns = self.columns
        places = [columns.named(one, "an input") for one in inputs]
        chosen = self._named_time(time_column)
        if chosen is None:
            others = [place for place in columns.kept if place not in places]
            columns.kept = [*others, *(place for place in places if columns.is_time(place))]
            if any(map(columns.is_time, others)):
                columns.kept = others
            if not columns.kept:
                raise columns.error("has no column left for the time: name it by time_column= or --time-column")
        time = columns.time() if chosen is None else chosen
        t = self._times(time)
        self._require_increasing(t, time, np.arange(len(t)), "")
        return Inputs(t, np.column_stack([t if p == time else self._numbers([p], "an input") for p in places]), kind)

    def trajectories(
        self,
        id_column: str | int | None,
        time_column: str | int | None,
        states: Sequence[str | int],
        inputs: Sequence[str | int],
        weights: Sequence[str | int],
        input_kind: str,
        source: str,
    ) -> tuple[Trajectory, ...]:
        columns = self.columns
        if len(columns.kept) < 2:
            raise columns.error(
                "has only one column: expected the time, then at least one state component, separated by commas"
            )
        ids = None if id_column is None else columns.named(id_column, "the ids of trajectories")
        state_places, input_places, weight_places = (
            [columns.named(one, what) for one in names]
            for names, what in ((states, "a state"), (inputs, "an input"), (weights, "a weight"))
        )
        taken = [*state_places, *weight_places, *([] if ids is None else [ids])]
        chosen = self._named_time(time_column, taken)
        named = [*taken, *input_places, *(p for p in [chosen] if p in taken)]
        if twice := [place for place in named if named.count(place) > 1]:
            raise columns.error(f"{columns.told(twice[0])} is named for two things: expected it for one")
        columns.kept = [place for place in columns.kept if place not in taken]
        if not columns.kept:
            raise columns.error("has no column left for the time: name it by time_column= or --time-column")
        if columns.header and not states:
            columns.drop_indices(chosen)
        time = columns.time() if chosen is None else chosen
        t = self._times(time)
        if ids is None:
            columns.kept += state_places
            self._refuse_several(t, time)
            columns.drop_runs(time)
        if not states:
            state_places = [place for place in columns.kept if place not in (time, *input_places)]
        if not state_places:
            raise columns.error(f"has only one column, {columns.told(time)}, besides row numbers: expected states, too")
        if len(weight_places) not in (0, 1, len(state_places)):
            raise columns.error(f"got {len(weight_places)} columns of weights: expected one, or {len(state_places)}")
        values = self._numbers(state_places, "a state component")
        driving = np.column_stack([t if p == time else self._numbers([p], "an input") for p in input_places] or [t])
        weighing = self._numbers(weight_places, "a weight") if weight_places else np.ones((len(t), 1))
        weighing = np.broadcast_to(weighing, values.shape)
        labels, input_labels = columns.labels(state_places), columns.labels(input_places)
        found, clock = [], Clock(columns.names[time], self.clock.since)
        for name, rows in self._groups(ids).items():
            self._require_increasing(t, time, rows, name)
            parts = weighing[rows] if weights else None, driving[rows] if inputs else None
            try:
                one = Trajectory(t[rows], values[rows], labels, source, *parts, input_labels, input_kind, name, clock)
            except UsageError as error:
                raise UsageError(f"{columns.source}: {error}") from None
            found.append(one)
        self._note(time, values, found[0].labels)
        return tuple(found)

    def _note(self, time: int, values: np.ndarray, labels: Sequence[str]) -> None:
        columns = self.columns
        if columns.number_note:
            columns.notes.append(columns.number_note)
        if gaps := int(np.isnan(values).sum()):
            columns.notes.append(f"{gaps} of {values.size} values are missing")
        if columns.notes:
            columns.notes.insert(0, f"the time is {columns.told(time)}, the state {', '.join(labels)}")

    def _groups(self, ids: int | None) -> dict[str, np.ndarray]:
        """The rows of each trajectory by its name, in the order of their first rows."""
        columns = self.columns
        if ids is None:
            if len(self.frame) < 2:
                raise columns.error(
                    "has only one row of data: expected at least two, the first being the initial state"
                )
            return {"": np.arange(len(self.frame))}
        cells = self.frame[ids]
        empty = cells.str.lower().isin(MISSING - {"-", ".", "?"})
        if empty.any():
            row = self.frame.index[int(np.argmax(empty))]
            raise columns.error(f"row {row}: no id in {columns.told(ids)}: give the row one, or leave it out")
        found = self.frame.groupby(cells.to_numpy(), sort=False).indices
        whole = ids in columns.cells.numbers  # 1.0, as pandas has integers beside missing ones
        groups = {str(name).removesuffix(".0" * whole): np.asarray(rows) for name, rows in found.items()}
        for name, rows in groups.items():
            if len(rows) < 2:
                raise columns.error(
                    f"has only one row of {columns.told(ids)} {name!r} (row {self.frame.index[int(rows[0])]}): expected"
                    " at least two of each trajectory, the first being the initial state"
                )
        return dict(sorted(groups.items(), key=lambda item: item[1][0]))

    def _numbers(self, places: Sequence[int], what: str) -> np.ndarray:
        """Values (T, n) of columns; NaN: missing."""
        found = []
        for place in places:
            values, wrong = self.columns.numbers(place)
            odd = [i for i in np.flatnonzero(wrong).tolist() if self.frame[place].iloc[i].lower() not in MISSING]
            if odd and wrong.all() and len(self.frame) > 1:
                raise self.columns.error(
                    f"{self.columns.told(place)} holds no numbers (row {self.frame.index[odd[0]]}, column {place + 1}:"
                    f" got {self.frame[place].iloc[odd[0]]!r}): expected {what}, leave the column out"
                )
            if odd:
                raise self._cell_error(odd[0], place)
            found.append(values)
        return np.column_stack(found)

    def _cell_error(self, row: int, place: int) -> UsageError:
        cell, name = self.frame[place].iloc[row], self.columns.names[place]
        return self.columns.error(
            f"row {self.frame.index[row]}, column {place + 1}: got {repr(cell) if cell else 'an empty cell'},"
            f" expected a finite number{f' for {name!r}' if name else ''}"
        )

    def _times(self, place: int) -> np.ndarray:
        """Values of the column of times, dates and clock times in seconds."""
        columns = self.columns
        column = self.frame[place]
        values, bad = columns.numbers(place)
        days = (
            [other for other in columns.kept if columns.days(other)] if column.str.fullmatch(TIME_OF_DAY).all() else []
        )
        if len(days) == 1:  # times of day, and the days in a column of their own
            column = self.frame[days[0]] + " " + column
            columns.kept.remove(days[0])
        if bad.all() or column.str.fullmatch(r"(?:19|20)\d{6}").all():  # 20240131 is a date as well
            try:
                found = seconds_of(column, self.clock.since)
            except UsageError as error:
                raise columns.error(f"{columns.told(place)}: {error}") from None
            if found is not None:
                if self.expected is not None and not self.clock.since:
                    raise columns.error(
                        f"{columns.told(place)} holds dates or times of day ({column.iloc[0]}): expected numbers, as in"
                        " the data trained on"
                    )
                told = " with ".join(map(columns.told, [place, *days]))
                columns.notes.append(f"{told} is turned into seconds since {found[1]}")
                self.clock = replace(self.clock, since=found[1])
                return found[0]
        if bad.any():
            gaps = column.str.lower().isin(MISSING).to_numpy()
            raise self._cell_error(int(np.argmax(gaps if gaps.any() else bad)), place)
        if self.clock.since:
            raise columns.error(
                f"{columns.told(place)} holds numbers: expected dates or times of day, as in the data trained on, where"
                f" times count from {self.clock.since}"
            )
        own, expected = (unit_of(name) for name in (columns.names[place], self.clock.column))
        if own != expected and own and expected:
            raise columns.error(
                f"{columns.told(place)} is in another unit than {self.clock.column!r}, the time of the data trained on:"
                " expected the same; convert it"
            )
        return values

    def _refuse_several(self, t: np.ndarray, time: int) -> None:
        """Refuse a table of several trajectories, whether or not a column tells them apart."""
        columns = self.columns
        others = [place for place in columns.kept if place != time]
        again, mixed = restarts(t), side_by_side(t)
        by = [place for place in others if RUN.fullmatch(columns.names[place]) and columns.groups(place)]
        if not (len(again) or mixed or by):
            return
        by = by or [place for place in others if len(again) and columns.constant_within(place, again)]
        by = by or [place for place in others if mixed and columns.numbers(place)[1].all() and columns.groups(place)]
        if by and COMPONENT.fullmatch(columns.names[by[0]]):
            raise columns.error(
                f"holds the components of the state below one another ({columns.told(by[0])}): expected a column for"
                " each component and a row for each time, as pandas' DataFrame.pivot makes them"
            )
        why = [f"{columns.told(by[0])} has {self.frame[by[0]].nunique()} values"] if by else []
        if len(again):
            why.append(f"the times start again in row {self.frame.index[again[0]]}")
        elif mixed:
            why.append("most times occur more than once")
        name = (columns.names[by[0]] or str(by[0] + 1)) if by else ""
        remedy = f"say so by id_column={name!r} or --id-column {name!r}" if by else "add a column that names them"
        digits = "; if they are of one, write its times to more digits" if mixed and not by and not len(again) else ""
        raise columns.error(f"holds several trajectories ({', '.join(why)}): {remedy}{digits}")

    def _require_increasing(self, t: np.ndarray, time: int, rows: np.ndarray, name: str) -> None:
        steps = np.diff(t[rows])
        if np.all(steps > 0):
            return
        i = int(np.argmax(steps <= 0))
        before, now = (self.frame[time].iloc[rows[at]] for at in (i, i + 1))
        what, remedy = "repeats", "drop repeats"
        if steps[i] < 0:
            what, remedy = "is earlier than", "sort the rows by time"
            remedy += "" if name else ", if they are of one trajectory"
        told = f" ({self.columns.told(time)})" if self.columns.header else ""
        raise self.columns.error(
            f"row {self.frame.index[int(rows[i + 1])]}: time {now} {what} the time {before} before it"
            f"{f' in trajectory {name!r}' if name else ''}{told}: expected strictly increasing times; {remedy}, or name"
            " another column by time_column= or --time-column"
        )
