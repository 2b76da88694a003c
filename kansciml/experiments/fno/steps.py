"""What happens in the steps of a training of neural operators, and in its evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.runs import ranks
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.tasks.darcy.metrics import relative_l2
from kansciml.tasks.darcy.normalise import PointwiseNormaliser

POINTS = 2**17
"""Points of all samples of one batch of an evaluation together, at most."""

Batch = tuple[Tensor, Tensor]
"""Normalised coefficients (B, 1, s, s) and solutions (B, s, s)."""


class Encoded:
    """Samples on a device, with normalised coefficients."""

    def __init__(self, data: DarcyData, of_a: PointwiseNormaliser, device: torch.device | str = "cpu") -> None:
        self.a = torch.from_numpy(of_a.encode(data.a))[:, None].to(device)
        self.u = torch.from_numpy(data.u).to(device)

    def __len__(self) -> int:
        return len(self.u)


class Epoch:
    """The batches of one epoch in the form the training loop wants; an incomplete one at the end is left out.

    Args:
        samples: all of them. batch_size: of all processes together. seed, epoch: of the order.
        first: batch to begin with. rank, world: which part of each batch is wanted.
    """

    def __init__(
        self, samples: Encoded, batch_size: int, seed: int, epoch: int, first: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.samples, self.batch_size, self.seed, self.epoch = samples, batch_size, seed, epoch
        self.first, self.rank, self.world = first, rank, world

    def __len__(self) -> int:
        return len(self.samples) // self.batch_size

    def seek(self, first: int) -> Epoch:
        return Epoch(self.samples, self.batch_size, self.seed, self.epoch, first, self.rank, self.world)

    def shard(self, rank: int, world: int) -> Epoch:
        return Epoch(self.samples, self.batch_size, self.seed, self.epoch, self.first, rank, world)

    def __iter__(self) -> Iterator[Batch]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.samples))
        order = torch.from_numpy(order).to(self.samples.u.device)
        part = self.batch_size // self.world
        for place in range(self.first, len(self)):
            start = place * self.batch_size + self.rank * part
            rows = order[start : start + part]
            yield self.samples.a[rows], self.samples.u[rows]


class RelativeError:
    """Mean relative L2 error of the solutions, in their own units: the network's output is brought back to them."""

    def __init__(self, of_u: PointwiseNormaliser, device: torch.device | str = "cpu") -> None:
        self.of_u = of_u.to_torch(device)

    def __call__(self, module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        a, u = batch
        return relative_l2(self.predict(module, a), u), {"count": len(u)}

    def predict(self, module: nn.Module, a: Tensor) -> Tensor:
        """Solutions (B, s, s) for normalised coefficients."""
        return self.of_u.decode(module(a)[:, 0])


@torch.inference_mode()
def errors(module: nn.Module, samples: Encoded, loss: RelativeError, batch_size: int | None = None) -> Tensor:
    """Relative L2 error of each sample, (N,), of `module` in eval mode and in the type of its weights."""
    module.eval()
    like = next(module.parameters())
    size = batch_size or evaluation_batch(samples)
    found = [
        relative_l2(loss.predict(module, samples.a[start : start + size].to(like)), samples.u[start : start + size],
                    "none")
        for start in range(0, len(samples), size)
    ]  # fmt: skip
    return torch.cat(found) if found else samples.u.new_zeros(0)


@torch.inference_mode()
def predictions(module: nn.Module, samples: Encoded, loss: RelativeError, n: int) -> np.ndarray:
    """Solutions (n, s, s) of the first n samples."""
    module.eval()
    like = next(module.parameters())
    found = [loss.predict(module, samples.a[i : i + 1].to(like)) for i in range(min(n, len(samples)))]
    return torch.cat(found).float().cpu().numpy()


def mean_error(module: nn.Module, samples: Encoded, loss: RelativeError) -> float:
    """Mean of `errors` over all processes, each of which has its own share of `samples`."""
    found = errors(module, samples, loss).cpu().double()
    total = torch.stack([found.sum(), found.new_tensor(float(len(found)))])
    if ranks.size() > 1:
        torch.distributed.all_reduce(total)
    return (total[0] / total[1]).item()


def share(data: DarcyData) -> DarcyData:
    """This process's samples."""
    rows = slice(ranks.rank(), None, ranks.size())
    return DarcyData(data.a[rows], data.u[rows], data.source)


def evaluation_batch(samples: Encoded) -> int:
    """Samples that are evaluated at once."""
    return max(1, POINTS // samples.u[0].numel()) if len(samples) else 1
