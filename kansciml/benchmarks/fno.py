"""``kansciml bench fno``: training steps of a neural operator with MLPs and with KANs as lift and projection.

Setting: random fields, float32, one thread. Time is the processor time of this process, the candidates take turns, and
ratios are medians of the ratios round by round. A step is forward pass, relative L2 error, backward pass and AdamW. The
textbook KANs are the same functions, computed by the recursion on whole tensors as Figure 4b has them. Memory at full
resolution is measured for one sample on tensors without data, which needs neither that memory nor its time.
Cost on one core: two minutes; ``--quick`` 15 s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks._measuring import Report, Row
from kansciml.models.fno import FNOConfig
from kansciml.runs.tables import Table
from kansciml.tasks.darcy.metrics import relative_l2

TIME_TARGET = 1.3
"""Time of a step with our KANs over one with MLPs, at most."""
FAKED = (steps.MLP, steps.TEXTBOOK, steps.TORCH, steps.RSWAF)
"""What is measured without data: the C++ kernels need data, and keep what the plain ones do."""
STANDARD = {"resolution": 43, "batch_size": 8, "memory_resolution": 421, "rounds": 5}
QUICK = {"resolution": 29, "batch_size": 2, "memory_resolution": 85, "rounds": 3}


@dataclass(frozen=True)
class Options:
    """Time training steps of neural operators, and count their memory."""

    models: tuple[str, ...] = ("fno-wt",)
    """Neural operators."""
    resolution: int | None = None
    """Points along a side of the square in timed steps (default: 43); of data of 421 points, 43 and 85 are subsamples
    10 and 5."""
    batch_size: int | None = None
    """Samples in a step (default: 8)."""
    memory_resolution: int | None = None
    """Points along a side where the memory of one sample is measured (default: 421); 0 leaves it out. Not for fno-deq,
    which has to see its data to know when it is in equilibrium."""
    rounds: int | None = None
    """Interleaved rounds; medians are reported (default: 5)."""
    quick: bool = False
    """A first look: 3 rounds of batches of 2 at 29 x 29, memory at 85 x 85, where nothing else is said."""


def settled(options: Options) -> Any:
    """The options, checked, with the standard for those that were not given."""
    found = steps.filled(options, QUICK if options.quick else {}, STANDARD)
    measuring.check_least(found, batch_size=1)
    families = steps.check_models(found.models, "operator")
    for name in ("resolution", "memory_resolution"):
        side = getattr(found, name)
        if side or name == "resolution":
            for family, preset in families:
                family.config(preset, resolution=max(side, 1)).check_side(side, f"got {name} {side}")
    return found


def field_loss(config: FNOConfig, batch_size: int) -> Callable[[nn.Module], Tensor]:
    """Relative L2 error of a network on one fixed batch of random fields, of the resolution of `config`."""
    side, generator = config.resolution, torch.Generator().manual_seed(1)
    a = torch.randn(batch_size, 1, side, side, generator=generator)
    u = 1 + 0.1 * torch.randn(batch_size, side, side, generator=generator)
    return lambda network: relative_l2(network(a)[:, 0], u)


def memory_rows(model: str, resolution: int, report: Report = measuring.silent, **options: Any) -> list[dict[str, Any]]:
    """Bytes of the activations of a step with one sample, kept for the backward pass and at the peak, by candidate."""
    rows = []
    for name in FAKED:
        report(f"memory at {resolution} x {resolution}: {name}")
        network = steps.build(model, name, kind="operator", resolution=resolution, **options)
        use = steps.measure_fake(network, functools.partial(field_loss, steps.config_of(network), 1))
        rows.append({"layer": name, "saved_bytes": use.saved_bytes, "peak_bytes": use.peak_bytes})
    return steps.with_memory_ratios(rows)


def run(given: Options, log: Report) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables."""
    options = settled(given)
    with measuring.one_thread("bench fno", 2 * len(options.models)) as bar:
        machine = measuring.facts(cpp=True)
        document: dict[str, Any] = {"machine": machine, "dtype": "float32", "rounds": options.rounds, "results": []}
        for model in options.models:
            found: dict[str, Any] = {"model": model, "batch_size": options.batch_size}
            sizes = {"kind": "operator", "resolution": options.resolution}
            cases = steps.make_cases(model, field_loss, options.batch_size, **sizes)
            found |= {"resolution": options.resolution, "rows": steps.measure_cases(cases, options.rounds, bar)}
            bar.done()
            side, memory = options.memory_resolution, None
            if side and not steps.config_of(cases[steps.MLP].network).equilibrium:
                memory = {"resolution": side, "rows": memory_rows(model, side, bar)}
            document["results"].append(found | {"memory": memory})
            bar.done()
    document["targets"] = target_rows(document)
    return document, tables(document)


def target_rows(document: Row) -> list[dict[str, Any]]:
    """One row per target, see `at_most`."""
    return steps.targets(document, "step_over_mlp", f"time of a step over {steps.MLP}", TIME_TARGET)


MEMORY_COLUMNS = {
    "layer": "layers",
    "saved_bytes": "saved [MB]",
    "saved_over_mlp": "x MLP",
    "saved_over_textbook": "x textbook",
    "peak_bytes": "peak [MB]",
    "peak_over_mlp": "x MLP",
    "peak_over_textbook": "x textbook",
}


def tables(document: Row) -> list[Table]:
    """Steps and memory of every model, and the targets."""
    found = []
    for result in document["results"]:
        side, memory = result["resolution"], result["memory"]
        title = f"A training step of {result['model']}, {result['batch_size']} samples of {side} x {side}"
        found.append(steps.steps_table(title, document, result["rows"]))
        if memory is not None:
            side = memory["resolution"]
            title = f"Memory of one sample in a training step of {result['model']}, {side} x {side}"
            note = "Whole network, storage by storage on tensors without data"
            note += "; the C++ kernels keep what the plain ones do."
            found.append(measuring.table_of(title, memory["rows"], MEMORY_COLUMNS, [note]))
    return [*found, measuring.targets_table(document["targets"], "A dash was not measured here.")]
