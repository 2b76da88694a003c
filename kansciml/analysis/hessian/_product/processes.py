"""Sums and compares over the processes that share the data, or over this one alone."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kansciml._errors import KansciError, UsageError

T = TypeVar("T")


class Processes:
    """The processes of torch.distributed (a UsageError without a group), or a single one if not `distributed`."""

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
        """Refuse (by a KansciError) a number that is not the same in all processes."""
        if self.many and not all(other == number for other in gather(number, self.device)):
            raise KansciError(f"the processes have different {what}: expected the same in all of them")

    def digest(self, own: bytes) -> bytes:
        """One digest for the digests of all processes, in their order."""
        return hashlib.sha256(b"".join(gather(own, self.device))).digest() if self.many else own

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


def gather(value: T, device: torch.device) -> list[T]:
    """The values of all processes, in their order, in each of them."""
    found: list[Any] = [None] * dist.get_world_size()
    with torch.cuda.device_of(torch.empty(0, device=device)):
        dist.all_gather_object(found, value)
    return found
