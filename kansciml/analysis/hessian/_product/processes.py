"""Sums and agreement over the processes that share the data, or over this one alone."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from kansciml._errors import KansciError, UsageError


class Processes:
    """The processes of torch.distributed, or a single one where `distributed` is false.

    Raises:
        UsageError: `distributed`, and there is no process group.
    """

    def __init__(self, distributed: bool, device: torch.device) -> None:
        if distributed and not (dist.is_available() and dist.is_initialized()):
            raise UsageError(
                "got distributed=True without a process group: start with torchrun and call"
                " torch.distributed.init_process_group() first"
            )
        self.many, self.device = distributed, device

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.many:
            dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, *numbers: float) -> list[float]:
        """The sum of each over the processes."""
        if not self.many:
            return list(numbers)
        return self.sum_(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def require_same(self, number: float, what: str) -> None:
        """Raises:
        KansciError: `number` is not the same in all processes.
        """
        if not self.many:
            return
        ends = torch.tensor([number, -number], dtype=torch.float64, device=self.device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        if not float(ends[0]) == -float(ends[1]):
            raise KansciError(f"the processes have different {what}: expected the same in all of them")

    def digest(self, own: bytes) -> bytes:
        """One digest for the digests of all processes, in their order."""
        if not self.many:
            return own
        mine = torch.tensor(list(own), dtype=torch.uint8, device=self.device)
        found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(found, mine)
        return hashlib.sha256(b"".join(bytes(part.tolist()) for part in found)).digest()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """If the block (without collective calls in it) fails in one process, it fails in all: none waits for ever."""
        try:
            yield
        except BaseException:
            if self.many:
                self.sum_numbers(1.0)
            raise
        if self.many and self.sum_numbers(0.0)[0]:
            raise KansciError("another process failed: its own message says why")
