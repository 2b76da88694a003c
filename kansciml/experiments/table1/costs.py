"""What the models of Table 1 hold and need, without training: parameters, operations, and memory of a training step.

A step's memory is measured storage by storage on fake tensors (`memory.steps.measure_fake`), so that
DeiT-Base in a batch of 144 at 224 pixels needs neither 17 GB nor a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from kansciml.analysis.matching import matched
from kansciml.experiments.memory.steps import IMAGES, measure_fake
from kansciml.experiments.table1.record import FAIR, PAPER, Costs, Row
from kansciml.experiments.vision.config import ImagesConfig
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.layers.spline_kan import set_backend
from kansciml.models.deit import Deit, DeitConfig
from kansciml.models.registry import find
from kansciml.training.loop import TrainConfig

PRINTED_BATCH = 144
"""Images per step of the code that the paper names for Table 1."""


@dataclass(frozen=True)
class PrintedRow:
    """One row of Table 1: model, and accuracy on CIFAR-100 in per cent."""

    size: str
    variant: str
    top1: float
    top5: float


PRINTED = (
    PrintedRow("tiny", "mlp", 83.93, 96.85),
    PrintedRow("tiny", "kan-spline", 73.03, 93.23),
    PrintedRow("tiny", "kan-rswaf", 72.92, 93.13),
    PrintedRow("small", "mlp", 86.49, 96.16),
    PrintedRow("small", "kan-spline", 73.88, 93.49),
    PrintedRow("small", "kan-rswaf", 78.69, 94.75),
    PrintedRow("base", "mlp", 86.89, 96.08),
)
SIZES = tuple(dict.fromkeys(row.size for row in PRINTED))


def published_rows(matches: tuple[str, ...], advance: Callable[[int], object]) -> list[Row]:
    """All rows of Table 1 as printed, and of the fair protocol, at 224 pixels, 100 classes and batches of 144.

    `matches`: measures by which the fair protocol's KANs equal the MLPs; `advance` is told after each row.
    """
    rows = []
    for printed in PRINTED:
        size, variant = printed.size, printed.variant
        model, preset = find(f"deit-{size}")
        config = model.config(preset, variant)
        paper: dict[str, Any] = {
            "dead": config.dead_parameters(),
            "printed_parameters": model.printed[preset, variant],
            "printed_top1": printed.top1,
            "printed_top5": printed.top5,
        }
        todo = [(PAPER, config, "", paper)]
        if config.kan_layer is not None:
            todo += [(FAIR, matched(replace(config, fair=True), by), by, {"dead": 0}) for by in matches]
        for protocol, network, kind, own in todo:
            job = _job(f"deit-{size}", network, kind)
            own |= {"group": job.group, "label": job.label, **vars(costs(job.model, network))}
            rows.append(Row(size=size, protocol=protocol, variant=variant, **own))
            advance(1)
    return rows


@lru_cache(maxsize=64)
def costs(model: str, config: DeitConfig, batch: int = PRINTED_BATCH) -> Costs:
    """What one network holds and needs, without training it."""
    sizes = _job(model, config).sizes()
    mixing = sizes["mixing_flops"]
    step, kept = step_memory(config, batch)
    return Costs(
        parameters=sizes["parameters"],
        batch=batch,
        step_bytes=step,
        kept_bytes=kept,
        kan_hidden=config.kan_widths()[0][1] if config.kan_layer else None,
        flops=None if mixing is None else mixing + config.other_flops,
        mixing_flops=mixing,
    )


def step_memory(config: DeitConfig, batch: int) -> tuple[int, int]:
    """Bytes at the peak of forward and backward pass with gradients, and of what is kept between the two.

    Where the peak of three blocks exceeds that of two by what a block keeps for the backward pass, and that is more
    than its gradients take, the peak is where all activations are there, and so it is with any further block: they
    differ in no more than the rate of their drop-path. Otherwise the network itself is measured.
    """
    if config.depth > 3:
        two, three = (measured_step(replace(config, depth=depth), batch) for depth in (2, 3))
        step, kept, weights = (high - low for low, high in zip(two, three))
        if step == kept > weights:
            further = (config.depth - 3) * kept
            return three[0] + further, three[1] + further
    step, kept, _ = measured_step(config, batch)
    return step, kept


def _job(model: str, config: DeitConfig, kind: str = "") -> VisionJob:
    return VisionJob(model, config, ImagesConfig("cifar100"), 0, TrainConfig(), kind)


def measured_step(config: DeitConfig, batch: int) -> tuple[int, int, int]:
    """Bytes of a step at its peak, of those kept for the backward pass, and of the weights."""
    network = Deit(config)
    set_backend(network, "torch")  # the C++ kernels take no fake tensors
    use = measure_fake(network, IMAGES, batch)
    return use.peak_bytes, use.saved_bytes, sum(weight.nbytes for weight in network.parameters())
