"""``kansciml render RUN``: write the pictures and tables of a finished run anew, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml._errors import KansciError, UsageError
from kansciml.commands._output import Output, named_first, parse

SUMMARY = "write pictures and tables of a finished run anew"
EXAMPLES = (
    "kansciml render fig2  # the latest finished run of fig2",
    "kansciml render fig2-cf9c65",
    "kansciml render results/ode/00476e93b59b",
)


def main(arguments: Sequence[str], out: Output) -> int:
    name, rest = named_first(arguments, "render wants a finished run first: its folder, or its name, such as fig2")
    if any(argument.partition("=")[0] == "--folder" for argument in rest):
        raise UsageError("--folder is gone: kansciml render takes the folder of a run in place of its name")
    from kansciml.commands._experiments import report
    from kansciml.commands._named import NamedFlags, run_named
    from kansciml.runs.registry import get_experiment

    options = parse(NamedFlags, rest, "render RUN")
    record = run_named(name, options.results, out.log)
    if record.status != "finished":
        raise KansciError(f"the run in {record.folder} is not finished ({record.status}): resume it first")
    return report(get_experiment(record.experiment), record, out, render=True)
