"""What experiments on the memory of a training step against batch size share: variants, measurement, lines through it.

Steps are measured storage by storage on tensors without data, so that 16 GB need neither that memory nor a GPU.
"""

from __future__ import annotations

import builtins
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml._errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kansciml.analysis.memory import MemoryUse
    from kansciml.layers.spline_kan import SplineKAN

VARIANTS = ("mlp", "textbook", "kan-spline", "kan-rswaf")
PRECISIONS = ("32", "bf16-mixed")
DEVICES = ("cpu", "gpu")
GB = 10**9
REFERENCE_GB = 16.0
"""Limit of the reference values that are batch sizes."""

Inputs = Callable[["nn.Module", int], "tuple[Tensor, Tensor]"]
"""Makes what a step of so many samples is given, for a network; the values mean nothing."""
Step = Callable[..., Callable[[], None]]
"""``step(network, x, y, precision)``: a function of no arguments that takes one training step without the optimiser."""


@dataclass(frozen=True)
class MemoryConfig:
    """Settings that all of them have."""

    variants: tuple[str, ...] = VARIANTS
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
        require_different("variants", self.variants)
        for variant in self.variants:
            if variant not in VARIANTS:
                raise unknown_name("variant", variant, VARIANTS)
        if not 0 < self.limit_gb < float("inf"):
            raise UsageError(f"got limit_gb {self.limit_gb}: expected a positive number of GB")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.device not in DEVICES:
            raise unknown_name("device", self.device, DEVICES)
        if (self.device, self.precision) == ("gpu", "bf16-mixed"):
            raise UsageError("got device 'gpu' and precision 'bf16-mixed': expected precision '32', or device 'cpu'")


def require_different(name: str, values: tuple[Any, ...]) -> None:
    """Raise UsageError unless there are values, each once."""
    if not values or len(set(values)) < len(values):
        raise UsageError(f"got {name} {values}: expected one or more different ones")


def as_variant(network: nn.Module, variant: str) -> nn.Module:
    """`network`, built with the splines where `variant` is ``textbook``, as that variant; kernels in plain PyTorch."""
    from kansciml.layers.spline_kan import SplineKAN

    for module in network.modules():
        if isinstance(module, SplineKAN):
            module.backend = "torch"
    return to_textbook(network) if variant == "textbook" else network


def built_as(variant: str) -> str:
    """The variant of `kansciml.models` that `as_variant` wants."""
    return "kan-spline" if variant == "textbook" else variant


def to_textbook(network: nn.Module) -> nn.Module:
    """Put a `TextbookKAN` of the same function in the place of every `SplineKAN` below `network`, and return it.

    Raises:
        UsageError: a layer that the recursion has no form for: with a bias, of order 0, with another base activation
            than SiLU, or with splines that do not fade to zero outside the grid.
    """
    from kansciml.layers.spline_kan import SplineKAN

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SplineKAN):
                setattr(parent, name, _textbook_layer(child))
    return network


def _textbook_layer(layer: SplineKAN) -> nn.Module:
    import torch

    from kansciml.layers.textbook_kan import TextbookKAN

    got = layer.base_activation, layer.outside, layer.bias is not None
    if got != ("silu", "zero", False) or layer.spline_order < 1:
        raise UsageError(
            f"got a SplineKAN with base_activation {got[0]!r}, outside {got[1]!r}, bias {got[2]} and spline_order "
            f"{layer.spline_order}: expected 'silu', 'zero', no bias, and at least 1"
        )
    weight, scale = layer.spline_weight, layer.spline_scale
    options = {"spline_scale": scale is not None, "device": weight.device, "dtype": weight.dtype}
    sizes = (layer.in_features, layer.out_features, layer.grid, layer.spline_order, layer.grid_range)
    with torch.no_grad():
        textbook = TextbookKAN(*sizes, **options)
        textbook.knots.copy_(layer.knots)
        textbook.base_weight.copy_(layer.base_weight.t())
        textbook.spline_weight.copy_(weight.permute(2, 0, 1))
        if scale is not None:
            textbook.spline_scale.copy_(scale.t())
    return textbook


