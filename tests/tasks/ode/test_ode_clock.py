"""Other tables of a system are read by the clock of the first: dates count from one origin, units are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from kansciml import UsageError
from kansciml.tasks.ode.data import read_table
from kansciml.tasks.ode.table import read_inputs

DAY = 86400.0
CLOCKS = {
    "dates": ("date,x\n2024-01-01,1\n2024-01-02,2\n", "date,x\n2024-01-02,1\n2024-01-04,2\n", [DAY, 3 * DAY]),
    "of another form": ("date,x\n2024-01-01,1\n2024-01-02,2\n", "x,date\n1,1 Jan 2024\n2,3 Jan 2024\n", [0, 2 * DAY]),
    "zones": ("t,x\n2024-01-01T01:00+01:00,1\n2024-01-02T00:00Z,2\n", "t,x\n2024-01-01 12:00,1\n2024-01-02,2\n", None),
    "hours of the day": ("t,x\n08:30,1\n09:00,2\n", "t,x\n09:30,1\n10:00:30,2\n", [3600, 5430]),
    "durations": ("t,x\n0:00:10,1\n0:00:20,2\n", "t,x\n0:00:40,1\n0:01:00,2\n", [40, 60]),
    "numbers": ("t [s],x\n5,1\n6,2\n", "t (sec),x\n7,1\n9,2\n", [7, 9]),
    "a column that is not named as a time": ("x,when\n1,5\n2,6\n", "x,when\n5,1\n6,2\n", [1, 2]),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_another_table_is_read_by_the_clock_of_the_first(case: str, tmp_path: Path) -> None:
    first, other, expected = CLOCKS[case]
    (tmp_path / "first.csv").write_text(first)
    (tmp_path / "other.csv").write_text(other)
    column = "when" if "when" in first else None
    (one,) = read_table(tmp_path / "first.csv", time_column=column, log=str)
    (two,) = read_table(tmp_path / "other.csv", clock=one.clock, log=str)
    assert two.t.tolist() == (expected or [DAY / 2, DAY]) and two.clock.since == one.clock.since
    inputs = read_inputs(tmp_path / "other.csv", ["x"], clock=one.clock, log=str)
    assert inputs.t.tolist() == two.t.tolist()


OTHER_CLOCKS = {
    "numbers for dates": (
        CLOCKS["dates"][0],
        "date,x\n0,1\n1,2\n",
        "holds numbers: expected dates.*from 2024-01-01T00",
    ),
    "dates for numbers": (
        "t,x\n0,1\n1,2\n",
        CLOCKS["dates"][0],
        "holds dates or times of day .2024-01-01.: expected num",
    ),
    "times of day for dates": (
        CLOCKS["dates"][0],
        "t,x\n08:30,1\n09:00,2\n",
        "got times of day, '08:30': expected dates",
    ),
    "dates for durations": (
        CLOCKS["durations"][0],
        CLOCKS["dates"][0],
        "got dates, '2024-01-01': expected times of day",
    ),
    "minutes for seconds": ("t [s],x\n5,1\n6,2\n", "t_min,x\n7,1\n9,2\n", "'t_min' is in another unit than 't .s.'"),
    "days for years": ("year,x\n5,1\n6,2\n", "day,x\n7,1\n9,2\n", "'day' is in another unit than 'year'"),
}


@pytest.mark.parametrize("case", OTHER_CLOCKS)
def test_times_of_another_kind_than_the_first_table_s_are_refused(case: str, tmp_path: Path) -> None:
    first, other, message = OTHER_CLOCKS[case]
    (tmp_path / "first.csv").write_text(first)
    (tmp_path / "other.csv").write_text(other)
    (one,) = read_table(tmp_path / "first.csv", log=str)
    for read_other in (read_table, lambda path, **clock: read_inputs(path, ["x"], **clock)):
        with pytest.raises(UsageError, match=message) as caught:
            read_other(tmp_path / "other.csv", clock=one.clock, log=str)
        assert "\n" not in str(caught.value)
