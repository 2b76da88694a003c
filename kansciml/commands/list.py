"""``kansciml list``: the experiments, and what there is of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kansciml._errors import KansciError
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "list the experiments and their finished runs"


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """List experiments and runs."""

    results: Path = Path("results")
    """Folder of all results."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.experiments._registry import describe_experiments
    from kansciml.reporting.records import find_records, load_record
    from kansciml.reporting.tables import Table

    options = parse(Arguments, arguments, "list")
    listings = describe_experiments()
    runs = []
    for listing in listings:
        for folder in find_records(options.results, listing.name):
            try:
                record = load_record(folder)
            except KansciError as error:
                out.log(str(error))
                continue
            run = {"experiment": listing.name, "folder": str(folder), "status": record.status, "wall_s": record.wall_s}
            runs.append(run)
    experiments = Table(
        "Experiments",
        ["name", "reproduces", "title", "presets"],
        [[one.name, one.item, one.error or one.title, ", ".join(one.presets)] for one in listings],
    )
    found = Table("Runs", ["experiment", "folder", "status", "wall [s]"], [list(run.values()) for run in runs])
    tables = [experiments, found] if runs else [experiments]
    out.result({"experiments": [asdict(one) for one in listings], "runs": runs}, tables)
    return 0
