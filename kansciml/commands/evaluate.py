"""``kansciml evaluate RUN``: scores of a run's trained models, from the weights it kept and the data it was tested on.

Each kind of experiment has its own scores and flags: see `kansciml.runs.trained`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kansciml.commands._output import JsonFlag, Output, flags_of, named_first, parse

SUMMARY = "scores of the trained models of a run: kansciml evaluate results/ode/... --data other.csv"


DOC = (
    "Score the trained models of the finished run in folder RUN. Its kind has flags of its own, such as --split of"
    " image classifiers, --subsample of neural operators and --data of neural ODEs: kansciml evaluate RUN --help names"
    " them."
)


def main(arguments: Sequence[str], out: Output) -> int:
    wanted = "evaluate wants the folder of a finished run first, such as results/vision/1a2b3c4d5e6f"
    run, rest = named_first(arguments, wanted)
    from kansciml.runs.progress import Progress
    from kansciml.runs.records import load_record, reading
    from kansciml.runs.registry import scoring_of
    from kansciml.runs.trained import ScoringOptions

    if not run:
        parse(
            flags_of(DOC, options=ScoringOptions(), output=JsonFlag()), ["--help"], "evaluate RUN"
        )  # ends the program
    record = load_record(run)
    scoring = scoring_of(record)
    parsed: Any = parse(flags_of(DOC, options=scoring.options(), output=JsonFlag()), rest, "evaluate RUN")
    with Progress() as progress, reading(record):
        document, tables = scoring.score(record, parsed.options, progress)
    out.result({"folder": str(record.folder), **document}, tables)
    return 0
