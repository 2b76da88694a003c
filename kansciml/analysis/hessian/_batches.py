"""One batch, or many, read again for every product, cut into micro-batches along their first axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from kansciml._errors import UsageError


class Batches:
    """Re-iterable micro-batches with their sizes, on the device of the parameters.

    Args:
        given: one batch (a tensor, tuple or dict of tensors, or None where the loss needs no data), or anything else
            that can be iterated over again and again: a list of batches, a DataLoader.
        micro_batch: most samples at once; None leaves the batches as they are.
        device: where tensors are moved to.

    Raises:
        UsageError: an iterator (which can be read only once), something that is no batch, micro_batch below 1.
    """

    def __init__(self, given: Any, micro_batch: int | None, device: torch.device) -> None:
        if micro_batch is not None and (not isinstance(micro_batch, int) or micro_batch < 1):
            raise UsageError(f"got micro_batch {micro_batch!r}: expected a whole number of samples, at least 1")
        self.micro_batch, self.device = micro_batch, device
        self.single = given is None or isinstance(given, (Tensor, tuple, Mapping))
        if not self.single:
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise UsageError(
                    f"got batches of type {type(given).__name__}: expected a tensor, a tuple or dict of tensors, or a"
                    " list or DataLoader of those"
                )
            if isinstance(given, Iterator):
                raise UsageError(
                    f"got batches as a {type(given).__name__}, which can be read only once: expected a list or a"
                    " DataLoader, as every product reads the data again; list(...) makes one"
                )
        self._given = [given] if self.single else given

    @property
    def generators(self) -> list[torch.Generator]:
        """Generators of a DataLoader, which draws its order from them."""
        owners = (self._given, getattr(self._given, "sampler", None))
        return [g for g in (getattr(owner, "generator", None) for owner in owners) if isinstance(g, torch.Generator)]

    def whole(self) -> Iterator[tuple[Any, int]]:
        """Each batch as it was given, with its size.

        Raises:
            UsageError: no batches at all, or one without samples.
        """
        count = 0
        for count, batch in enumerate(self._given, 1):
            size = batch_size(batch, strict=not self.single or self.micro_batch is not None)
            if size == 0:
                raise UsageError(f"batch {count} has no samples: expected at least one in each batch")
            yield batch, size
        if not count:
            raise UsageError("got no batches at all: expected at least one (is the loader's data set empty?)")

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        for batch, size in self.whole():
            step = self.micro_batch or size
            for start in range(0, size, step):
                part = batch if step >= size else part_of(batch, start, start + step)
                yield self.moved(part), min(step, size - start)

    def moved(self, batch: Any) -> Any:
        return tree_map(lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf, batch)


def batch_size(batch: Any, strict: bool) -> int:
    """Length of the first axis of the batch's tensors; 1 for a batch without any.

    Raises:
        UsageError: `strict`, and the tensors' first axes differ.
    """
    sizes = [leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if strict and len(set(sizes)) > 1:
        raise UsageError(
            f"got a batch of tensors with first axes of lengths {', '.join(map(str, sorted(set(sizes))))}: expected the"
            " samples along the first axis of each; keep what belongs to no sample inside the loss"
        )
    return sizes[0] if sizes else 1


def part_of(batch: Any, start: int, end: int) -> Any:
    """Samples `start` to `end` (exclusive) of a batch."""
    return tree_map(lambda leaf: leaf[start:end] if isinstance(leaf, Tensor) and leaf.dim() > 0 else leaf, batch)
