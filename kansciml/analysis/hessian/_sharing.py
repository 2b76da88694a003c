"""Work shared out over the processes of torch.distributed: each takes a part, and all end with the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..._errors import KansciError
from ._product.processes import gather
from .symmetric import SymmetricOperator

T = TypeVar("T")


class Sharing:
    """The processes that take parts of the work in turn: all of torch.distributed, or this one alone.

    Those of an operator that is itself distributed make every product together, and take no parts.

    Attributes: alone; leads (this process reads, writes and reports).
    """

    def __init__(self, operator: SymmetricOperator) -> None:
        self._several = dist.is_available() and dist.is_initialized()
        self._device = operator.device
        self.leads = not self._several or dist.get_rank() == 0
        self.alone = not self._several or getattr(operator, "distributed", False)

    def in_turns(
        self, items: Sequence[T], compute: Callable[[T], np.ndarray], what: str
    ) -> Iterator[tuple[Sequence[T], list[np.ndarray]]]:
        """In rounds, one item to a process: the items of a round, and in every process what `compute` made of each.

        Raises:
            KansciError: `compute` failed in another process; in its own, its exception is raised.
        """
        if self.alone:
            yield from (([item], [compute(item)]) for item in items)
            return
        rank, world = dist.get_rank(), dist.get_world_size()
        for first in range(0, len(items), world):
            batch = items[first : first + world]
            found, failure = None, None
            if rank < len(batch):
                try:
                    found = compute(batch[rank])
                except Exception as error:  # the others would wait for this one until their time limit
                    failure = error
            everyone = gather((found, failure is not None), self._device)
            if failure is not None:
                raise failure
            for index, (_, fails) in enumerate(everyone):
                if fails:
                    raise KansciError(f"{what} failed in process {index}: see its message")
            yield batch, [row for row, _ in everyone if row is not None]

    def from_first(self, make: Callable[[], T]) -> T:
        """In every process, what `make` gives in the first, which alone calls it.

        Raises:
            KansciError: it failed in the first process.
        """
        if not self._several:
            return make()
        found, failure = None, None
        if self.leads:
            try:
                found = make()
            except KansciError as error:
                failure = error
        told: list[Any] = [found, failure is not None]
        with torch.cuda.device_of(torch.empty(0, device=self._device)):
            dist.broadcast_object_list(told, 0)
        if failure is not None:
            raise failure
        if told[1]:
            raise KansciError("process 0 could not use the checkpoint: see its message")
        return told[0]

    def agreed(self, values: np.ndarray, vectors: Tensor) -> tuple[np.ndarray, Tensor]:
        """Eigenpairs (r,), (n, r) as the first process found them: machines may differ in the last bits."""
        if self.alone:
            return values, vectors
        values = self.from_first(lambda: values)
        device = self._device if "nccl" in str(dist.get_backend()) else "cpu"
        shared = vectors if self.leads else vectors.new_empty(len(vectors), len(values))
        shared = shared.to(device).contiguous()
        if len(values):
            dist.broadcast(shared, 0)
        return values, shared.to(self._device)
