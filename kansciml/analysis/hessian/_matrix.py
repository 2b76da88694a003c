"""The matrix of an operator by products with unit vectors, split over processes, and kept in a file until whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..._errors import KansciError
from ._columns import load_columns, save_columns
from ._probes import _exchange_device
from .symmetric import SymmetricOperator

COLUMNS = 16
"""In one block: a process makes a block at a time, and the blocks are the same however many processes there are."""


def matrix_of(
    operator: SymmetricOperator,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The matrix, (n, n) in float64, from n products with unit vectors; what rounding makes of its symmetry is undone.

    With torch.distributed initialised, and an operator that is not itself distributed, the processes take blocks of
    columns in turn and all have the whole in the end; the first alone reads and writes `checkpoint` and reports.

    Args:
        checkpoint: npz file in which the columns found are kept. progress: ``progress(done, n)`` after each block.

    Raises:
        UsageError: a checkpoint of another operator. KansciError: a process failed.
    """
    several = dist.is_available() and dist.is_initialized()
    leads = not several or dist.get_rank() == 0
    alone = not several or getattr(operator, "distributed", False)
    rank, world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
    size = operator.size
    matrix = torch.zeros(size, size, dtype=torch.float64)
    fingerprint = "" if checkpoint is None else operator.fingerprint
    saved = _saved(operator, checkpoint, fingerprint, several)
    done = saved_at = saved.shape[1]
    matrix[:, :done] = saved
    while done < size:
        starts = range(done, min(done + world * COLUMNS, size), COLUMNS)
        own, failure = torch.zeros(size, COLUMNS, dtype=torch.float64), None
        if rank < len(starts):
            try:
                block = _block(operator, starts[rank], min(COLUMNS, size - starts[rank]))
                own[:, : block.shape[1]] = block
            except Exception as error:
                if alone:
                    raise
                failure = error  # told to the others, who would wait for this one
        for start, block in zip(starts, [own] if alone else _shared(operator, own, failure)):
            matrix[:, start : start + COLUMNS] = block[:, : size - start]
        done = min(starts[-1] + COLUMNS, size)
        # The whole file is written each time: in steps that grow with it, writing stays cheaper than computing
        if checkpoint is not None and leads and (done - saved_at >= max(COLUMNS, saved_at // 4) or done == size):
            save_columns(checkpoint, fingerprint, matrix[:, :done].numpy())
            saved_at = done
        if progress is not None and leads:
            progress(done, size)
    return (matrix + matrix.T) / 2


def _block(operator: SymmetricOperator, start: int, width: int) -> Tensor:
    units = torch.zeros(operator.size, width, dtype=operator.dtype, device=operator.device)
    units[torch.arange(start, start + width), torch.arange(width)] = 1
    return operator.matvec(units).to("cpu", torch.float64)


def _shared(operator: SymmetricOperator, own: Tensor, failure: Exception | None) -> list[Tensor]:
    """The blocks of all processes; raises `failure`, or if another process has one."""
    device = _exchange_device(operator)
    mine = torch.cat([own.reshape(-1), own.new_tensor([failure is not None])]).to(device)
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    failed = [index for index, one in enumerate(found) if one[-1]]
    if failure is not None:
        raise failure
    if failed:
        raise KansciError(f"a column of the matrix failed in process {failed[0]}: see its message")
    return [one[:-1].reshape(own.shape).cpu() for one in found]


def _saved(operator: SymmetricOperator, checkpoint: Path | None, fingerprint: str, several: bool) -> Tensor:
    """The first columns (n, m), if any were saved; among several processes the first reads."""
    columns, failure = np.empty((operator.size, 0)), None
    if checkpoint is not None and (not several or dist.get_rank() == 0) and Path(checkpoint).exists():
        try:
            columns = load_columns(Path(checkpoint), fingerprint)
        except KansciError as error:
            failure = error
    if several:
        device = _exchange_device(operator)
        count = torch.tensor([-1 if failure is not None else columns.shape[1]], device=device)
        dist.broadcast(count, 0)
        if failure is None and int(count) < 0:
            raise KansciError("process 0 could not use the checkpoint: see its message")
        if int(count) > 0:
            shared = torch.empty((operator.size, int(count)), dtype=torch.float64, device=device)
            if dist.get_rank() == 0:
                shared.copy_(torch.from_numpy(columns))
            dist.broadcast(shared, 0)
            return shared.cpu()
    if failure is not None:
        raise failure
    return torch.from_numpy(columns)
