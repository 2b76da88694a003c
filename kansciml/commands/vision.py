"""``kansciml vision``: train image classifiers with MLPs and with KANs; under torchrun on many devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kansciml.commands._output import Output, take_option

SUMMARY = "train image classifiers (mixer, ConvMixer, DeiT) with MLPs and with KANs"
EXAMPLES = (
    "kansciml vision  # an MLP-Mixer and its KAN on scikit-learn's digits: a minute",
    "kansciml vision --dataset cifar10 --model conv-mixer-128-4 --preset small",
    "torchrun --nproc-per-node 4 -m kansciml vision --model deit-tiny --preset paper",
)


def main(arguments: Sequence[str], out: Output) -> int:
    from kansciml.commands._experiments import run_on_ranks
    from kansciml.experiments.vision.experiment import EXPERIMENT, presets

    preset, model, dataset = (take_option(arguments, name)[0] for name in ("--preset", "--model", "--dataset"))
    if preset is None:
        return run_on_ranks(EXPERIMENT, arguments, out, "vision")
    # what a preset means depends on the model and the data set
    return run_on_ranks(replace(EXPERIMENT, presets=presets(model, dataset)), arguments, out, "vision")
