"""``kansciml bench vision``: the training loop against a bare one, and steps of image classifiers with MLPs and KANs.

Setting: random images of 3 x 32 x 32, float32, one thread. Time is the processor time of this process, the candidates
take turns, and ratios are medians of the ratios round by round. A step is forward pass, cross-entropy, backward pass
and AdamW. The textbook KANs are the same functions, computed by the recursion on whole tensors as Figure 4a has them.
Cost on one core: two minutes; ``--quick`` 15 s. ``--device cuda`` measures DeiT-Tiny at 224 x 224 on a GPU instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import UsageError, check_name
from kansciml.benchmarks import _loop_cases as loops
from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks._cuda import vision as on_cuda
from kansciml.benchmarks._measuring import Report, Row
from kansciml.models.base import VisionConfig
from kansciml.runs.tables import Table

LOOP_MODEL = "conv-mixer-128-4"
LOOP_TARGET = 0.9
"""Throughput of the training loop over that of the bare one, at least."""
TIME_TARGET = 0.4
"""Time of a step with our KANs over one with the textbook's, at most."""
MEMORY_TARGET = 1 / 8
"""Memory of the same, at most."""
STANDARD = {"models": ("mixer-nano", "conv-mixer-128-4"), "batch_size": 8, "loop_steps": 12, "rounds": 5}
ON_CUDA = {"models": ("deit-tiny",), "batch_size": 64, "image_size": 224}
REHEARSED = {**ON_CUDA, "batch_size": 2, "image_size": 32, "rounds": 3}
"""Where nothing else is said."""
QUICK = {"batch_size": 2, "loop_steps": 4, "rounds": 3}


@dataclass(frozen=True)
class Options:
    """Time training loops and training steps, and count the memory of the steps."""

    models: tuple[str, ...] | None = None
    """Vision models whose steps are measured (default: mixer-nano and conv-mixer-128-4)."""
    batch_size: int | None = None
    """Images in such a step (default: 8)."""
    loop_batch_size: int = 32
    """Images in a step of the two loops (conv-mixer-128-4 with MLPs)."""
    loop_steps: int | None = None
    """Steps of one training by a loop (default: 12)."""
    rounds: int | None = None
    """Interleaved rounds; medians are reported (default: 5)."""
    quick: bool = False
    """A first look: 3 rounds of batches of 2, and 4 steps of the loops, where nothing else is said."""
    device: str = "cpu"
    """cpu, or cuda: steps/s and peak memory on a GPU; where nothing else is said, of deit-tiny with batches of 64."""
    image_size: int | None = None
    """Of cuda: pixels along a side, 224 where nothing else is said."""
    rehearse: bool = False
    """Of cuda: run it on the CPU, in small, to see that it runs; the times mean nothing."""


def settled(options: Options) -> Any:
    """The options, checked, with the device's standard for those that were not given."""
    check_name("device", options.device, ("cpu", "cuda"))
    on_device: dict[str, Any] = REHEARSED if options.rehearse else ON_CUDA
    if options.device == "cpu":
        if options.rehearse or options.image_size is not None:
            raise UsageError("got rehearse or image-size on the CPU: they are of GPUs; add --device cuda")
        on_device = {}
    found = steps.filled(options, on_device, QUICK if options.quick else {}, STANDARD)
    measuring.check_least(found, batch_size=2, loop_batch_size=2, loop_steps=2)
    steps.check_models(found.models, "vision")
    return found


def image_loss(config: VisionConfig, batch_size: int) -> Callable[[nn.Module], Tensor]:
    """Cross-entropy of a network on one fixed batch of random images, on torch's default device."""
    generator, device = torch.Generator().manual_seed(1), torch.get_default_device()
    size = config.image_size
    images = torch.randn(batch_size, config.channels, size, size, generator=generator, device="cpu").to(device)
    labels = torch.randint(0, config.classes, (batch_size,), generator=generator, device="cpu").to(device)
    return lambda network: nn.functional.cross_entropy(network(images), labels)


def run(given: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    options = settled(given)
    if options.device == "cuda":
        sizes = options.image_size, options.batch_size, options.rounds
        return on_cuda.run(options.models, *sizes, image_loss, options.rehearse)
    with measuring.one_thread("bench vision", 1 + len(options.models)) as bar:
        machine = measuring.facts(cpp=True)
        document: dict[str, Any] = {"machine": machine, "dtype": "float32", "rounds": options.rounds, "results": []}
        work = loops.Work.make(steps.build(LOOP_MODEL, steps.MLP), options.loop_batch_size, options.loop_steps)
        document["loop"] = {
            "model": LOOP_MODEL,
            "batch_size": options.loop_batch_size,
            "steps": options.loop_steps,
            "rows": loops.throughput(work, options.rounds, bar),
        }
        bar.done()
        for model in options.models:

            def report(text: str, model: str = model) -> None:
                bar(f"{model}: {text}")

            cases = steps.make_cases(model, image_loss, options.batch_size)
            rows = steps.measure_cases(cases, options.rounds, report)
            document["results"].append({"model": model, "batch_size": options.batch_size, "rows": rows})
            bar.done()
    document["targets"] = target_rows(document)
    return document, tables(document)


def target_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per target, see `at_most`."""
    loop = next(row["over_bare"] for row in document["loop"]["rows"] if row["loop"] == loops.LOOP)
    what = f"throughput of {loops.LOOP} over a {loops.BARE}"
    found = [{"target": what, "wanted": f">= {LOOP_TARGET:g}", "reached": loop, "met": loop >= LOOP_TARGET}]
    for key, wanted, what in (
        ("step_over_textbook", TIME_TARGET, "time of a step"),
        ("saved_over_textbook", MEMORY_TARGET, "saved for backward"),
        ("peak_over_textbook", MEMORY_TARGET, "peak of activations"),
    ):
        found += steps.targets(document, key, f"{what} over {steps.TEXTBOOK}", wanted)
    return found


LOOP_COLUMNS = {
    "loop": "loop",
    "images_per_s": "images/s",
    "images_low_per_s": "25 %",
    "images_high_per_s": "75 %",
    "over_bare": "x bare loop",
    "rest_ms": "beside the steps [ms]",
}


def tables(document: Row) -> list[Table]:
    """The loops, one table of steps per model, and the targets."""
    loop = document["loop"]
    notes = [
        steps.how(document),
        "Same weights, batches, optimiser, schedule and clipping; ours also makes its batches from bytes and"
        " keeps losses, accuracy and norms.",
        "Beside the steps: setup, checkpoints and the file of the log, once per training or epoch.",
    ]
    title = f"Training {loop['model']} with MLPs: {loop['steps']} steps of {loop['batch_size']} images"
    found = [measuring.table_of(title, loop["rows"], LOOP_COLUMNS, notes)]
    for result in document["results"]:
        title = f"A training step of {result['model']}, {result['batch_size']} images"
        found.append(steps.steps_table(title, document, result["rows"]))
    return [*found, measuring.targets_table(document["targets"], "A dash was not measured here.")]
