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
Cost on one core: ``smoke`` 7 s, ``small`` 65 s, ``paper`` 145 s, with ``--device gpu`` 45 s; 0.5 GB of memory, no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kansciml.experiments.memory.findings import findings
from kansciml.experiments.memory.report import render, summary
from kansciml.experiments.memory.steps import (
    GB,
    REFERENCE_GB,
    VARIANTS,
    MemoryConfig,
    as_variant,
    built_as,
    fake_images,
    few_blocks,
    full_batch,
    image_step,
    line,
    measure_curve,
    measure_step,
    require_different,
    to_textbook,
)
from kansciml.runs.experiment import Experiment, Result, RunContext

if TYPE_CHECKING:
    from torch import nn


__all__ = [
    "EXPERIMENT", "GB", "VARIANTS", "Fig4aConfig", "build_variant", "curve", "fake_images", "few_blocks", "full_batch",
    "image_step", "line", "measure_step", "reference", "to_textbook",
]  # fmt: skip

REFERENCE = {
    ("mixer-nano-c512", "mlp"): (3.84, 4038),
    ("mixer-nano-c512", "textbook"): (138.7, 111),
    ("mixer-nano", "mlp"): (5.74, 2702),
    ("mixer-nano", "textbook"): (205.3, 75),
}
"""MB per sample, and batch at which 16 GB are full, in float32: measured independently, the KANs efficient-kan's."""


@dataclass(frozen=True)
class Fig4aConfig(MemoryConfig):
    """Settings of Figure 4a; the defaults are the preset ``paper``."""

    models: tuple[str, ...] = ("mixer-nano-c512", "mixer-nano")
    """Names of vision models with their presets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_different("models", self.models)


def check(config: Fig4aConfig) -> None:
    """Refuse a name that is no vision model's.

    Raises:
        UsageError: with those there are.
    """
    from kansciml.models.registry import find

    for name in config.models:
        find(name)


def build_variant(name: str, variant: str) -> nn.Module:
    """The network `name` with one of `VARIANTS`; the splines' kernels are those in plain PyTorch."""
    from kansciml.models.registry import build_model

    return as_variant(build_model(name, built_as(variant)), variant)


def curve(network: nn.Module, config: Fig4aConfig, advance: Callable[[int], object]) -> tuple[dict, dict]:
    """`measure_curve` of steps on images."""
    return measure_curve(network, fake_images, image_step, config, advance)


def reference(name: str, variant: str, config: Fig4aConfig) -> dict[str, float]:
    """What is known of this curve: ``mb_per_sample`` and, for the limit it was measured at, ``full_batch``."""
    if (name, variant) not in REFERENCE or config.precision != "32":
        return {}
    slope, full = REFERENCE[name, variant]
    return {"mb_per_sample": slope} | ({"full_batch": full} if config.limit_gb == REFERENCE_GB else {})


def run(config: Fig4aConfig, context: RunContext) -> Result:
    from kansciml.models.registry import model_config

    curves, arrays = [], {}
    total = len(config.models) * len(config.variants) * len(config.batches)
    with context.progress.task("fig4a: steps measured", total) as task:
        for name in config.models:
            for variant in config.variants:
                numbers, points = curve(build_variant(name, variant), config, task.update)
                curves.append(
                    {"model": name, "variant": variant, **numbers, "reference": reference(name, variant, config)}
                )
                arrays |= {f"{name}.{variant}.{key}": values for key, values in points.items()}
                context.metrics(curves[-1])
    titles = {}
    for name in config.models:
        slots = (f"{slot.name} {'-'.join(map(str, slot.widths))}" for slot in model_config(name).slots())
        titles[name] = f"{name}: {', '.join(slots)}"
    return Result({"titles": titles, "curves": curves}, arrays)


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
    run=run,
    render=render,
    summary=summary,
    check=check,
    findings=findings,
)
