"""``kansciml results``: all records as a table with filters, or exported as flat rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "all results as a table with filters; results export --csv FILE | --json FILE"


@dataclass(frozen=True)
class Selection:
    """Which records, and which of their models."""

    results: Path = Path("results")
    """Folder of all results."""
    experiment: str | None = None
    """Only this experiment."""
    status: str | None = None
    """Only records of this status: finished, running, interrupted, failed."""


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


def _with_where(kind: type) -> type:
    """`kind` with ``--where``. Made when called: tyro is slow to import."""
    import tyro

    append = tyro.conf.UseAppendAction
    told = tyro.conf.arg(
        metavar="NAME=VALUE",
        help="Only where a setting or a metric has a value: grid=5, variant=mlp, 'final_loss<1e-3'; may be repeated.",
    )
    fields = [("where", Annotated[tuple[str, ...], append, told], dataclasses.field(default=()))]
    made = dataclasses.make_dataclass("Arguments", fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    if arguments and arguments[0] == "export":
        # Here --json names a file: what is printed are lines for the user
        return _export(parse(_with_where(Exported), arguments[1:], "results export"), Output())
    return _show(parse(_with_where(Listed), arguments, "results"), out)


def _show(options: Any, out: Output) -> int:
    from kansciml.reporting.results_table import per_record, results_table
    from kansciml.sweep.table import LOSSES

    rows = _selected(options, out)
    shown = rows if options.runs else per_record(rows)
    table = results_table(shown, options.columns, options.sort, LOSSES)
    records = len({row["folder"] for row in rows})
    out.result(
        {"records": records, "runs": len(rows), "rows": shown if not options.columns else table.to_json()["rows"]},
        [table] if rows else [],
        [f"{records} records, {len(rows)} runs" if rows else f"no record in {options.results} that was asked for"],
    )
    return 0


def _export(options: Any, out: Output) -> int:
    from kansciml._files import write_json, write_text
    from kansciml.reporting.results_table import to_csv

    if options.csv is None and options.json is None:
        raise UsageError("results export wants a file: --csv FILE, --json FILE, or both")
    rows = _selected(options, out)
    if options.csv is not None:
        write_text(options.csv, to_csv(rows))
    if options.json is not None:
        write_json(options.json, rows)
    for path in (options.csv, options.json):
        if path is not None:
            out.log(f"{len(rows)} rows in {path}")
    return 0


def _selected(options: Any, out: Output) -> list[dict[str, Any]]:
    """The flat rows of the records that are asked for."""
    from kansciml._errors import unknown_name
    from kansciml.reporting.results_table import Filter, flat_rows, load_all, select
    from kansciml.runs.records import STATUSES

    filters = [Filter.parse(text) for text in options.where]
    if options.status is not None and options.status not in STATUSES:
        raise unknown_name("status", options.status, STATUSES)
    records = list(load_all(options.results, out.log))
    if options.experiment is not None:
        there = sorted({record.experiment for record in records})
        if options.experiment not in there:
            raise UsageError(
                f"no record of experiment {options.experiment!r} in {options.results}: "
                f"there are {', '.join(there) or 'none at all'}"
            )
        records = [record for record in records if record.experiment == options.experiment]
    rows = [row for record in records for row in flat_rows(record)]
    rows = select(rows, filters)
    return [row for row in rows if options.status in (None, row["status"])]
