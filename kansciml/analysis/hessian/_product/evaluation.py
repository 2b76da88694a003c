"""Evaluates a loss over all batches and processes: its gradient, its gradients' graphs, and their memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import KansciError
from kansciml.analysis.hessian._product import check
from kansciml.analysis.hessian._product import loss as _loss
from kansciml.analysis.hessian._product.batches import Batches, batch_size, part_of
from kansciml.analysis.hessian._product.loss import GradientGraph, Loss
from kansciml.analysis.hessian._product.parameters import FlatParameters
from kansciml.analysis.hessian._product.processes import Processes
from kansciml.analysis.hessian._product.state import BufferState, Keeper, RandomState
from kansciml.analysis.memory import MemoryUse, measure

FEW = 16
"""Samples on which products are tried."""
KEEP = "keep_basis"
"""Attribute by which a layer is told to keep, with a graph that serves many products, what these share."""


class Evaluation:
    """The mean loss over all samples, differentiated by the parameters of `flat`, in one unchanging random state."""

    def __init__(
        self, module: nn.Module, loss: Loss, flat: FlatParameters, batches: Batches, processes: Processes
    ) -> None:
        self.module, self.loss, self.flat, self.batches, self.processes = module, loss, flat, batches, processes
        self.value: float | None = None
        self.passed = False
        """The check: the loss is deterministic and leaves buffers alone."""
        self.tried: Any = None
        """Samples that the check tried derivatives on, and the custom functions that their loss went through."""
        self.custom: list[str] = []
        self._uses: dict[bool, MemoryUse] = {}
        self._random = RandomState(batches.generators)
        self._keeper = Keeper(module, flat.tensors, batches.generators)
        self._versions = flat.versions()

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Lets the loss be differentiated twice, with the random numbers that came next at construction."""
        # a loss that passed the check leaves buffers alone: no copy of them is needed
        with self._keeper.preserved(buffers=not self.passed):
            self._random.restore()
            with self._keeper.twice_differentiable():
                yield

    def require_unchanged(self) -> None:
        """Refuse, by a KansciError, parameters that were written to or replaced."""
        if self.flat.versions() != self._versions:
            raise KansciError("the parameters changed since this operator was made: make a new one")

    def graphs(self, basis: bool = False) -> Iterator[tuple[GradientGraph, float]]:
        """The graphs of the micro-batches' gradients, one at a time, and their weights."""
        for batch, weight in self.batches:
            yield self.graph(batch, basis), weight

    def graph(self, batch: Any, basis: bool = False) -> GradientGraph:
        """The graph of a micro-batch's gradient; `basis`: products with it will keep the splines of its KAN layers."""
        with self._keeping(basis):
            return GradientGraph.of(_loss.evaluate(self.loss, self.module, batch), self.flat.tensors)

    def first_order(self) -> tuple[Tensor, float]:
        """Gradient, and the mean of the batches' gradient norms; remembers the loss in `value`."""
        total, value, norms, weights = self.flat.zeros(), 0.0, 0.0, 0.0
        with self.processes.together():
            self.require_unchanged()
            for batch, weight in self.batches:
                part = _loss.evaluate(self.loss, self.module, batch)
                value += weight * float(part.detach())
                found = _loss.gradients(part, self.flat.tensors)
                norms += weight * sum(float(torch.linalg.vector_norm(g)) ** 2 for g in found if g is not None) ** 0.5
                self.flat.add_to(total, found, weight)
                weights += weight
                del part, found
        value, norms, everyone = self.processes.sum_numbers(value, norms, weights)
        self.mean_(total, weights)
        self.value = value / everyone
        return total, norms / everyone

    def mean_(self, total: Tensor, weights: float) -> Tensor:
        """The weighted sum of this process into the mean over all of them, in place."""
        (everyone,) = self.processes.sum_numbers(weights)
        return self.processes.sum_(total).div_(everyone)

    def check(self) -> None:
        """Take the gradient twice, with random states moved on; then check that it is a mean, and two products."""
        with self.begun():
            with self.processes.together():
                batch, _ = next(iter(self.batches))
                value = _loss.evaluate(self.loss, self.module, batch)
                _loss.require_twice(value)
                eps = _loss.precision(value)
                del value
            first, scale = self.first_order()
            mean_loss = self.value
            check.require_finite(self.flat.split(first))
            buffers = BufferState(self.module)
            second, _ = self.first_order()
            self.value = mean_loss
            with self.processes.together():
                check.compare(self.module, first, second, scale, buffers.changed())
                del first, second
                mean = check.MeanCheck(self.loss, self.module, self.flat, self.batches, eps)
                mean.run(self.processes.many)
                self.tried, few = self._of_few(batch)
                check.require_symmetric(few, self.flat)
                self.custom = _loss.custom_functions(few)
        self.passed = True

    def _of_few(self, batch: Any) -> tuple[Any, Tensor]:
        """A batch's first samples, which are enough to try derivatives, or all where those fail; and their loss."""
        size = batch_size(batch, strict=False)
        if size is not None and size > FEW:
            with contextlib.suppress(Exception):  # not every loss can be taken of part of a batch
                few = part_of(batch, 0, FEW, size)
                return few, _loss.evaluate(self.loss, self.module, few)
        return batch, _loss.evaluate(self.loss, self.module, batch)

    def slope_along(self, direction: Tensor, step: float | None) -> Tensor:
        """The gradient's derivative along a unit direction by central differences; the parameters are put back."""
        before = [p.detach().clone() for p in self.flat.tensors]
        if step is None:
            length = sum(float(torch.linalg.vector_norm(p)) ** 2 for p in before) ** 0.5
            step = torch.finfo(self.flat.dtype).eps ** (1 / 3) * max(1.0, length)
        found = []
        with self.begun():
            value = self.value
            try:
                for signed in (step, -step):
                    self._random.restore()
                    for p, old, part in zip(self.flat.tensors, before, self.flat.parts(direction)):
                        p.data.copy_(old).add_(part, alpha=signed)  # through `data`: no new version of the parameter
                    found.append(self.first_order()[0])
            finally:
                self.value = value
                for p, old in zip(self.flat.tensors, before):
                    p.data.copy_(old)
        return found[0].sub_(found[1]).div_(2 * step)

    @property
    def has_basis(self) -> bool:
        """Whether there are layers that could keep splines."""
        return any(hasattr(layer, KEEP) for layer in self.module.modules())

    @contextlib.contextmanager
    def _keeping(self, basis: bool) -> Iterator[None]:
        layers = [layer for layer in self.module.modules() if hasattr(layer, KEEP)] if basis else []
        before = [getattr(layer, KEEP) for layer in layers]
        try:
            for layer in layers:
                setattr(layer, KEEP, True)
            yield
        finally:
            for layer, value in zip(layers, before):
                setattr(layer, KEEP, value)

    def use(self, basis: bool = False) -> MemoryUse:
        """Memory of the first micro-batch's graph, held, and of a product with it, by doing it; measured once."""
        if basis not in self._uses:
            with self.begun():
                batch, _ = next(iter(self.batches))
                vector = self.flat.parts(self.flat.zeros())

                def product() -> GradientGraph:
                    graph = self.graph(batch, basis)
                    for _ in range(2 if basis else 1):  # what the first product makes is there during the second
                        graph.product(self.flat.tensors, vector, keep=True)
                    return graph

                # without hooks on saved tensors, which `torch.func` transforms in a loss would refuse
                self._uses[basis] = measure(product, device=self.flat.device, saved=False)
        return self._uses[basis]

    @functools.cached_property
    def micro_batch(self) -> int:
        """Samples of the first micro-batch."""
        with self.begun():
            return batch_size(next(iter(self.batches))[0], strict=False) or 1

    @functools.cached_property
    def samples(self) -> int:
        """Samples of this process."""
        with self.begun():
            return sum(batch_size(batch, strict=False) or 1 for batch, _ in self.batches.whole())

    def kept_bytes(self, basis: bool = False) -> int:
        """All graphs, in proportion to the samples, and what one product takes on top."""
        use = self.use(basis)
        return int(use.live_bytes * self.samples / self.micro_batch + use.peak_bytes - use.live_bytes)
