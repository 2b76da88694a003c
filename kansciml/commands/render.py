"""``kansciml render EXPERIMENT``: write the pictures and tables of finished runs anew, from their records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kansciml._errors import KansciError
from kansciml.commands._output import JsonFlag, Output, named_first, parse

SUMMARY = "write pictures and tables of a finished run anew"


@dataclass(frozen=True)
class Arguments(JsonFlag):
    """Render the most recent finished run of an experiment, or the run in a folder."""

    results: Path = Path("results")
    """Folder of all results."""
    folder: Path | None = None
    """Folder of one run; default: the most recent finished one."""


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.commands._experiments import report
    from kansciml.runs.records import DamagedRecord, find_records, load_record, load_records
    from kansciml.runs.registry import available_experiments, get_experiment

    name, rest = named_first(arguments, f"render wants an experiment: one of {', '.join(available_experiments())}")
    options = parse(Arguments, rest, "render EXPERIMENT")
    experiment = get_experiment(name)
    named = options.folder
    records = [load_record(named)] if named else load_records(find_records(options.results, name), out.log)
    for record in records:
        if record.status == "finished" and record.experiment == name:
            try:
                return report(experiment, record, out, render=True)
            except DamagedRecord as error:
                if named:
                    raise
                out.log(f"left out: {error}")
    raise KansciError(f"no finished run of {name} in {named or options.results}: kansciml run {name} makes one")
