"""``kansciml run EXPERIMENT``: reproduce a figure or table of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml._errors import UsageError
from kansciml.commands._output import Output, wants_help

SUMMARY = "reproduce a figure or table: kansciml run fig2 --preset smoke|small|paper"


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.commands._ranks import run_on_ranks
    from kansciml.runs.registry import available_experiments, get_experiment

    if not arguments or arguments[0].startswith("-"):
        if wants_help(arguments):
            print("usage: kansciml run EXPERIMENT [--preset smoke|small|paper] [flags]; experiments: ", end="")
            print(", ".join(available_experiments()))
            return 0
        raise UsageError(f"run wants an experiment: one of {', '.join(available_experiments())}")
    experiment = get_experiment(arguments[0])
    return run_on_ranks(experiment, arguments[1:], out, f"run {experiment.name}")