def measure_fake(
    network: nn.Module, inputs: Inputs, step: Step, batch: int, precision: str = "32", device: str = "cpu"
) -> MemoryUse:
    """Memory of one training step on tensors without data, whatever the batch; `network` itself stays as it is.

    For a CPU in float32 the same bytes as `kansciml.analysis.memory.measure` gives on real tensors with the kernels in
    plain PyTorch; the C++ kernels take less, by a few blocks of the basis. Under autocast about 0.1 % less: PyTorch's
    fake normalisations take their statistics for bfloat16.

    Args:
        network: with real weights. inputs, step, batch: what it is given, and what is done with it.
        precision, device: as in `MemoryConfig`.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

    from kansciml.analysis.memory import measure

    if device == "gpu":  # what is on no CPU is divided as on a GPU
        fake = copy.deepcopy(network).to("meta")
        fake.zero_grad()
        with torch.device("meta"):
            return measure(step(fake, *inputs(fake, batch), "32"), apart=fake.buffers())
    mode = FakeTensorMode()
    with FakeCopyMode(mode):  # layers look at their knots while they are made, which fake tensors refuse
        fake = copy.deepcopy(network)
    fake.zero_grad()
    with mode, few_blocks():
        return measure(step(fake, *inputs(fake, batch), precision), apart=fake.buffers())


@contextmanager
def few_blocks() -> Iterator[None]:
    """Within it, the layers' loops over blocks run for the first two and the last alone. For fake tensors only.

    The blocks between take the same memory and leave none behind, but would be most of the work: a batch of 4096 has
    tens of thousands. The layers' loops over blocks are the ones that give `range` a step.
    """
    from kansciml.layers._kernels import plain, rswaf

    def short(*bounds: int) -> Any:
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


def measure_curve(
    network: nn.Module, inputs: Inputs, step: Step, config: MemoryConfig, advance: Callable[[int], object]
) -> tuple[dict, dict]:
    """One variant's numbers and points: batch sizes in turn, up to the first out of memory and two at least.

    Args:
        network, inputs, step: as in `measure_fake`. advance: told after each point how many batch sizes are done with.
    """
    resident = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    adamw = sum(2 * weight.nbytes for weight in network.parameters() if weight.requires_grad)
    given = sum(tensor.nbytes for tensor in inputs(network, 1))
    batches, peaks, kept, totals = [], [], [], []
    for batch in config.batches:
        use = measure_fake(network, inputs, step, batch, config.precision, config.device)
        batches.append(batch)
        peaks.append(use.peak_bytes)
        kept.append(use.saved_bytes)
        totals.append(resident + adamw + given * batch + use.peak_bytes)
        advance(1)
        if totals[-1] > config.limit_gb * GB and len(batches) > 1:
            break
    advance(len(config.batches) - len(batches))
    points = {"batch": np.array(batches), "peak": np.array(peaks), "total": np.array(totals)}
    slope, intercept, off = line(points["batch"], points["peak"])
    numbers = {
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "resident_bytes": resident,
        "optimiser_bytes": adamw,
        "input_bytes": given,
        "kept_bytes": line(points["batch"], np.array(kept))[0],
        "slope_bytes": slope,
        "intercept_bytes": intercept,
        "off_line_bytes": off,
        "full_batch": full_batch(points["batch"], points["total"], config.limit_gb * GB),
    }
    return numbers, points


def image_step(network: nn.Module, images: Tensor, labels: Tensor, precision: str = "32") -> Callable[[], None]:
    """A function of no arguments: forward pass, cross-entropy, backward pass."""
    import torch

    def step() -> None:
        mixed = precision == "bf16-mixed"
        with torch.autocast(images.device.type, torch.bfloat16) if mixed else nullcontext():
            scores = network(images)
        torch.nn.functional.cross_entropy(scores.float(), labels).backward()

    return step


def fake_images(network: nn.Module, batch: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the sizes that a vision model was built for; their values mean nothing."""
    import torch

    config = network.config
    images = torch.zeros(batch, config.channels, config.image_size, config.image_size)
    return images, torch.zeros(batch, dtype=torch.long)


def measure_step(
    network: nn.Module,
    inputs: Callable[[nn.Module], tuple[Tensor, Tensor]],
    precision: str = "32",
    device: str = "cpu",
) -> MemoryUse:
    """`measure_fake` of a step on images; `inputs` makes images and labels for a network."""
    return measure_fake(network, lambda fake, _: inputs(fake), image_step, 1, precision, device)
