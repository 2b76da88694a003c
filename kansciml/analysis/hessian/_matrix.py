"""Forms an operator's matrix by products with unit vectors, split over processes, and kept in a file until whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ..._errors import KansciError
from ._saved import load, save
from ._sharing import Sharing
from .symmetric import SymmetricOperator, not_finite

COLUMNS = 16
"""In one block: a process makes a block at a time, and the blocks are the same however many processes there are."""
BAND = 256
"""Rows that are made symmetric at a time."""


@dataclass(frozen=True)
class FormedMatrix:
    """A matrix made of products, (A + A^T) / 2, and how far these were from symmetric.

    Args:
        asymmetry: |A - A^T| / |A|, both Frobenius norms; 0 of the zero matrix.
        rounding: |A - A^T| / 2, Frobenius: by about as much (Weyl) rounding may have moved the eigenvalues.
    """

    matrix: Float64[Tensor, "n n"]
    asymmetry: float
    rounding: float


def matrix_of(
    operator: SymmetricOperator,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float64[Tensor, "n n"]:
    """The matrix from n products with unit vectors; see `formed_matrix`, which tells its asymmetry too."""
    return formed_matrix(operator, checkpoint=checkpoint, progress=progress).matrix


def formed_matrix(
    operator: SymmetricOperator,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FormedMatrix:
    """The matrix from n products with unit vectors; the asymmetry that rounding leaves is measured and removed.

    With torch.distributed initialised, and an operator that is not itself distributed, the processes take blocks of
    columns in turn and all have the whole in the end; the first alone reads and writes `checkpoint` and reports.

    Args:
        operator: n x n.
        checkpoint: npz file in which the columns found are kept.
        progress: ``progress(done, n)`` after each block.

    Raises:
        UsageError: a checkpoint of another operator. KansciError: a process failed, or the products are no symmetric
            matrix, which no eigenvalues would be right of.
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
    return _symmetric(matrix, torch.finfo(operator.dtype).eps)


def _symmetric(matrix: np.ndarray, eps: float) -> FormedMatrix:
    """Made symmetric in place, a band of rows at a time: a large matrix is not held twice."""
    size, squares = float(np.linalg.norm(matrix)), 0.0
    if not math.isfinite(size):
        raise not_finite()
    for start in range(0, len(matrix), BAND):
        upper, lower = matrix[start : start + BAND, start:], matrix[start:, start : start + BAND]
        difference = upper - lower.T
        mean = upper - difference / 2
        width = len(mean)
        squares += float(np.square(difference[:, :width]).sum() + 2 * np.square(difference[:, width:]).sum())
        upper[:], lower[:] = mean, mean.T
    off = math.sqrt(squares)
    if off > math.sqrt(eps) * size:
        raise KansciError(
            f"the products with unit vectors are not symmetric ({off:.1e} of a norm of {size:.1e}): expected less than"
            f" {math.sqrt(eps):.1e} of it; look for an operation whose second derivative is wrong"
        )
    return FormedMatrix(torch.from_numpy(matrix), off / size if size > 0 else 0.0, off / 2)
