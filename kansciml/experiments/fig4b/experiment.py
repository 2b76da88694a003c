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

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kansciml._errors import UsageError, unknown_name
from kansciml.experiments.memory.findings import findings
from kansciml.experiments.memory.report import render, summary
from kansciml.experiments.memory.steps import (
    REFERENCE_GB,
    MemoryConfig,
    as_variant,
    built_as,
    measure_curve,
    require_different,
)
from kansciml.runs.experiment import Experiment, Result, RunContext

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL = "fno-wt"
PARTS = {
    "ends": "lift and projection",
    "whole": "whole network",
    "recompute": "whole network, recomputed",
}
"""What is measured of the network, and its name in titles."""
REFERENCE = {
    ("ends", 85, "mlp"): (12.0, 1290),
    ("ends", 85, "textbook"): (409.5, 37),
    ("ends", 241, "mlp"): (96.6, 160),
    ("ends", 241, "textbook"): (3292, 4),
    ("ends", 421, "mlp"): (295, 52),
    ("ends", 421, "textbook"): (10_047, 1),
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
        require_different("resolutions", self.resolutions)
        require_different("parts", self.parts)
        for part in self.parts:
            if part not in PARTS:
                raise unknown_name("part", part, PARTS)
        if min(self.resolutions) < 15:  # with the padding, 24 points: as many as 12 modes need
            raise UsageError(f"got resolutions {self.resolutions}: expected at least 15 points along a side")


def build_part(part: str, resolution: int, variant: str) -> nn.Module:
    """What of `MODEL` is measured; it maps fields (B, 1, s, s) to fields, and has a ``config``."""
    from kansciml.models.registry import build_model

    options = {"resolution": resolution, "recompute": part == "recompute"}
    network = as_variant(build_model(MODEL, built_as(variant), **options), variant)
    return _ends(network) if part == "ends" else network


def _ends(network: nn.Module) -> nn.Module:
    from torch import nn

    from kansciml.models.fno import with_coordinates

    class Ends(nn.Module):
        """Lift and projection with nothing between them: (B, C, H, W) -> (B, O, H, W)."""

        def __init__(self) -> None:
            super().__init__()
            self.config = network.config
            self.lift, self.projection = network.lift, network.projection

        def forward(self, a: Tensor) -> Tensor:
            return self.projection(self.lift(with_coordinates(a))).permute(0, 3, 1, 2)

    return Ends()


def field_step(network: nn.Module, a: Tensor, u: Tensor, precision: str = "32") -> Callable[[], None]:
    """A function of no arguments: forward pass, relative L2 error, backward pass."""
    import torch

    from kansciml.tasks.darcy.metrics import relative_l2

    def step() -> None:
        mixed = precision == "bf16-mixed"
        with torch.autocast(a.device.type, torch.bfloat16) if mixed else nullcontext():
            found = network(a)
        relative_l2(found[:, 0].float(), u).backward()

    return step


def fake_fields(network: nn.Module, batch: int) -> tuple[Tensor, Tensor]:
    """Coefficients (B, 1, s, s) and solutions (B, s, s) of the resolution of a network; their values mean nothing."""
    import torch

    side = network.config.resolution
    return torch.zeros(batch, 1, side, side), torch.ones(batch, side, side)


def reference(part: str, resolution: int, variant: str, config: Fig4bConfig) -> dict[str, float]:
    """What is known of this curve: ``mb_per_sample`` and, for the limit it was measured at, ``full_batch``."""
    known = REFERENCE.get((part, resolution, variant))
    if known is None or config.precision != "32":
        return {}
    return {"mb_per_sample": known[0]} | ({"full_batch": known[1]} if config.limit_gb == REFERENCE_GB else {})


def run(config: Fig4bConfig, context: RunContext) -> Result:
    curves, arrays, titles = [], {}, {}
    panels = [(part, resolution) for part in config.parts for resolution in config.resolutions]
    with context.progress.task(
        "fig4b: steps measured", len(panels) * len(config.variants) * len(config.batches)
    ) as task:
        for part, resolution in panels:
            name = f"{part}-{resolution}"
            titles[name] = f"{PARTS[part]}: {resolution} x {resolution}"
            for variant in config.variants:
                network = build_part(part, resolution, variant)
                numbers, points = measure_curve(network, fake_fields, field_step, config, task.update)
                known = reference(part, resolution, variant, config)
                curves.append({"model": name, "variant": variant, **numbers, "reference": known})
                arrays |= {f"{name}.{variant}.{key}": values for key, values in points.items()}
                context.metrics(curves[-1])
    return Result({"titles": titles, "curves": curves}, arrays)


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
    run=run,
    render=render,
    summary=summary,
    findings=findings,
)
