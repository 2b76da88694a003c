"""``kansciml ode``: train KAN and MLP neural ODEs on one system, in PyTorch or Julia."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.commands._experiments import run_from_flags
from kansciml.commands._output import Output

SUMMARY = "train KAN and MLP neural ODEs on a system or on your own data"


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.experiments.ode.experiment import EXPERIMENT

    return run_from_flags(EXPERIMENT, arguments, out, "ode")
