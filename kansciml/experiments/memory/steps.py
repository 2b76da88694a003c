"""Measures the memory of training steps against batch size, as Figures 4a and 4b show it.

Steps are measured storage by storage on tensors without data, so that 16 GB need neither that memory nor a GPU.
"""

from __future__ import annotations

import builtins
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn.functional import cross_entropy

from kansciml._errors import UsageError, check_name, check_names
from kansciml.analysis.memory import MemoryUse, measure
from kansciml.experiments.memory.record import GB, TEXTBOOK, Curve, Reference, result_of, row_of
from kansciml.layers._kernels import plain, rswaf
from kansciml.layers.spline_kan import set_backend
from kansciml.layers.textbook_kan import to_textbook
from kansciml.runs.experiment import Result, RunContext

MEASURED = ("mlp", TEXTBOOK, "kan-spline", "kan-rswaf")
"""The variants of `kansciml.models`, and the splines as the recursion of the paper's sources."""
PRECISIONS = ("32", "bf16-mixed")
DEVICES = ("cpu", "gpu")
REFERENCE_GB = 16.0
"""Limit of the reference values that are batch sizes."""


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of a measurement of memory against batch size."""

    variants: tuple[str, ...] = MEASURED
    """mlp, textbook (the recursion of the paper's sources), kan-spline, kan-rswaf."""
    batches: tuple[int, ...] = tuple(2**k for k in range(15))
    """Batch sizes, ascending; each variant is measured up to the first that is out of memory."""
    limit_gb: float = 16.0
    """Memory of the device in GB (10^9 bytes)."""
    precision: str = "32"
    """32, or bf16-mixed (weights in float32, autocast to bfloat16)."""
    device: str = "cpu"
    """Whose blocks the KANs' kernels work in: cpu (in its cache), or gpu (larger ones). Nothing runs on either."""

    def __post_init__(self) -> None:
        if len(self.batches) < 2 or list(self.batches) != sorted(set(self.batches)) or min(self.batches) < 1:
            raise UsageError(f"got batches {self.batches}: expected two or more ascending numbers of at least 1")
        check_names("variant", self.variants, MEASURED)
        if not 0 < self.limit_gb < float("inf"):
            raise UsageError(f"got limit_gb {self.limit_gb}: expected a positive number of GB")
        check_name("precision", self.precision, PRECISIONS)
        check_name("device", self.device, DEVICES)
        if (self.device, self.precision) == ("gpu", "bf16-mixed"):
            raise UsageError("got device 'gpu' and precision 'bf16-mixed': expected precision '32', or device 'cpu'")


@dataclass(frozen=True)
class Problem:
    """What networks learn, without its data.

    Args:
        batch: ``batch(network, size)``: inputs and targets for a network; their values mean nothing.
        loss: of the network's outputs and the targets.
    """

    batch: Callable[[nn.Module, int], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]

    def step(self, network: nn.Module, size: int, precision: str = "32") -> Callable[[], None]:
        """A function that takes one training step without the optimiser: forward pass, loss, backward pass."""
        x, y = self.batch(network, size)

        def step() -> None:
            mixed = precision == "bf16-mixed"
            with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():
                found = network(x)
            self.loss(found.float(), y).backward()

        return step


def _images(network: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    config: Any = network.config
    images = torch.zeros(size, config.channels, config.image_size, config.image_size)
    return images, torch.zeros(size, dtype=torch.long)


IMAGES = Problem(_images, cross_entropy)
"""Images and labels of the sizes that a vision model was built for."""


@dataclass(frozen=True)
class Measured:
    """A network whose variants are compared: one panel of the figure.

    Args:
        build: makes it in a variant of `kansciml.models`.
        references: variant -> MB per sample, and batch at which 16 GB are full, in float32, as known from elsewhere.
    """

    name: str
    title: str
    build: Callable[[str], nn.Module]
    references: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def network(self, variant: str) -> nn.Module:
        """It in one of `MEASURED`, with the kernels in plain PyTorch."""
        network = self.build("kan-spline" if variant == TEXTBOOK else variant)
        set_backend(network, "torch")
        return to_textbook(network) if variant == TEXTBOOK else network

    def reference(self, variant: str, config: MemoryConfig) -> Reference:
        """What is known of a curve, and was measured as `config` says."""
        if variant not in self.references or config.precision != "32":
            return Reference()
        slope, full = self.references[variant]
        return Reference(slope, full if config.limit_gb == REFERENCE_GB else None)


def measure_models(
    name: str, models: Iterable[Measured], problem: Problem, config: MemoryConfig, context: RunContext
) -> Result:
    """A curve for every model and variant of a configuration of the experiment `name`."""
    curves, models = [], list(models)
    total = len(models) * len(config.variants) * len(config.batches)
    with context.progress.task(f"{name}: steps measured", total) as task:
        for model in models:
            for variant in config.variants:
                curves.append(measure_curve(model, variant, problem, config, task.update))
                context.metrics(row_of(curves[-1]))
    return result_of({model.name: model.title for model in models}, curves)


def measure_curve(
    model: Measured, variant: str, problem: Problem, config: MemoryConfig, advance: Callable[[int], object]
) -> Curve:
    """Batch sizes in turn, up to the first that is out of memory, and two at least.

    Args:
        advance: told after each point how many batch sizes are done with.
    """
    network = model.network(variant)
    resident = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    adamw = sum(2 * weight.nbytes for weight in network.parameters() if weight.requires_grad)
    given = sum(tensor.nbytes for tensor in problem.batch(network, 1))
    limit = config.limit_gb * GB
    measured: list[tuple[int, int, int, int]] = []
    for size in config.batches:
        use = measure_fake(network, problem, size, config.precision, config.device)
        measured.append((size, use.peak_bytes, resident + adamw + given * size + use.peak_bytes, use.saved_bytes))
        advance(1)
        if measured[-1][2] > limit and len(measured) > 1:
            break
    advance(len(config.batches) - len(measured))
    batch, peak, total, kept = (np.array(values) for values in zip(*measured))
    slope, intercept, off = line(batch, peak)
    return Curve(
        model=model.name,
        variant=variant,
        parameters=sum(weight.numel() for weight in network.parameters()),
        resident_bytes=resident,
        optimiser_bytes=adamw,
        input_bytes=given,
        kept_bytes=line(batch, kept)[0],
        slope_bytes=slope,
        intercept_bytes=intercept,
        off_line_bytes=off,
        full_batch=full_batch(batch, total, limit),
        reference=model.reference(variant, config),
        batch=batch,
        peak=peak,
        total=total,
    )


def measure_fake(
    network: nn.Module, problem: Problem, size: int, precision: str = "32", device: str = "cpu"
) -> MemoryUse:
    """Memory of one training step on tensors without data, whatever the batch; `network` itself stays as it is.

    For a CPU in float32 the same bytes as `kansciml.analysis.memory.measure` gives on real tensors with the kernels in
    plain PyTorch; the C++ kernels take less, by a few blocks of the basis. Under autocast about 0.1 % less: PyTorch's
    fake normalisations take their statistics for bfloat16.

    Args:
        network: with real weights. size: samples of the batch. precision, device: as in `MemoryConfig`.
    """
    if device == "gpu":  # what is on no CPU is divided as on a GPU
        fake = copy.deepcopy(network).to("meta")
        fake.zero_grad()
        with torch.device("meta"):
            return measure(problem.step(fake, size), apart=fake.buffers())
    mode = FakeTensorMode()
    with FakeCopyMode(mode):  # layers look at their knots while they are made, which fake tensors refuse
        fake = copy.deepcopy(network)
    fake.zero_grad()
    with mode, few_blocks():
        return measure(problem.step(fake, size, precision), apart=fake.buffers())


@contextmanager
def few_blocks() -> Iterator[None]:
    """Within it, the layers' loops over blocks run for the first two and the last alone. For fake tensors only.

    The blocks between take the same memory and leave none behind, but would be most of the work: a batch of 4096 has
    tens of thousands. The layers' loops over blocks are the ones that give `range` a step.
    """

    def short(*bounds: int) -> Sequence[int]:
        whole = builtins.range(*bounds)
        return whole if len(bounds) < 3 or len(whole) <= 3 else (whole[0], whole[1], whole[-1])

    modules = [vars(module) for module in (plain, rswaf)]
    for names in modules:
        names["range"] = short
    try:
        yield
    finally:
        for names in modules:
            del names["range"]


def line(batches: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Slope and intercept of the least-squares line through the points from an eighth of the largest batch size on, two
    at least, and how far those are off it at most.

    At small batches the peak is where all gradients are there, at the end of the backward pass; at large ones where all
    activations are, at its start. The slope that fills a memory is the latter's.
    """
    used = max(2, int((8 * batches >= batches[-1]).sum()))
    x, y = batches[-used:].astype(float), values[-used:].astype(float)
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(np.abs(y - (intercept + slope * x)).max())


def full_batch(batches: np.ndarray, totals: np.ndarray, limit: float) -> int:
    """Largest batch size whose memory is within `limit` bytes: between the points around it, else on their `line`."""
    if totals[-2] <= limit < totals[-1]:
        return int(np.interp(limit, totals[-2:], batches[-2:]))
    slope, intercept, _ = line(batches, totals)
    return max(0, int((limit - intercept) // slope))
