"""All records below a folder as one pandas frame, one row per trained model: queries, tables, CSV."""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kansciml._errors import UsageError, unknown_name
from kansciml._files import file_failure, list_folder, to_jsonable
from kansciml.runs.config_json import closest
from kansciml.runs.records import Record, load_records
from kansciml.runs.tables import Table
from kansciml.runs.typed import attributes

TRAINED_LISTS = ("runs", "models", "curves")
"""Names under which a result lists its trained (or measured) models, one object each."""
PREFIXES = ("", "config.", "run.", "result.", "machine.", "versions.")
"""Prefixes of columns, in their order, in which a name without one is looked for."""
NOT_RUNS = ("checkpoints", "sweeps")
NOT_VARYING = ("config.seeds", "config.first_seed", "config.data_dir")
MAX_VARYING = 6
Row = dict[str, Any]


def load_all(results: str | Path, log: Callable[[str], None]) -> Iterator[Record]:
    """Every record anywhere below `results`, by folder; sweeps and checkpoints are not entered.

    A record that is damaged, and a folder that may not be read, is one line for `log`.

    Raises:
        UsageError: there is no such folder. KansciError: it may not be read.
    """
    if not os.path.lexists(results):
        raise UsageError(f"no results folder {results}: run an experiment first, or name the folder with --results")
    list_folder(Path(results))
    found = []
    for folder, inner, names in os.walk(
        results, onerror=lambda error: log(f"left out: {file_failure('read', error.filename, error)}")
    ):
        inner[:] = (name for name in inner if name not in NOT_RUNS)
        if "record.json" in names:
            found.append(Path(folder))
    yield from load_records(sorted(found), log)


def flat_rows(record: Record) -> list[Row]:
    """One row per trained model of a record, or one for a record without.

    Columns: the record's own (``experiment``, ``status``, ``folder``, ``hash``, ``seeds`` ...), ``seed``,
    ``config.*`` the settings by their dotted names, ``run.*`` what the record says of the model, ``result.*`` the
    numbers of the whole result, ``machine.*`` and ``versions.*``. Lists stay lists.
    """
    trained = next((name for name in TRAINED_LISTS if is_list_of_objects(record.result.get(name))), None)
    common = {
        **attributes(record, "experiment status"),
        "folder": str(record.folder),
        "hash": record.config_hash,
        "message": record.message,
        "seeds": list(record.seeds),
        **attributes(record, "started finished wall_s sessions peak_memory_mb peak_memory_workers_mb commit"),
        **flatten(record.config, "config."),
        **flatten({name: value for name, value in record.result.items() if name not in TRAINED_LISTS}, "result."),
        **flatten(record.machine, "machine."),
        **flatten(record.versions, "versions."),
    }
    only = record.seeds[0] if len(record.seeds) == 1 else None
    if trained is None:
        return [{**common, "seed": only}]
    return [{**common, "seed": row.get("seed", only), **flatten(row, "run.")} for row in record.result[trained]]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Row:
    """Nested objects as dotted names; lists of plain values stay, lists of objects are left out."""
    found: Row = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif not (isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list, tuple)) for one in value)):
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """The `flat_rows` of all records; values are as they came, None where a row has none.

    Columns: the record's own first, then group by group, each in the order met.
    """
    rows = [row for record in records for row in flat_rows(record)]
    names = dict.fromkeys(name for row in rows for name in row)
    groups = [next((group for group in PREFIXES[1:] if name.startswith(group)), "") for name in names]
    ordered = [name for _, name in sorted(zip(map(PREFIXES.index, groups), names), key=lambda pair: pair[0])]
    return pd.DataFrame([[row.get(name) for name in ordered] for row in rows], columns=ordered, dtype=object)


