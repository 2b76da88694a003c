"""The samples of all processes, where several work together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(samples: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The rows (N, I) of every rank of `group` (default: all) in the order of ranks; N may differ, and be 0.

    All ranks of the group must call it. Without `torch.distributed` in use the samples are returned as they are.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) <= 1:
        return samples
    ranks, home = range(dist.get_world_size(group)), samples.device
    if dist.get_backend(group) == "nccl":
        samples = samples.cuda()
    counts = [torch.zeros(1, dtype=torch.int64, device=samples.device) for _ in ranks]
    dist.all_gather(counts, torch.full_like(counts[0], len(samples)), group=group)
    most = int(torch.cat(counts).max())
    parts = [samples.new_empty(most, samples.shape[1]) for _ in ranks]
    dist.all_gather(parts, torch.cat([samples, samples.new_zeros(most - len(samples), samples.shape[1])]), group=group)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts)]).to(home)
