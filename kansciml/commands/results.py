"""``kansciml results``: all records as a table, queried and sorted, or exported as flat rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml._errors import UsageError, unknown_name
from kansciml.commands._output import JsonFlag, Output, parse

if TYPE_CHECKING:
    from pandas import DataFrame

SUMMARY = "all results as a table with queries; results export --csv FILE | --json FILE; results pack --to FOLDER"
EXAMPLES = (
    'kansciml results --experiment ode --query "grid == 5 and final_loss < 1e-3" --sort final_loss',
    "kansciml results export --csv all.csv",
    "kansciml results pack --experiment fig2 --to packed",
)


@dataclass(frozen=True)
class Selection:
    """Which records, and which of their models."""

    results: Path = Path("results")
    """Folder of all results."""
    experiment: str | None = None
    """Only this experiment."""
    status: str | None = None
    """Only records of this status: finished, running, interrupted, failed."""
    query: str = ""
    """Only where a pandas query holds: "grid == 5 and variant == 'mlp'", "final_loss < 1e-3", "hidden == '10,10'"."""


@dataclass(frozen=True)
class Listed(Selection, JsonFlag):
    """Show all records: one row each (medians over its models), or with --runs one row per trained model."""

    columns: tuple[str, ...] = ()
    """Columns by name, such as grid final_loss wall_s; default: what differs, and the losses."""
    sort: str = ""
    """A column to sort by; with - in front the largest first (--sort=-wall_s)."""
    runs: bool = False
    """One row per trained model."""


@dataclass(frozen=True)
class Exported(Selection):
    """Write one flat row per trained model: all settings, metrics, versions, commit, seed, folder."""

    csv: Path | None = None
    """File for comma-separated values."""
    json: Path | None = None
    """File for a JSON list of objects."""


@dataclass(frozen=True)
class Packed(Selection):
    """Write each finished record that is asked for into one small file, which reproduce --from reads."""

    to: Path | None = None
    """Folder of the files."""


def main(arguments: Sequence[str], out: Output) -> int:
    if any(argument.partition("=")[0] == "--where" for argument in arguments):
        raise UsageError(
            "--where is now --query, which takes a pandas query: --query \"grid == 5 and variant == 'mlp'\""
        )
    if arguments and arguments[0] == "export":
        # Here --json names a file: what is printed are lines for the user
        return _export(parse(Exported, arguments[1:], "results export"), Output())
    if arguments and arguments[0] == "pack":
        return _pack(parse(Packed, arguments[1:], "results pack"), Output())
    return _show(parse(Listed, arguments, "results"), out)


def _show(options: Listed, out: Output) -> int:
    from kansciml.reporting.results_table import per_record, results_table
    from kansciml.sweep.table import LOSSES

    frame = _selected(options, out)
    shown = frame if options.runs else per_record(frame)
    table = results_table(shown, options.columns, options.sort, LOSSES)
    records = frame["folder"].nunique() if len(frame) else 0
    rows = table.to_json()["rows"] if options.columns else shown.to_dict("records")
    out.result(
        {"records": records, "runs": len(frame), "rows": rows},
        [table] if len(frame) else [],
        [
            f"{records} records, {len(frame)} runs"
            if len(frame)
            else f"no record in {options.results} that was asked for"
        ],
    )
    return 0


def _export(options: Exported, out: Output) -> int:
    from kansciml._files import write_json, write_text
    from kansciml.reporting.results_table import to_csv

    if options.csv is None and options.json is None:
        raise UsageError("results export wants a file: --csv FILE, --json FILE, or both")
    frame = _selected(options, out)
    if options.csv is not None:
        write_text(options.csv, to_csv(frame))
    if options.json is not None:
        write_json(options.json, frame.to_dict("records"))
    for path in (options.csv, options.json):
        if path is not None:
            out.log(f"{len(frame)} rows in {path}")
    return 0


def _pack(options: Packed, out: Output) -> int:
    from kansciml.runs.archive import pack
    from kansciml.runs.records import load_record
    from kansciml.runs.registry import get_experiment

    if options.to is None:
        raise UsageError("results pack wants a folder: --to FOLDER")
    frame = _selected(replace(options, status="finished"), out)
    for folder in dict.fromkeys(frame["folder"]) if len(frame) else ():
        record = load_record(folder)
        path = pack(record, options.to, get_experiment(record.experiment).unshown(record))
        out.log(f"{folder}: {path}, {path.stat().st_size / 1e6:.2f} MB")
    if not len(frame):
        out.log(f"no finished record in {options.results} that was asked for")
    return 0 if len(frame) else 1


def _selected(options: Selection, out: Output) -> DataFrame:
    """The flat rows of the records that are asked for."""
    from kansciml.reporting.results_table import frame_of, load_all, select
    from kansciml.runs.records import STATUSES

    if options.status is not None and options.status not in STATUSES:
        raise unknown_name("status", options.status, STATUSES)
    records = list(load_all(options.results, out.log))
    there = sorted({record.experiment for record in records})
    if options.experiment not in (None, *there):
        raise UsageError(
            f"no record of experiment {options.experiment!r} in {options.results}: "
            f"there are {', '.join(there) or 'none at all'}"
        )
    asked = [
        record
        for record in records
        if options.experiment in (None, record.experiment) and options.status in (None, record.status)
    ]
    frame = frame_of(asked)
    return select(frame, options.query) if options.query else frame
