"""Tables as pandas, R, spreadsheets and instruments write them: the right columns, or one line of what is wrong."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kansciml import UsageError
from kansciml.tasks.ode.data import Trajectory, read_csv, read_table


def read(tmp_path: Path, content: str | bytes, time_column: str | None = None) -> tuple[Trajectory, str]:
    """What is read, and the line that was said about it."""
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    lines: list[str] = []
    return read_csv(path, time_column, lines.append), " ".join(lines)


# every one of these holds t = 0, 0.5 and x = 1.5, 2.5; then what is said, empty for nothing
SAME = {
    "pandas": (",t,x\n0,0.0,1.5\n1,0.5,2.5\n", "column 1 is taken for row numbers"),
    "pandas, rows chosen": (",t,x\n7,0.0,1.5\n9,0.5,2.5\n", "column 1 is taken for row numbers"),
    "pandas, written twice": (
        "Unnamed: 0,Unnamed: 0.1,t,x\n0,0,0,1.5\n1,1,0.5,2.5\n",
        "'Unnamed: 0.1' is taken for row",
    ),
    "R, write.csv": ('"","t","x"\n"1",0,1.5\n"2",0.5,2.5\n', "column 1 is taken for row numbers"),
    "R, names of rows": ('"","t","x"\n"a",0,1.5\n"b",0.5,2.5\n', "column 1 is taken for row names"),
    "R, write.table": ('"t" "x"\n"1" 0 1.5\n"2" 0.5 2.5\n', "column 1 is taken for row numbers"),
    "R, write.csv2": ('"";"t";"x"\n"1";0;1,5\n"2";0,5;2,5\n', "'0,5' is taken for 0.5"),
    "rownames": ("rownames,time,x\n1,0,1.5\n2,0.5,2.5\n", "'rownames' is taken for row numbers"),
    "index of pandas is the time": (",x\n0.0,1.5\n0.5,2.5\n", "the time is column 1"),
    "time last": ("x,t\n1.5,0\n2.5,0.5\n", ""),
    "unit in brackets": ("x,Time [s]\n1.5,0\n2.5,0.5\n", ""),
    "unit behind a line": ("x,time_ms\n1.5,0\n2.5,0.5\n", ""),
    "unit behind a slash": ("x,t/s\n1.5,0\n2.5,0.5\n", ""),
    "neither t nor time": ("when,x\n0,1.5\n0.5,2.5\n", "no column is named t or time: the first is taken"),
    "semicolons": ("t;x\n0;1.5\n0.5;2.5\n", ""),
    "decimal commas": ("t;x\n0,0;1,5\n0,5;2,5\n", "'0,0' is taken for 0.0"),
    "decimal commas in quotes": ('"t","x"\n"0,0","1,5"\n"0,5","2,5"\n', "'0,0' is taken for 0.0"),
    "tabs": ("t\tx\n0\t1.5\n0.5\t2.5\n", ""),
    "blanks": ("  t   x\n  0   1.5\n  0.5 2.5\n", ""),
    "np.savetxt": ("# t x\n0.0e+00 1.5e+00\n5.0e-01 2.5e+00\n", ""),
    "Fortran": ("t,x\n0D0,1.5D0\n5.0D-1,2.5D0\n", ""),
    "a minus sign of text": ("t,x\n0,1.5\n5e\u22121,2.5\n", ""),
    "comments between": ("t,x\n# first\n0,1.5\n% second\n0.5,2.5\n", ""),
    "units": ("t,x\ns,m\n0,1.5\n0.5,2.5\n", r"row 2 is taken for units \(s, m\)"),
    "preamble": ("Device X\nDate 2020\n\nt;x\n0;1.5\n0.5;2.5\n", "above row 4, the header, is left out"),
    "trailing separators": ("t,x,\n0,1.5,\n0.5,2.5,\n", ""),
    "trailing separators below the header": ("t,x\n0,1.5,\n0.5,2.5,\n", ""),
    "empty rows of a spreadsheet": ("t,x\n0,1.5\n,\n0.5,2.5\n,\n", ""),
    "named separator": ("sep=;\nt;x\n0;1.5\n0.5;2.5\n", ""),
    "header of two lines": ('"time\n[s]","x"\n0,1.5\n0.5,2.5\n', ""),
    "steps counted": ("step,t,x\n10,0,1.5\n20,0.5,2.5\n", "'step' is taken for row numbers"),
    "one run": ("run,t,x\n3,0,1.5\n3,0.5,2.5\n", "'run' has one value and is left out"),
    "clock times": ("time,x\n0:00:00,1.5\n0:00:00.5,2.5\n", "turned into seconds"),
    "dates": ("date,x\n2024-01-01 10:00:00,1.5\n2024-01-01 10:00:00.5,2.5\n", "seconds since 2024-01-01T10:00:00"),
    "UTF-16": ("t,x\n0,1.5\n0.5,2.5\n".encode("utf-16"), ""),
    "Windows-1252": ("t [µs],x\n0,1.5\n0.5,2.5\n".encode("cp1252"), "read as Windows-1252"),
    "gzip": (gzip.compress(b"t,x\n0,1.5\n0.5,2.5\n"), ""),
    "bzip2": (bz2.compress(b"t,x\n0,1.5\n0.5,2.5\n"), ""),
    "xz": (lzma.compress(b"t,x\n0,1.5\n0.5,2.5\n"), ""),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_numbers_however_they_are_written(case: str, tmp_path: Path) -> None:
    content, said = SAME[case]
    data, line = read(tmp_path, content)
    np.testing.assert_array_equal(data.t, [0.0, 0.5])
    np.testing.assert_array_equal(data.states, [[1.5], [2.5]])
    assert data.labels == ("x",)
    assert re.search(said, line) if said else not line


LONG = "run,t,x,y,f,w\na,0,1,2,5,1\nb,0,3,4,7,2\na,1,1.5,,6,1\nb,0.5,nan,5,8,2\nb,2,4,NA,9,2\n"


def table_of(tmp_path: Path, kind: str) -> object:
    """The same table in a file or in memory."""
    path = tmp_path / "runs.csv"
    path.write_text(LONG)
    frame = pd.read_csv(path)
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        path = tmp_path / "runs.parquet"
        frame.to_parquet(path)
    if kind == "xarray":
        pytest.importorskip("xarray")
        return frame.set_index(["run", "t"]).to_xarray()
    return {"frame": frame, "indexed": frame.set_index(["run", "t"])}.get(kind, path)


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame", "indexed", "xarray"])
def test_a_long_table_holds_trajectories_of_their_own_times(kind: str, tmp_path: Path) -> None:
    lines: list[str] = []
    table = table_of(tmp_path, kind)
    a, b = read_table(table, "run", states=["x", "y"], inputs=["f", "t"], weights=["w"], log=lines.append)
    assert (a.name, b.name, a.labels, a.input_labels) == ("a", "b", ("x", "y"), ("f", "t"))
    assert a.t.tolist() == [0.0, 1.0] and b.t.tolist() == [0.0, 0.5, 2.0]
    np.testing.assert_array_equal(a.states, [[1.0, 2.0], [1.5, np.nan]])
    np.testing.assert_array_equal(b.states, [[3.0, 4.0], [np.nan, 5.0], [4.0, np.nan]])
    assert b.inputs.tolist() == [[7.0, 0.0], [8.0, 0.5], [9.0, 2.0]]
    assert b.weights.tolist() == [[2.0, 2.0], [0.0, 2.0], [2.0, 0.0]]
    assert "3 of 10 values are missing" in lines[0]


def test_trajectories_of_an_xarray_data_set_may_have_times_of_their_own() -> None:
    xarray = pytest.importorskip("xarray")
    t, x = np.array([[0.0, 1.0, 2.0], [0.0, 0.5, np.nan]]), np.array([[1.0, 2.0, 3.0], [2.0, 3.0, np.nan]])
    data = xarray.Dataset({"x": (("run", "step"), x)}, {"t": (("run", "step"), t), "run": ["p", "q"]})
    p, q = read_table(data, "run")
    assert p.t.tolist() == [0.0, 1.0, 2.0] and q.t.tolist() == [0.0, 0.5] and q.states.tolist() == [[2.0], [3.0]]
    with pytest.raises(UsageError, match="say which one holds the trajectories by id_column"):
        read_table(data)
    array = xarray.DataArray(np.stack([t, x], axis=-1)[0], dims=("step", "variable"), coords={"variable": ["t", "x"]})
    (one,) = read_table(array, log=lambda line: None)
    assert one.labels == ("x",) and one.t.tolist() == [0.0, 1.0, 2.0]


NOT_LONG = {
    "unknown id": (
        LONG,
        {"id_column": "who"},
        "no column 'who' for the ids of trajectories: expected one of run, t, x",
    ),
    "unknown state": (LONG, {"id_column": "run", "states": ["z"]}, "no column 'z' for a state: expected one of run, t"),
    "unknown input": (LONG, {"id_column": "run", "inputs": ["z"]}, "no column 'z' for an input"),
    "named twice": (LONG, {"id_column": "run", "states": ["x"], "inputs": ["x"]}, "'x' is named for two things"),
    "weights": (LONG, {"id_column": "run", "states": ["x", "y", "f"], "weights": ["w", "w"]}, "'w' is named for two"),
    "number of weights": ("t,x,y,z,v,w\n0,1,1,1,1,1\n1,1,1,1,1,1\n", {"weights": ["v", "w"]}, "expected one, or 3"),
    "no id": ("run,t,x\na,0,1\na,1,2\n,2,3\n", {"id_column": "run"}, "row 4: no id in column 1 'run'"),
    "one row": ("run,t,x\na,0,1\na,1,2\nb,0,3\n", {"id_column": "run"}, "only one row of column 1 'run' 'b' .row 4"),
    "unsorted": (
        "run,t,x\na,0,1\nb,3,1\na,1,2\nb,2,3\n",
        {"id_column": "run"},
        "row 5: time 2 is earlier than the time 3 before it in trajectory 'b'",
    ),
    "repeated": ("run,t,x\na,0,1\na,0,2\n", {"id_column": "run"}, "time 0 repeats the time 0 .*trajectory 'a'"),
    "no input": (
        "run,t,x,f\na,0,1,\na,1,2,3\n",
        {"id_column": "run", "inputs": ["f"]},
        "trajectory a: input f is known",
    ),
    "no state": ("run,t,x\na,0,\na,1,\nb,0,1\nb,1,1\n", {"id_column": "run"}, "trajectory a: no measurement at all"),
    "text": ("t,x,note\n0,1,good\n1,2,bad\n", {"inputs": ["note"]}, "'note' holds no numbers.*expected an input"),
}


@pytest.mark.parametrize("case", NOT_LONG)
def test_a_long_table_that_is_wrong_is_one_clear_line(case: str, tmp_path: Path) -> None:
    content, options, message = NOT_LONG[case]
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_table(tmp_path / "data.csv", **options, log=lambda line: None)
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="got dict: expected a path, a pandas DataFrame"):
        read_table({"t": [0.0]})
    with pytest.raises(UsageError, match="the table holds no rows of data"):
        read_table(pd.DataFrame({"t": [], "x": []}))
    pytest.importorskip("pyarrow")
    pd.DataFrame({"t": [], "x": []}).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UsageError, match="empty.parquet holds no rows of data"):
        read_table(tmp_path / "empty.parquet")
    (tmp_path / "data.parquet").write_bytes(b"no")
    for name, message in (("data.parquet", "cannot be read as Parquet"), ("absent.parquet", "does not exist")):
        with pytest.raises(UsageError, match=message):
            read_table(tmp_path / name)


DAY = 86400.0
TIMES = {
    "months by name": ("date,x\n1 Feb 2024,1\n3 Feb 2024,2\n", 2 * DAY),
    "day first, as the second shows": ("date,x\n01/02/2024,1\n13/02/2024,2\n", 12 * DAY),
    "month first, as the second shows": ("date,x\n02/01/2024,1\n02/13/2024,2\n", 12 * DAY),
    "dots are of those who write the day first": ("date;x\n01.02.2024;1,5\n02.02.2024;2,5\n", DAY),
    "year first, without zeros": ("date,x\n2024/1/2,1\n2024/1/3,2\n", DAY),
    "no signs between": ("date,x\n20240131,1\n20240201,2\n", DAY),
    "half days": ("time,x\n1/31/2024 11:00 AM,1\n1/31/2024 1:00 PM,2\n", 7200.0),
    "zones": ("time,x\n2024-10-27T02:30:00+02:00,1\n2024-10-27T02:00:00+01:00,2\n", 1800.0),
    "days and times of day": ("date,time,x\n2024-01-01,23:59:59,1\n2024-01-02,00:00:01,2\n", 2.0),
    "days and times of day, blanks": ("t x\n2024-01-01 10:00:00 1\n2024-01-02 10:00:01 2\n", DAY + 1),
    "years are numbers": ("year,x\n1999,1\n2001,2\n", 2.0),
}


@pytest.mark.parametrize("case", TIMES)
def test_dates_become_seconds_from_the_first(case: str, tmp_path: Path) -> None:
    content, expected = TIMES[case]
    data, line = read(tmp_path, content)
    assert data.t[1] - data.t[0] == expected and data.states.tolist() in ([[1.0], [2.0]], [[1.5], [2.5]]) and line


REFUSED = {
    "no time beside row numbers": (",x,y\n0,1,2\n1,3,1\n", r"row numbers \(column 1\) and no column named t or time"),
    "two times": ("t,time,x\n0,0,1\n1,1,2\n", "2 columns that could be the time: column 1 't', column 2 'time'"),
    "thousands or decimals": ('t,x\n"0","1,234"\n"1","2,345"\n', "'1,234', which could be 1234 or 1.234"),
    "days or months": ("date,x\n01/02/2024,1\n02/02/2024,2\n", "could be 2024-02-01 or 2024-01-02"),
    "gap among dates": ("date,x\n2024-01-01,1\n,2\n2024-01-03,2\n", "row 3, column 1: got an empty cell"),
    "error of a spreadsheet": ("t,x\n0,1\n#N/A,2\n2,3\n", "row 3, column 1: got '#N/A'"),
    "column of text": (
        "t,x,quality\n0,1,good\n1,2,bad\n",
        "column 3 'quality' holds no numbers .*leave the column out",
    ),
    "infinite time": ("t,x\ninf,1\n1,2\n2,3\n", "row 2, column 1: got 'inf'"),
    "open quotation among blanks": ('t x\n0 "1\n1 2\n', "quotation mark that is not closed"),
    "too large": ("t,x\n0,1e400\n1,2\n", "row 2, column 2: got '1e400'"),
    "no number but to Python": ("t,x\n0,1_000\n1,2\n", "row 2, column 2: got '1_000'"),
    "open quotation": ('t,x\n0,"1\n1,2\n', "quotation mark that is not closed"),
    "unpacked in part": (gzip.compress(b"t,x\n0,1\n1,2\n")[:20], "cannot be unpacked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_doubtful_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = REFUSED[case]
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "data.csv") in str(caught.value) and "\n" not in str(caught.value)


SEVERAL = {
    "times start again": ("t,x\n0,1\n0.1,2\n0,3\n0.1,4\n", "the times start again in row 4"),
    "cut short": ("t,x\n0,1\n1,2\n2,2\n0,1\n1,3\n0,1\n", "the times start again in row 5"),
    "named run": ("run,t,x\n1,0,1\n1,1,2\n2,0,1\n2,1,2\n", "--id-column 'run'"),
    "named by text": ("t,x,experiment\n0,1,a\n1,2,a\n0,1,b\n1,2,b\n", "id_column='experiment'"),
    "one goes on where the other ends": ("run,t,x\n1,0,1\n1,1,2\n2,2,1\n2,3,2\n", "'run' has 2 values"),
    "by any other name": ("dose,t,x\n5,0,1\n5,1,2\n7,0,1\n7,1,2\n", "--id-column 'dose'"),
    "sorted by time": ("t,x\n0,1\n0,2\n1,3\n1,4\n2,5\n2,1\n", "most times occur more than once"),
    "sorted by time, named": ("t,subject_id,x\n0,1,1\n0,2,2\n1,1,3\n1,2,4\n", "--id-column 'subject_id'"),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_trajectories_are_not_to_be_sorted(case: str, tmp_path: Path) -> None:
    content, message = SEVERAL[case]
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, content)
    assert "several trajectories" in str(caught.value) and "sort" not in str(caught.value)


def test_components_below_one_another_are_not_trajectories(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="components of the state below one another .column 2 'variable'"):
        read(tmp_path, "t,variable,value\n0,prey,1\n0,lynx,2\n1,prey,3\n1,lynx,4\n")


def test_unsorted_rows_of_one_trajectory_are_to_be_sorted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"row 5: time 3 is earlier than the time 4 before it.*sort the rows by time"):
        read(tmp_path, "t,x\n0,1\n1,1\n4,1\n3,4\n5,4\n")


def test_a_temperature_is_no_time(tmp_path: Path) -> None:
    data, _ = read(tmp_path, "T,t\n300,0\n301,1\n")
    assert data.labels == ("T",) and data.t.tolist() == [0.0, 1.0]
    data, line = read(tmp_path, "x,T [K]\n0,300\n1,301\n")
    assert data.labels == ("T [K]",) and "the first is taken" in line


def test_two_columns_of_one_name_keep_apart(tmp_path: Path) -> None:
    data, line = read(tmp_path, "t,x,x\n0,1,2\n1,3,4\n")
    assert data.labels == ("x", "x (3)") and "columns 2 and 3 have one name" in line


@pytest.mark.parametrize("named", ["Zeit (s)", "zeit (S)", "Zeit", "3", 3])
def test_the_time_column_by_name_or_number(named: str, tmp_path: Path) -> None:
    data, line = read(tmp_path, "x,y,Zeit (s)\n1,2,0\n2,3,1\n", named)
    assert data.t.tolist() == [0.0, 1.0] and data.labels == ("x", "y") and not line
    with pytest.raises(UsageError, match=r"no column 'when' for the time: expected one of x, y, Zeit \(s\)"):
        read(tmp_path, "x,y,Zeit (s)\n1,2,0\n2,3,1\n", "when")


def test_row_numbers_are_times_where_they_are_said_to_be(tmp_path: Path) -> None:
    data, _ = read(tmp_path, ",x,y\n0,1,2\n1,0,3\n", "1")
    assert data.t.tolist() == [0.0, 1.0] and data.labels == ("x", "y")


def test_what_is_doubtful_is_a_warning_in_python(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(",t,x\n0,0,1\n1,1,2\n")
    with pytest.warns(UserWarning, match="the time is column 2 't', the state x; column 1 is taken for row numbers"):
        read_csv(path)


@pytest.mark.parametrize("options", [{}, {"sep": ";", "decimal": ","}, {"compression": "gzip"}, {"sep": "\t"}])
def test_pandas_own_file_is_read_back_exactly(options: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {"t": np.sort(rng.uniform(0, 9, 50)), "a": rng.standard_normal(50), "b": 1e-9 * rng.random(50)}
    )
    table.to_csv(tmp_path / "data.csv", **options)
    data = read_csv(tmp_path / "data.csv", log=lambda line: None)
    np.testing.assert_array_equal(data.t, table["t"])
    np.testing.assert_array_equal(data.states, table[["a", "b"]])


def test_ids_that_pandas_made_floats_are_named_as_whole_numbers() -> None:
    frame = pd.DataFrame({"run": [1.0, 1.0, 2.0, 2.0, 2.5, 2.5], "t": [0, 1, 0, 1, 0, 1], "x": np.arange(6.0)})
    assert [one.name for one in read_table(frame, "run")] == ["1", "2", "2.5"]
