"""``kansciml run EXPERIMENT``: reproduce a figure or table of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.commands._output import Output, named_first

SUMMARY = "reproduce a figure or table: kansciml run fig2 --preset smoke|small|paper"
EXAMPLES = (
    "kansciml run fig1 --preset smoke",
    "kansciml run fig2 --preset small --backend torch",
    "kansciml run fig2 --help  # its flags, and what each preset is",
    "kansciml list  # what the experiments are",
)


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.commands._experiments import run_on_ranks
    from kansciml.runs.registry import available_experiments, get_experiment

    names = ", ".join(available_experiments())
    name, rest = named_first(arguments, f"run wants an experiment: one of {names}")
    if not name:
        print(f"usage: kansciml run EXPERIMENT [--preset smoke|small|paper] [flags]; experiments: {names}")
        return 0
    return run_on_ranks(get_experiment(name), rest, out, f"run {name}")
