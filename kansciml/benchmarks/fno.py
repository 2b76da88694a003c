"""``kansciml bench fno``: training steps of a neural operator with MLPs and with KANs as lift and projection.

Setting: random fields, float32, one thread. Time is the processor time of this process, the candidates take turns, and
ratios are medians of the ratios round by round. A step is forward pass, relative L2 error, backward pass and AdamW. The
textbook KANs are the same functions, computed by the recursion on whole tensors as Figure 4b has them. Memory at full
resolution is measured for one sample on tensors without data, which needs neither that memory nor its time.
Cost on one core: two minutes; ``--quick`` 15 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kansciml._errors import UsageError
from kansciml.benchmarks import _step_cases as steps
from kansciml.benchmarks.layers import facts
from kansciml.layers.spectral_conv import fourier_basis
from kansciml.models.fno import FNOConfig
from kansciml.runs.progress import Progress
from kansciml.runs.tables import Table
from kansciml.tasks.darcy.metrics import relative_l2

SUMMARY = "steps of neural operators with MLPs, textbook KANs and ours as lift and projection: time and memory"
TIME_TARGET = 1.3
"""Time of a step with our KANs over one with MLPs, at most."""
FAKED = (steps.MLP, steps.TEXTBOOK, steps.TORCH, steps.RSWAF)
"""What is measured without data: the C++ kernels need data, and keep what the plain ones do."""
QUICK = {"resolution": 29, "batch_size": 2, "memory_resolution": 85, "rounds": 3}


@dataclass(frozen=True)
class Options:
    """Time training steps of neural operators, and count their memory."""

    models: tuple[str, ...] = ("fno-wt",)
    """Neural operators."""
    resolution: int = 43
    """Points along a side of the square in timed steps; of data of 421 points, 43 and 85 are subsamples 10 and 5."""
    batch_size: int = 8
    """Samples in a step."""
    memory_resolution: int = 421
    """Points along a side where the memory of one sample is measured; 0 leaves it out. Not for fno-deq, which has to
    see its data to know when it is in equilibrium."""
    rounds: int = 5
    """Interleaved rounds; medians are reported."""
    quick: bool = False
    """A first look: 3 rounds of batches of 2 at 29 x 29, memory at 85 x 85, where nothing else is said."""


def _checked(options: Options) -> Options:
    if options.batch_size < 1:
        raise UsageError(f"got batch_size {options.batch_size}: expected at least 1")
    if options.rounds < 3:
        raise UsageError(f"got rounds {options.rounds}: expected at least 3 for a median")
    families = steps.check_models(options.models, "operator")
    for name in ("resolution", "memory_resolution"):
        side = getattr(options, name)
        if side or name == "resolution":
            for family, preset in families:
                _check_modes(name, side, family.config(preset, resolution=max(side, 1)))
    return steps.quickly(options, QUICK) if options.quick else options


def _check_modes(name: str, side: int, config: FNOConfig) -> None:
    points = side + config.padding
    try:
        fourier_basis((points, points), config.modes)
    except ValueError as error:
        raise UsageError(f"got {name} {side}, with padding {config.padding}: {error}") from None


def field_loss(config: FNOConfig, batch_size: int) -> Callable[[nn.Module], torch.Tensor]:
    """Relative L2 error of a network on one fixed batch of random fields, of the resolution of `config`."""
    a, u = random_fields(config.resolution, batch_size)
    return lambda network: relative_l2(network(a)[:, 0], u)


def random_fields(side: int, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients (B, 1, s, s) and solutions (B, s, s) without a meaning."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(batch_size, 1, side, side, generator=generator)
    return a, 1 + 0.1 * torch.randn(batch_size, side, side, generator=generator)


def make_cases(model: str, resolution: int, batch_size: int, **options: Any) -> dict[str, steps.Case]:
    """One case per candidate that can run here; `options` are fields of the model's configuration."""
    sizes = {"kind": "operator", "resolution": resolution, **options}
    networks = {name: steps.build(model, name, **sizes) for name in steps.available()}
    return {name: steps.Case(network, field_loss(network.config, batch_size)) for name, network in networks.items()}


