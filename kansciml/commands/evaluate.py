"""``kansciml evaluate RUN``: scores of a run's trained models, from the weights it kept and the data it was tested on.

Each kind of experiment has its own scores and flags: see `kansciml.runs.scoring`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, parse, wants_help

SUMMARY = "scores of the trained models of a run: kansciml evaluate results/vision/... or results/fno/..."


def _arguments(options: type) -> type:
    fields = [
        ("options", options, dataclasses.field(default=options())),
        ("output", JsonFlag, dataclasses.field(default=JsonFlag())),
    ]
    made = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    made.__doc__ = (
        "Score the trained models of the finished run in folder RUN. Its kind has flags of its own, such as --split of"
        " image classifiers and --subsample of neural operators: kansciml evaluate RUN --help names them."
    )
    return made


def main(arguments: Sequence[str], out: Output) -> int:
    first = arguments[0] if arguments else "-"
    if first.startswith("-") and not wants_help(arguments):
        raise UsageError("evaluate wants the folder of a finished run first, such as results/vision/1a2b3c4d5e6f")
    from kansciml.runs.progress import Progress
    from kansciml.runs.records import load_record, reading
    from kansciml.runs.registry import scoring_of
    from kansciml.runs.scoring import ScoringOptions

    if first.startswith("-"):
        parse(_arguments(ScoringOptions), ["--help"], "evaluate RUN")  # ends the program
    record = load_record(Path(first))
    scoring = scoring_of(record)
    parsed = parse(_arguments(scoring.options), arguments[1:], "evaluate RUN")
    with Progress() as progress, reading(record):
        document, tables = scoring.score(record, parsed.options, progress)
    out.result({"folder": str(record.folder), **document}, tables)
    return 0
