"""Figure 4b: memory of a training step against batch size, KAN against MLP, in a neural operator for Darcy flow.

Command: ``kansciml run fig4b --preset small``.
Paper: with KANs in the lift and projection of a weight-tied FNO, memory grows with batch size and resolution until its
16 GB GPU is out of memory; "extremely high memory usage" is said to make training infeasible. It gives no numbers.
Three parts of one network are measured: lift and projection alone, where the KANs are; the whole of it; and the whole
of it when only the state between the iterations is kept and the rest is computed again for the backward pass.
Steps are measured storage by storage on tensors without data (`kansciml.experiments.memory.steps`).
Expected of lift and projection, MB per sample (batch at which 16 GB are full), measured independently, the KANs with
efficient-kan: 85 x 85 MLPs 12.0 (1290), KANs 409.5 (37); 241 x 241 96.6 (160) and 3292 (4); 421 x 421 295 (52) and
10,047 (1). Measured here: 12.2 (1308) and 435 (36); 97.8 (162) and 3500 (4); 298 (53) and 10,700 (1); with `SplineKAN`
15.9 (1004), 128 (124), 389 (40), with `RSWAFKAN` 8.5, 68, 208.
The whole network takes far more, whatever is at its ends. At 421 x 421, MB per sample: MLPs 4660, the recursion 15,000,
`SplineKAN` 4750; recomputed 713, 11,100 and 792 (batches of 22, 1 and 20 in 16 GB).
Cost on one core: ``smoke`` 27 s, ``small`` 110 s; less than 1 GB of memory, no GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import UsageError, check_names
from kansciml.experiments.memory.comparisons import comparisons
from kansciml.experiments.memory.findings import findings
from kansciml.experiments.memory.record import operator_name
from kansciml.experiments.memory.report import render, summary
from kansciml.experiments.memory.steps import Measured, MemoryConfig, Problem, measure_models
from kansciml.models.fno import with_coordinates
from kansciml.models.registry import build_model
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.tasks.darcy.metrics import relative_l2

MODEL = "fno-wt"
PARTS = {
    "ends": "lift and projection",
    "whole": "whole network",
    "recompute": "whole network, recomputed",
}
"""What is measured of the network, and its name in titles."""
REFERENCES = {
    ("ends", 85): {"mlp": (12.0, 1290), "textbook": (409.5, 37)},
    ("ends", 241): {"mlp": (96.6, 160), "textbook": (3292.0, 4)},
    ("ends", 421): {"mlp": (295.0, 52), "textbook": (10_047.0, 1)},
}
"""MB per sample, and batch at which 16 GB are full, in float32: measured independently, the KANs efficient-kan's."""


@dataclass(frozen=True)
class Fig4bConfig(MemoryConfig):
    """Settings of Figure 4b; the defaults are the preset ``paper``."""

    batches: tuple[int, ...] = tuple(2**k for k in range(13))
    """Batch sizes, ascending; each variant is measured up to the first that is out of memory."""
    resolutions: tuple[int, ...] = (85, 241, 421)
    """Points along a side of the square."""
    parts: tuple[str, ...] = tuple(PARTS)
    """ends (lift and projection alone), whole, or recompute (whole, keeping only what is between iterations)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("resolution", self.resolutions)
        check_names("part", self.parts, PARTS)
        if min(self.resolutions) < 15:  # with the padding, 24 points: as many as 12 modes need
            raise UsageError(f"got resolutions {self.resolutions}: expected at least 15 points along a side")


class Ends(nn.Module):
    """Lift and projection of an operator with nothing between them: (B, C, H, W) -> (B, O, H, W)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.config = network.config
        self.lift, self.projection = network.lift, network.projection

    def forward(self, a: Tensor) -> Tensor:
        return self.projection(self.lift(with_coordinates(a))).permute(0, 3, 1, 2)


def measured(part: str, resolution: int) -> Measured:
    """A part of `MODEL` at a resolution; it maps coefficients (B, 1, s, s) to solutions, and has a ``config``."""

    def build(variant: str) -> nn.Module:
        network = build_model(MODEL, variant, resolution=resolution, recompute=part == "recompute")
        return Ends(network) if part == "ends" else network

    title = f"{PARTS[part]}: {resolution} x {resolution}"
    return Measured(operator_name(part, resolution), title, build, REFERENCES.get((part, resolution), {}))


def _samples(network: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    config: Any = network.config
    side = config.resolution
    return torch.zeros(size, 1, side, side), torch.ones(size, side, side)


DARCY = Problem(_samples, lambda found, u: relative_l2(found[:, 0], u))
"""Coefficients (B, 1, s, s) and solutions (B, s, s) of the resolution that a network was built for."""


def run(config: Fig4bConfig, context: RunContext) -> Result:
    models = [measured(part, resolution) for part in config.parts for resolution in config.resolutions]
    return measure_models("fig4b", models, DARCY, config, context)


EXPERIMENT = Experiment(
    name="fig4b",
    title="Memory of a training step against batch size: a neural operator with KANs and with MLPs",
    item="Figure 4b",
    config=Fig4bConfig,
    presets={
        "smoke": Fig4bConfig(resolutions=(29,), batches=(1, 4, 16), limit_gb=0.2),
        "small": Fig4bConfig(batches=(1, 2, 16, 64, 512, 2048)),
        "paper": Fig4bConfig(),
    },
    costs={"small": "two minutes"},
    run=run,
    render=render,
    summary=summary,
    findings=findings,
    comparisons=comparisons,
    order=5,
    captions={
        "memory": "Memory of a training step of the neural operator against batch size; the line marks the limit."
    },
)