def memory_rows(
    model: str, resolution: int, report: Callable[[str], None] = lambda text: None, **options: Any
) -> list[dict[str, Any]]:
    """Bytes of the activations of a step with one sample, kept for the backward pass and at the peak, by candidate."""
    rows = []
    for name in FAKED:
        report(f"memory at {resolution} x {resolution}: {name}")
        network = steps.build(model, name, kind="operator", resolution=resolution, **options)
        use = steps.measure_fake(network, lambda config=network.config: field_loss(config, 1))
        rows.append({"layer": name, "saved_bytes": use.saved_bytes, "peak_bytes": use.peak_bytes})
    return steps.with_memory_ratios(rows)


def run(options: Options, log: Callable[[str], None]) -> tuple[dict[str, Any], list[Table]]:
    """Measure everything; returns the JSON document and the tables.

    Raises:
        UsageError: unknown models, sizes that do not fit, or too few rounds for a median.
    """
    options = _checked(options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    document: dict[str, Any] = {"machine": facts(), "dtype": "float32", "rounds": options.rounds, "results": []}
    try:
        with Progress() as progress, progress.task("bench fno", 2 * len(options.models)) as bar:

            def report(text: str) -> None:
                bar.update(advance=0, now=text)

            for model in options.models:
                found: dict[str, Any] = {"model": model, "batch_size": options.batch_size}
                cases = make_cases(model, options.resolution, options.batch_size)
                found |= {"resolution": options.resolution, "rows": steps.measure_cases(cases, options.rounds, report)}
                bar.update(advance=1)
                side = options.memory_resolution
                measured = side and not cases[steps.MLP].network.config.equilibrium
                found["memory"] = {"resolution": side, "rows": memory_rows(model, side, report)} if measured else None
                document["results"].append(found)
                bar.update(advance=1)
    finally:
        torch.set_num_threads(threads)
    document["targets"] = target_rows(document)
    return document, tables(document)


def target_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per target: what, the number wanted, the number reached, and whether it is met (None: not measured)."""
    found = []
    for result in document["results"]:
        for name in steps.OURS:
            reached = steps.row_of(result["rows"], name).get("step_over_mlp")
            found.append(
                steps.at_most(f"time of a step over {steps.MLP}, {result['model']}: {name}", TIME_TARGET, reached)
            )
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """Steps and memory of every model, and the targets."""
    how = (
        f"{document['dtype']}, one thread ({document['machine']['cpu_capability']}), PyTorch "
        f"{document['machine']['torch']}: processor time, interleaved medians of {document['rounds']} rounds."
    )
    found = []
    for result in document["results"]:
        side = result["resolution"]
        title = f"A training step of {result['model']}, {result['batch_size']} samples of {side} x {side}"
        found.append(steps.steps_table(title, result["rows"], [how]))
        if result["memory"] is not None:
            found.append(_memory_table(result["model"], result["memory"]))
    return [*found, steps.targets_table(document["targets"])]


def _memory_table(model: str, memory: dict[str, Any]) -> Table:
    side = memory["resolution"]
    columns = ["saved_bytes", "saved_over_mlp", "saved_over_textbook", "peak_bytes", "peak_over_mlp",
               "peak_over_textbook"]  # fmt: skip
    rows = [
        [row["layer"], *(row[key] / 1e6 if key.endswith("bytes") else row[key] for key in columns)]
        for row in memory["rows"]
    ]
    return Table(
        f"Memory of one sample in a training step of {model}, {side} x {side}",
        ["layers", "saved [MB]", "x MLP", "x textbook", "peak [MB]", "x MLP", "x textbook"],
        rows,
        ["Whole network, storage by storage on tensors without data; the C++ kernels keep what the plain ones do."],
    )
