"""``kansciml ode``: train KAN and MLP neural ODEs on one system, in PyTorch or Julia."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.commands._experiments import run_from_flags
from kansciml.commands._output import Output

SUMMARY = "train KAN and MLP neural ODEs on a system or on your own data"
EXAMPLES = (
    "kansciml ode --system lotka  # KAN and MLP on Lotka-Volterra",
    "kansciml ode --system spiral --preset smoke --model kan --grid 8",
    "kansciml ode --data my.csv --train-fraction 0.7  # your own data; the last rows test the forecast",
    "kansciml ode --system lotka --backend both  # torch and Julia, compared",
)


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.experiments.ode.experiment import EXPERIMENT

    return run_from_flags(EXPERIMENT, arguments, out, "ode")
