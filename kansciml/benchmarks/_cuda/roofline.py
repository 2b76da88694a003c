"""What a KAN layer should take on a GPU, without one: launches, bytes, operations of every kernel, by shape and type.

A kernel takes as long as the slowest of three: its bytes, its products of matrices, its other operations; then comes
the launch. A layer's time is the sum. This is a model: it says what a measurement should be compared with, no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Device(NamedTuple):
    """Peaks from the vendor's data sheets, dense: TFLOP/s of products by type and of float32 vectors, TB/s.

    The second-level cache's bandwidth is what others measured.
    """

    products: dict[str, float]
    vector: float
    memory: float
    cache: float


DEVICES = {
    "V100": Device({"float32": 15.7, "float16": 125.0}, 15.7, 0.9, 2.2),
    "A100": Device({"float32": 19.5, "tf32": 156.0, "bfloat16": 312.0, "float16": 312.0}, 19.5, 2.04, 4.8),
    "H100": Device({"float32": 67.0, "tf32": 495.0, "bfloat16": 989.0, "float16": 989.0}, 67.0, 3.35, 5.5),
    "H200": Device({"float32": 67.0, "tf32": 495.0, "bfloat16": 989.0, "float16": 989.0}, 67.0, 4.8, 5.5),
}
TYPES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}
"""Name -> bytes of a number; tf32 is float32 multiplied by tensor cores."""
LIBRARY, FUSED = 0.7, 0.5
"""Share of the peak that products reach: a library's, and those of a kernel that makes their factors."""
REACHED = 0.8
"""Share of the memory's and the vector units' peak."""
LAUNCH_S = 4e-6
EVALUATION, CHOICE = 45, 9
"""Operations of the cubic splines at an input, and per spline of choosing its value."""
EFFICIENT_BACKWARD = 1.66
"""Bytes of efficient-kan's backward pass over those of its forward pass (counted at G = 5, S = 3)."""


class Kernel(NamedTuple):
    """What one launch does: bytes from memory and from the cache, operations of products and others."""

    bytes: float
    products: float = 0.0
    vector: float = 0.0
    cached: float = 0.0
    share: float = LIBRARY


class Case(NamedTuple):
    """Sizes of a layer and its input; `size` splines per input, `all` with the base branch, `width` bytes a number."""

    n_in: int
    n_out: int
    rows: int
    grid: int
    order: int
    width: int

    @property
    def size(self) -> int:
        return self.grid + self.order

    @property
    def all(self) -> int:
        return self.size + 1

    @property
    def inputs(self) -> int:
        return self.rows * self.n_in

    @property
    def weights(self) -> float:
        """Bytes."""
        return self.all * self.n_in * self.n_out * self.width

    @property
    def block(self) -> float:
        """Bytes of all splines at all inputs."""
        return self.inputs * self.all * self.width

    @property
    def output(self) -> float:
        return self.rows * self.n_out * self.width


def seconds(kernels: list[Kernel], device: Device, kind: str) -> float:
    """Time of these kernels, one after the other."""
    total = 0.0
    for k in kernels:
        memory = max(k.bytes / device.memory, k.cached / device.cache) / REACHED
        work = max(k.products / (k.share * device.products[kind]), k.vector / (REACHED * device.vector))
        total += max(memory, work) * 1e-12 + LAUNCH_S
    return total


Passes = tuple[list[Kernel], list[Kernel]]
"""Kernels of the forward, and of the backward pass."""


def _product(c: Case) -> Kernel:
    return Kernel(c.block + c.weights + c.output, 2.0 * c.inputs * c.all * c.n_out)


def alone(c: Case) -> Passes:
    """The three products of matrices, all factors in memory."""
    return [_product(c)], [_product(c)] * 2


def linear(c: Case) -> Passes:
    """An MLP's layer, nn.Linear and SiLU."""
    part = Kernel(c.inputs * c.width + c.n_in * c.n_out * c.width + c.output, 2.0 * c.inputs * c.n_out)
    return [part, Kernel(2 * c.output)], [Kernel(3 * c.output), part, part]


