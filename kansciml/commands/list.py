"""``kansciml list``: the experiments, and what there is of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kansciml._errors import KansciError
from kansciml._files import list_folder
from kansciml.commands._output import JsonFlag, Output, parse

SUMMARY = "list the experiments and their finished runs"
EXAMPLES = (
    "kansciml list",
    "kansciml list --results elsewhere --json",
)


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """List experiments and runs."""

    results: Path = Path("results")
    """Folder of all results."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.runs.records import find_records, load_records
    from kansciml.runs.registry import describe_experiments
    from kansciml.runs.tables import Table

    options = parse(Arguments, arguments, "list")
    list_folder(options.results)  # that it may be read, before each experiment's own folder in it is
    listings = describe_experiments()
    runs = []
    for listing in listings:
        try:
            folders = find_records(options.results, listing.name)
        except KansciError as error:
            out.log(f"left out: {error}")
            continue
        for record in load_records(folders, out.log):
            runs.append({
                "experiment": listing.name, "folder": str(record.folder),
                "status": record.status, "wall_s": record.wall_s,
            })  # fmt: skip
    experiments = Table(
        "Experiments",
        ["name", "reproduces", "title", "presets"],
        [[one.name, one.item, one.error or one.title, ", ".join(one.presets)] for one in listings],
    )
    found = Table("Runs", ["experiment", "folder", "status", "wall [s]"], [list(run.values()) for run in runs])
    tables = [experiments, found] if runs else [experiments]
    out.result({"experiments": [asdict(one) for one in listings], "runs": runs}, tables)
    return 0
