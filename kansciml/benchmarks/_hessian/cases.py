"""The mixers with KAN layers of ``kansciml bench hessian``, and ways to multiply with their loss's Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kansciml.analysis.hessian import HessianOperator, lanczos, supervised
from kansciml.benchmarks._hessian import pyhessian_like as rival
from kansciml.models.registry import build_model

MODEL, VARIANT = "mixer-nano", "kan-spline"
IMAGE, CHANNELS, CLASSES = 32, 3, 10
LEARNING_RATE = 1e-3
MICRO_PARTS = 4
"""Micro-batches that the batch is cut into in the case that shows what they cost."""

LOADER = "PyHessian's algorithm, loader"
"""Its defaults on a data set: the graph recomputed for every product."""
SINGLE = "PyHessian's algorithm, single batch"
OURS = "kansciml"
RECOMPUTED = "kansciml, graph not kept"
MICRO = f"kansciml, {MICRO_PARTS} micro-batches"
TEXTBOOK = f"{LOADER}, with textbook layers"
"""The same function by layers as efficient-kan computes them: what a user without these layers would wait for."""

cross_entropy = supervised(nn.CrossEntropyLoss())


@dataclass(frozen=True)
class Problem:
    """A loss: a model in eval mode, and one batch (images, labels)."""

    module: nn.Module
    batch: tuple[Tensor, Tensor]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters())

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters)

    def to(self, dtype: torch.dtype) -> Problem:
        """The same in another dtype, in place."""
        return Problem(self.module.to(dtype), (self.batch[0].to(dtype), self.batch[1]))

    def operator(self, **options: Any) -> HessianOperator:
        """Our Hessian of it."""
        return HessianOperator(self.module, cross_entropy, self.batch, **options)


def make_problem(images: int, steps: int, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> Problem:
    """A mixer after a few steps of Adam on random images and labels.

    Args:
        images: size of the batch. steps: of Adam, which take the weights off their symmetric start.
        seed: of weights and data. dtype: of both. options: fields of the mixer's configuration.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {"image_size": IMAGE, "channels": CHANNELS, "classes": CLASSES, **options}
    module = build_model(MODEL, VARIANT, generator, **sizes).to(dtype).eval()
    shape = images, sizes["channels"], sizes["image_size"], sizes["image_size"]
    x = torch.randn(shape, generator=generator).to(dtype)
    labels = torch.randint(0, sizes["classes"], (images,), generator=generator)
    optimiser = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        cross_entropy(module, (x, labels)).backward()
        optimiser.step()
    optimiser.zero_grad()
    return Problem(module, (x, labels))


def products(problem: Problem) -> dict[str, Callable[[], Callable[[], object]]]:
    """name -> a function that prepares, and returns a function that makes one product with a fixed vector."""
    signs = rival.random_signs(problem.parameters, torch.Generator().manual_seed(1))
    flat = torch.cat([part.flatten() for part in signs])
    micro = max(1, len(problem.batch[1]) // MICRO_PARTS)

    def theirs(product: rival.Product) -> Callable[[], object]:
        return lambda: product(signs)

    def ours(**options: Any) -> Callable[[], object]:
        operator = problem.operator(**options)
        return lambda: operator.matvec(flat)

    return {
        LOADER: lambda: theirs(rival.recomputed(problem.module, cross_entropy, [problem.batch])),
        SINGLE: lambda: theirs(rival.kept(problem.module, cross_entropy, problem.batch)),
        OURS: lambda: ours(keep_graph=True),
        RECOMPUTED: lambda: ours(keep_graph=False),
        MICRO: lambda: ours(keep_graph=False, micro_batch=micro),
    }


class DiagonalOperator:
    """A matrix whose products cost next to nothing: with it, a Lanczos run takes the recurrence's own time."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal, self.size = diagonal, len(diagonal)
        self.dtype, self.device, self.fingerprint = diagonal.dtype, diagonal.device, "diagonal"

    def matvec(self, vector: Tensor) -> Tensor:
        """D v."""
        return self.diagonal * vector


def recurrences(problem: Problem, iterations: int) -> dict[str, Callable[[], object]]:
    """Lanczos runs on vectors of the problem's size, by PyHessian's algorithm (`LOADER`) and by ours (`OURS`)."""
    generator = torch.Generator().manual_seed(2)
    signs = rival.random_signs(problem.parameters, generator)
    diagonal = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in problem.parameters]
    operator = DiagonalOperator(torch.cat([part.flatten() for part in diagonal]))
    flat = torch.cat([part.flatten() for part in signs])

    def theirs() -> object:
        return rival.density(lambda vector: [d * v for d, v in zip(diagonal, vector)], signs, iterations)

    return {LOADER: theirs, OURS: lambda: lanczos(operator, flat, iterations, basis="memory")}