def column_name(name: str, columns: Sequence[str]) -> str:
    """The full name of a column: itself, with a group before it, or the only one that ends so.

    Raises:
        UsageError: there is none, or there are several; the closest come first.
    """
    name = name.strip()
    for group in PREFIXES:
        if group + name in columns:
            return group + name
    name = name.removeprefix("field.")
    ending = [full for full in columns if full.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UsageError(f"column {name!r} could be any of {', '.join(ending)}: give the full name")
    raise unknown_name("column", name, [closest(name, columns)])


def select(frame: pd.DataFrame, query: str) -> pd.DataFrame:
    """The rows for which a pandas query holds, such as ``grid == 5 and variant == "mlp"``.

    Columns go by their full names between backticks (```config.grid```), or by what `column_name` takes where that is
    a name in Python. Lists are text: ``hidden == "10,10"``. A missing value passes no comparison.

    Raises:
        UsageError: no such query, or a column that no row has.
    """
    if frame.empty:
        return frame
    columns = list(map(str, frame))
    known = _mapped(frame, _cell)
    named = {}
    for short in {part for name in columns for part in (name.rpartition(".")[2], name.partition(".")[2])} - {""}:
        with contextlib.suppress(UsageError):  # not unique
            named[short] = known[column_name(short, columns)]
    try:
        holds = pd.DataFrame({**known, **named}).convert_dtypes().eval(query, engine="python")
    except pd.errors.UndefinedVariableError as error:
        (name,) = re.findall(r"name '(.*)' is not defined", str(error)) or [query]
        column_name(name, columns)
        raise UsageError(f"got --query {query!r}: {error}") from error
    except Exception as error:  # whatever Python can make of what it is given
        raise UsageError(f"got --query {query!r}: {' '.join(str(error).split())}") from error
    if not (isinstance(holds, pd.Series) and pd.api.types.is_bool_dtype(holds)):
        raise UsageError(f"got --query {query!r}: expected a condition such as grid == 5 and variant == 'mlp'")
    return frame[holds.fillna(False)]


def per_record(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per folder: what all its models have in common as it is, the median of numbers, and lists of text."""
    groups = [group for _, group in frame.groupby("folder", sort=False)] if len(frame) else []
    rows = [[*(_merged(group[name]) for name in frame), len(group)] for group in groups]
    return pd.DataFrame(rows, columns=[*frame, "runs"], dtype=object)


def results_table(
    frame: pd.DataFrame, columns: Sequence[str] = (), sort: str = "", losses: Sequence[str] = ()
) -> Table:
    """A table of the rows of a frame.

    Args:
        columns: names (as for `column_name`); none: a choice, among them the settings in which rows differ.
        sort: a column, with a minus in front for the largest first; empty: as the rows come. Missing values are last.
        losses: columns of the choice for what was measured, as far as there are any.
    """
    if frame.empty:
        return Table("Results", columns, [])
    known = list(map(str, frame))
    names = [column_name(name, known) for name in columns]
    if not names:
        shown = ["experiment", "status", "seeds", "runs", "run.variant", "run.group", *varying(frame)[:MAX_VARYING]]
        shown += [f"run.{name}" for name in losses if f"run.{name}" in known][:3]
        names = [name for name in (*shown, "wall_s", "folder") if name in known]
    if sort:
        by, falling = column_name(sort.lstrip("-"), known), sort.startswith("-")
        frame = frame.sort_values(by, ascending=not falling, key=_sort_key, na_position="last", kind="stable")
    headings = [name.removeprefix("config.").removeprefix("run.") for name in names]
    headings = headings if len(set(headings)) == len(headings) else names
    return Table("Results", headings, _mapped(frame[names], _cell).to_numpy().tolist())


def varying(frame: pd.DataFrame) -> list[str]:
    """Settings with more than one value among the rows of one experiment, but for seeds and where data lie."""
    names = [name for name in map(str, frame) if name.startswith("config.") and name not in NOT_VARYING]
    texts = _mapped(frame[names], lambda value: json.dumps(to_jsonable(value)))
    numbers = texts.groupby(frame["experiment"]).nunique()
    return [name for name in names if (numbers[name] > 1).any()]


def to_csv(frame: pd.DataFrame) -> str:
    """Comma-separated values below a line of headings; a missing value is empty, a list is JSON, a boolean a word."""
    return _mapped(frame, lambda one: json.dumps(one) if isinstance(one, (list, bool)) else one).to_csv(
        index=False, lineterminator="\n"
    )


def is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _merged(values: pd.Series) -> Any:
    """What the models of one record have in a column, as one value."""
    present = [value for value in values if value is not None]
    if all(value == values.iloc[0] for value in values):
        return values.iloc[0]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        return ", ".join(dict.fromkeys(str(_cell(value)) for value in present))
    return list(dict.fromkeys(present)) if values.name in ("seed", "run.seed") else statistics.median(present)


def _mapped(frame: pd.DataFrame, function: Callable[[Any], Any]) -> pd.DataFrame:
    """`function` of every value, kept as it comes: pandas' own would make floats of whole numbers beside None."""
    rows = [list(map(function, row)) for row in frame.itertuples(index=False, name=None)]
    return pd.DataFrame(rows, frame.index, frame.columns, dtype=object)


def _cell(value: Any) -> Any:
    return ",".join(str(_cell(one)) for one in value) if isinstance(value, (list, tuple)) else value


def _sort_key(column: pd.Series) -> pd.Series:
    """Numbers as such, and whatever else by its text."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().eq(column.notna()).all() else column.map(lambda one: str(_cell(one)), "ignore")
