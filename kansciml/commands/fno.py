"""``kansciml fno``: train neural operators on Darcy flow; under torchrun on many devices."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.commands._output import Output

SUMMARY = "train neural operators on Darcy flow, lift and projection by MLPs and by KANs"
EXAMPLES = (
    "kansciml fno --preset smoke  # generates 29 x 29 data and trains for three epochs",
    "kansciml fno --preset small --variant kan-spline --residual",
    "torchrun --nproc-per-node 4 -m kansciml fno --preset paper  # on four devices",
)


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.commands._experiments import run_on_ranks
    from kansciml.experiments.fno.experiment import EXPERIMENT

    return run_on_ranks(EXPERIMENT, arguments, out, "fno")
