"""``kansciml tune``: search settings of KAN and MLP neural ODEs with equally many trials, and compare the best."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.commands._experiments import run_from_flags
from kansciml.commands._output import Output

SUMMARY = "tune KAN and MLP neural ODEs with equally many trials, and compare them tuned and untuned"
EXAMPLES = (
    "kansciml tune --preset smoke",
    "kansciml tune --systems lotka --trials 24",
)


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.experiments.tune.experiment import EXPERIMENT

    return run_from_flags(EXPERIMENT, arguments, out, "tune")
