"""All records below a folder as flat rows, one per trained model: filters, tables, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from kansciml._errors import KansciError, UsageError
from kansciml._files import file_failure, list_folder, to_jsonable
from kansciml.runs.records import Record, load_records
from kansciml.runs.tables import Table

TRAINED_LISTS = ("runs", "models", "curves")
"""Names under which a result lists its trained (or measured) models, one object each."""
GROUPS = ("", "config.", "run.", "result.", "machine.", "versions.")
"""Prefixes of columns, in the order in which a name without one is looked for."""
NOT_RUNS = ("checkpoints", "sweeps")
MAX_VARYING = 6
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """``name OPERATOR text``."""

    name: str
    operator: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read ``grid=5``, ``final_loss<1e-3``, ``variant!=mlp``, ``hidden=10,10``.

        Raises:
            UsageError: none of that form.
        """
        match = re.fullmatch(r"\s*([\w.@ -]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.+?)\s*", text)
        if match is None:
            raise UsageError(f"got --where {text!r}: expected name=value, or !=, <, <=, >, >= in place of =")
        return cls(match[1], match[2].replace("==", "="), match[3])

    def holds(self, value: Any) -> bool:
        """Whether a column's value passes. A missing one is equal to ``none``, and neither less nor more than another.

        Text and lists are compared as text, everything else as JSON.
        """
        if self.operator in ("=", "!="):
            return self._equals(value) == (self.operator == "=")
        try:
            return value is not None and bool(_OPERATORS[self.operator](value, _value(self.text)))
        except TypeError:  # a number against text
            return False

    def _equals(self, value: Any) -> bool:
        if isinstance(value, (str, list, tuple)):
            return _cell(value) == self.text.strip("()[]").replace(" ", "") or value == self.text
        wanted = _value(self.text)
        return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def find_all(results: str | Path, log: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Folders anywhere below `results` that hold a ``record.json``, sorted; sweeps and checkpoints are not entered.

    One that may not be read is a line for `log`.
    """
    found = []
    for folder, inner, names in os.walk(
        results, onerror=lambda error: log(f"left out: {file_failure('read', error.filename, error)}")
    ):
        inner[:] = sorted(name for name in inner if name not in NOT_RUNS)
        if "record.json" in names:
            found.append(Path(folder))
    return sorted(found)


def load_all(results: str | Path, log: Callable[[str], None]) -> Iterator[Record]:
    """Every record below `results`; a damaged one is one line for `log`.

    Raises:
        KansciError: there is no such folder, or it may not be read.
    """
    if not os.path.lexists(results):
        raise KansciError(f"no results folder {results}: run an experiment first, or name the folder with --results")
    list_folder(Path(results))
    yield from load_records(find_all(results, log), log)


def flat_rows(record: Record) -> list[Row]:
    """One row per trained model of a record, or one for a record without.

    Columns: the record's own (``experiment``, ``status``, ``folder``, ``hash``, ``seeds`` ...), ``seed``,
    ``config.*`` the settings by their dotted names, ``run.*`` what the record says of the model, ``result.*`` the
    numbers of the whole result, ``machine.*`` and ``versions.*``. Lists stay lists.
    """
    trained = next((name for name in TRAINED_LISTS if is_list_of_objects(record.result.get(name))), None)
    common = {
        "experiment": record.experiment,
        "status": record.status,
        "folder": str(record.folder),
        "hash": record.config_hash,
        "message": record.message,
        "seeds": list(record.seeds),
        "started": record.started,
        "finished": record.finished,
        "wall_s": record.wall_s,
        "sessions": record.sessions,
        "peak_memory_mb": record.peak_memory_mb,
        "peak_memory_workers_mb": record.peak_memory_workers_mb,
        "commit": record.commit,
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


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column of any row: the record's own first, then group by group, each in the order met."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    order = [group for group in GROUPS if group]

    def rank(name: str) -> int:
        return next((i + 1 for i, group in enumerate(order) if name.startswith(group)), 0)

    return sorted(names, key=rank)


def column_name(name: str, columns: Sequence[str]) -> str:
    """The full name of a column: itself, with a group before it, or the only one that ends so.

    Raises:
        UsageError: there is none, or there are several; the closest come first.
    """
    name = name.strip()
    for group in GROUPS:
        if group + name in columns:
            return group + name
    name = name.removeprefix("field.")
    ending = [full for full in columns if full.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise UsageError(f"column {name!r} could be any of {', '.join(ending)}: give the full name")
    close = sorted(columns, key=lambda one: -SequenceMatcher(None, name, one.rpartition(".")[2]).ratio())
    raise UsageError(f"unknown column {name!r}: expected one of {', '.join(close)}")


def select(rows: Sequence[Row], filters: Sequence[Filter]) -> list[Row]:
    """The rows that pass all filters.

    Raises:
        UsageError: a column that no row has.
    """
    columns = columns_of(rows)
    wanted = [(column_name(one.name, columns), one) for one in filters] if rows else []
    return [row for row in rows if all(one.holds(row.get(name)) for name, one in wanted)]


def per_record(rows: Sequence[Row]) -> list[Row]:
    """One row per folder: what all its models have in common as it is, the median of numbers, and lists of text."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["folder"], []).append(row)
    return [{**_merged(group), "runs": len(group)} for group in found.values()]


def results_table(
    rows: Sequence[Row], columns: Sequence[str] = (), sort: str = "", losses: Sequence[str] = ()
) -> Table:
    """A table of `rows`.

    Args:
        columns: names (as for `column_name`); none: a choice, among them the settings in which rows differ.
        sort: a column, with a minus in front for the largest first; empty: as the rows come. Missing values are last.
        losses: columns of the choice for what was measured, as far as there are any.

    Raises:
        UsageError: an unknown column.
    """
    known = columns_of(rows)
    names = [column_name(name, known) for name in columns] if columns and rows else list(columns)
    if not names:
        shown = ("experiment", "status", "seeds", "runs", "run.variant", "run.group")
        names = [name for name in shown if name in known]
        names += varying(rows)[:MAX_VARYING]
        names += [f"run.{name}" for name in losses if f"run.{name}" in known][:3]
        names += [name for name in ("wall_s", "folder") if name in known]
    if sort and rows:
        by = column_name(sort.lstrip("-"), known)
        rows = sorted(rows, key=lambda row: _sort_key(row.get(by)), reverse=sort.startswith("-"))
        rows = sorted(rows, key=lambda row: row.get(by) is None)
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    headings = [name.removeprefix("config.").removeprefix("run.") for name in names]
    headings = headings if len(set(headings)) == len(headings) else names
    return Table("Results", headings, cells)


def varying(rows: Sequence[Row]) -> list[str]:
    """Settings with more than one value among the rows of one experiment, but for seeds and where data lie."""
    found: dict[str, None] = {}
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == experiment]
        for name in columns_of(own):
            if name.startswith("config.") and name not in ("config.seeds", "config.first_seed", "config.data_dir"):
                if len({json.dumps(to_jsonable(row.get(name))) for row in own}) > 1:
                    found[name] = None
    return list(found)


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values below a line of headings; a missing value is empty, a list is JSON, a boolean a word."""
    columns = columns_of(rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in to_jsonable(list(rows)):
        values = (row.get(name) for name in columns)
        writer.writerow([json.dumps(one) if isinstance(one, (list, bool)) else one for one in values])
    return buffer.getvalue()


def is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _merged(rows: Sequence[Row]) -> Row:
    merged: Row = {}
    for name in columns_of(rows):
        values = [row.get(name) for row in rows]
        present = [value for value in values if value is not None]
        if all(value == values[0] for value in values):
            merged[name] = values[0]
        elif all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
            listed = name in ("seed", "run.seed")
            merged[name] = list(dict.fromkeys(present)) if listed else statistics.median(present)
        else:
            merged[name] = ", ".join(dict.fromkeys(str(_cell(value)) for value in present))
    return merged


def _cell(value: Any) -> Any:
    return ",".join(str(_cell(one)) for one in value) if isinstance(value, (list, tuple)) else value


def _sort_key(value: Any) -> tuple[int, Any]:
    """Numbers before text, whatever else by its text."""
    number = isinstance(value, (int, float))
    return (0, value) if number else (1, str(_cell(value)))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        words = {"none": None, "yes": True, "no": False}
        return words.get(text.lower(), text)
