"""``kansciml evaluate RUN``: scores of a run's trained models, from the weights it kept and the data it was tested on.

Each kind of experiment has its own scores and flags: see `kansciml.runs.trained`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kansciml.commands._output import Output, flags_of, named_first, parse, take_option

SUMMARY = "scores of the trained models of a run: kansciml evaluate results/ode/... --data other.csv"
EXAMPLES = (
    "kansciml evaluate ode --data later.csv  # the latest run of kansciml ode, on other trajectories",
    "kansciml evaluate vision --split train  # the latest run of kansciml vision",
    "kansciml evaluate results/fno/1a2b3c4d5e6f --subsample 10 5 --model kan-spline",
)


DOC = (
    "Score the trained models of the finished run in folder RUN. Its kind has flags of its own, such as --split of"
    " image classifiers, --subsample of neural operators and --data of neural ODEs: kansciml evaluate RUN --help names"
    " them."
)


def main(arguments: Sequence[str], out: Output) -> int:
    run, rest = named_first(arguments, "evaluate wants a finished run first: its folder, or its name, such as fig2")
    from kansciml.commands._named import NamedFlags, run_named
    from kansciml.runs.progress import Progress
    from kansciml.runs.records import reading
    from kansciml.runs.registry import scoring_of
    from kansciml.runs.trained import ScoringOptions

    if not run:
        parse(flags_of(DOC, options=ScoringOptions(), where=NamedFlags()), ["--help"], "evaluate RUN")  # ends here
    results = take_option(rest, "--results")[0] or NamedFlags.results
    record = run_named(run, Path(results), out.log)
    scoring = scoring_of(record)
    parsed: Any = parse(flags_of(DOC, options=scoring.options(), where=NamedFlags()), rest, "evaluate RUN")
    with Progress() as progress, reading(record):
        document, tables = scoring.score(record, parsed.options, progress)
    out.result({"folder": str(record.folder), **document}, tables)
    return 0
