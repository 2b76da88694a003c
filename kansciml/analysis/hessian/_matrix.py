"""Forms an operator's matrix by products with unit vectors, split over processes, and kept in a file until whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ._saved import load, save
from ._sharing import Sharing
from .symmetric import SymmetricOperator

COLUMNS = 16
"""In one block: a process makes a block at a time, and the blocks are the same however many processes there are."""


def matrix_of(
    operator: SymmetricOperator,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float64[Tensor, "n n"]:
    """The matrix from n products with unit vectors; the asymmetry that rounding leaves is removed.

    With torch.distributed initialised, and an operator that is not itself distributed, the processes take blocks of
    columns in turn and all have the whole in the end; the first alone reads and writes `checkpoint` and reports.

    Args:
        operator: n x n.
        checkpoint: npz file in which the columns found are kept.
        progress: ``progress(done, n)`` after each block.

    Raises:
        UsageError: a checkpoint of another operator. KansciError: a process failed.
    """
    sharing, size = Sharing(operator), operator.size
    matrix = np.zeros((size, size))
    settings = {} if checkpoint is None else {"fingerprint": operator.fingerprint}
    saved = None if checkpoint is None else sharing.from_first(lambda: load(checkpoint, settings, "columns"))
    done = saved_at = 0 if saved is None else saved.shape[1]
    if saved is not None:
        matrix[:, :done] = saved

    def block(start: int) -> np.ndarray:
        width = min(COLUMNS, size - start)
        units = torch.zeros(size, width, dtype=operator.dtype, device=operator.device)
        units[torch.arange(start, start + width), torch.arange(width)] = 1
        return operator.matvec(units).to("cpu", torch.float64).numpy()

    for starts, blocks in sharing.in_turns(range(done, size, COLUMNS), block, "a column of the matrix"):
        for start, columns in zip(starts, blocks):
            done = start + columns.shape[1]
            matrix[:, start:done] = columns
        # The whole file is written each time: in steps that grow with it, writing stays cheaper than computing
        due = done - saved_at >= max(COLUMNS, saved_at // 4) or done == size
        if checkpoint is not None and sharing.leads and due:
            save(checkpoint, settings, "columns", matrix[:, :done])
            saved_at = done
        if progress is not None and sharing.leads:
            progress(done, size)
    return torch.from_numpy((matrix + matrix.T) / 2)