def efficient_kan(c: Case) -> Passes:
    """The recursion in PyTorch's operations, float32 whatever the products are in; weights scaled in each call."""
    elements = sum(c.grid + 2 * c.order - k for k in range(1, c.order + 1))
    launches = 4 + 9 * c.order
    moved = c.inputs * (60.0 * elements + 10.0 * (c.grid + 2 * c.order))
    splines = Kernel(c.inputs * c.size * c.width + c.weights + c.output, 2.0 * c.inputs * c.size * c.n_out)
    base = Kernel(c.inputs * c.width + c.n_in * c.n_out * c.width + c.output, 2.0 * c.inputs * c.n_out)
    extra = [Kernel(2 * c.weights), Kernel(2 * c.inputs * c.width), Kernel(3 * c.output)]
    forward = [Kernel(moved / launches)] * launches + [splines, base, *extra]
    backward = [Kernel(EFFICIENT_BACKWARD * moved / launches)] * launches + [splines, base] * 2 + extra
    return forward, backward


def _fill(c: Case, contract: bool) -> Kernel:
    moved = c.block * (1 + contract) + c.inputs * c.width * (1 + 2 * contract)
    return Kernel(moved, vector=c.inputs * (EVALUATION + CHOICE * c.all) * (1.0 + contract))


def _weights(c: Case) -> list[Kernel]:
    return [_product(c), Kernel(3 * c.weights)]


def _pack(c: Case) -> Kernel:
    return Kernel(2 * c.weights)


def dense(c: Case) -> Passes:
    """SplineKAN's Triton kernels: splines into a block, a library's products."""
    clear = Kernel(c.inputs * c.width)
    return [_pack(c), _fill(c, False), _product(c)], [clear, _pack(c), _product(c), _fill(c, True), *_weights(c)]


def fused(c: Case) -> Passes:
    """SplineKAN's Triton kernels: splines in registers; for the weights' gradients a block."""
    parts, outputs = -(-c.n_out // 128), c.weights + c.output
    work = 2.0 * c.inputs * c.all * c.n_out
    vector = c.inputs * (EVALUATION + CHOICE * c.all)
    forward = Kernel(parts * c.inputs * c.width + outputs, work, parts * vector, share=FUSED)
    backward = Kernel(3 * c.inputs * c.width + outputs, work, 2.0 * vector, c.block * c.n_out / 64, FUSED)
    clear = Kernel(c.inputs * c.width)
    return [_pack(c), forward], [clear, _pack(c), backward, _fill(c, False), *_weights(c)]


def sparse(c: Case) -> Passes:
    """SplineKAN's Triton kernels: weights gathered of the splines that are not zero."""
    work, gathered = 2.0 * c.inputs * (c.order + 2) * c.n_out, c.inputs * (c.order + 1) * float(c.n_out) * c.width
    one = Kernel(c.inputs * c.width + c.weights + c.output, vector=work, cached=gathered)
    order = [Kernel(8.0 * c.inputs)] + [Kernel(24.0 * c.inputs)] * 4 + [Kernel(4.0 * c.n_in * c.all)]
    base = Kernel(c.inputs * c.width + c.output, 2.0 * c.inputs * c.n_out)
    clear = Kernel(c.inputs * c.width)
    return [_pack(c), one], [clear, _pack(c), one, *order, one, base, Kernel(3 * c.weights)]


LAYERS: dict[str, Callable[[Case], Passes]] = {
    "nn.Linear + SiLU": linear,
    "efficient-kan": efficient_kan,
    "SplineKAN, Triton dense": dense,
    "SplineKAN, Triton fused": fused,
    "SplineKAN, Triton sparse": sparse,
    "the products alone": alone,
}
PEER, FLOOR = "efficient-kan", "the products alone"


def expected(shape: tuple[int, int, int], grid: int, order: int, device: str, kind: str) -> list[dict[str, Any]]:
    """One row per layer: launches, bytes, operations, and expected times of forward, and forward + backward.

    Args:
        shape: (inputs, outputs, batch). kind: of `TYPES`; the device must have it.
    """
    case = Case(*shape, grid, order, TYPES[kind])
    rows: list[dict[str, Any]] = []
    for name, passes in LAYERS.items():
        forward, backward = passes(case)
        both = [*forward, *backward]
        rows.append(
            {
                "device": device,
                "dtype": kind,
                "layer": name,
                "launches": len(both),
                "bytes": sum(k.bytes for k in both),
                "gflop": 1e-9 * sum(k.products + k.vector for k in both),
                "forward_ms": 1e3 * seconds(forward, DEVICES[device], kind),
                "both_ms": 1e3 * seconds(both, DEVICES[device], kind),
            }
        )
    times = {row["layer"]: row["both_ms"] for row in rows}
    return [
        {**row, "over_peer": row["both_ms"] / times[PEER], "over_floor": row["both_ms"] / times[FLOOR]} for row in rows
    ]
