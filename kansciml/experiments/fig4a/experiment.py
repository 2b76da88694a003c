"""Figure 4a: memory of a training step against batch size, KAN against MLP, in models of images.

Command: ``kansciml run fig4a --preset small``.
Paper: "KAN-based models have significantly higher memory usage with poor scaling: while both [...] demonstrate a linear
growth in memory usage, the memory usage for the former grows at a much faster rate"; points beyond a 16 GB V100 are
missing. It gives neither sizes nor numbers: the mixers are those its other figures point to.
Forward pass, loss and backward pass are measured storage by storage on fake tensors, gradients counted, parameters and
AdamW's state apart, so that 16 GB and more need neither that memory nor a GPU. The KANs are the recursion that the
paper's sources use (`TextbookKAN`), `SplineKAN` and `RSWAFKAN`.
Expected, MB per sample (batch at which 16 GB are full), measured independently with efficient-kan: ``mixer-nano-c512``
3.84 (4038) with MLPs, 138.7 (111) with KANs; ``mixer-nano`` 5.74 (2702) and 205.3 (75). Measured here: 3.84 (4147),
139.6 (113), 5.74 (2779) and 207.2 (76), and with `SplineKAN` 2.79 (5653) and 4.05 (3914): less than with MLPs. The
whole of 16 GB (10^9 bytes) is used here, which the expected batches do not say of theirs.
In the blocks of a GPU (``--device gpu``) `SplineKAN` holds as many, but up to a batch between 128 and 1024 takes more
in all than the MLPs, at 128 1.3 and 1.7 times as much: a block alone may be 2^24 numbers.
Cost on one core: ``smoke`` 7 s, ``small`` up to 100 s, ``paper`` 145 s, with ``--device gpu`` 45 s; 0.5 GB, no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from kansciml._errors import check_names
from kansciml.experiments.memory.comparisons import comparisons
from kansciml.experiments.memory.findings import findings
from kansciml.experiments.memory.report import render, summary
from kansciml.experiments.memory.steps import IMAGES, Measured, MemoryConfig, measure_models
from kansciml.models.registry import build_model, find, model_config
from kansciml.runs.experiment import Experiment

REFERENCES = {
    "mixer-nano-c512": {"mlp": (3.84, 4038), "textbook": (138.7, 111)},
    "mixer-nano": {"mlp": (5.74, 2702), "textbook": (205.3, 75)},
}
"""MB per sample, and batch at which 16 GB are full, in float32: measured independently, the KANs efficient-kan's."""


@dataclass(frozen=True)
class Fig4aConfig(MemoryConfig):
    """Settings of Figure 4a; the defaults are the preset ``paper``."""

    models: tuple[str, ...] = ("mixer-nano-c512", "mixer-nano")
    """Names of vision models with their presets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("model", self.models)
        for name in self.models:
            find(name)


def measured(name: str) -> Measured:
    """The vision model of this name."""
    slots = (f"{slot.name} {'-'.join(map(str, slot.widths))}" for slot in model_config(name).slots())
    return Measured(name, f"{name}: {', '.join(slots)}", partial(build_model, name), REFERENCES.get(name, {}))


EXPERIMENT = Experiment(
    name="fig4a",
    title="Memory of a training step against batch size: vision models with KANs and with MLPs",
    item="Figure 4a",
    config=Fig4aConfig,
    presets={
        "smoke": Fig4aConfig(models=("conv-mixer-128-4",), batches=(1, 8, 32), limit_gb=0.5),
        "small": Fig4aConfig(batches=(1, 16, 128, 1024, 4096, 8192)),
        "paper": Fig4aConfig(),
    },
    costs={"small": "two minutes"},
    run=lambda config, context: measure_models("fig4a", map(measured, config.models), IMAGES, config, context),
    render=render,
    summary=summary,
    findings=findings,
    comparisons=comparisons,
    order=4,
    captions={
        "memory": "Memory of a training step against batch size; the line marks the limit, beyond which the paper's"
        " points are missing."
    },
)
