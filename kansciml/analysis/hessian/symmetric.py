"""What the algorithms of this package need to know of a symmetric matrix: its size, and its products with vectors."""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..._errors import KansciError, UsageError


@runtime_checkable
class SymmetricOperator(Protocol):
    """A real symmetric n x n matrix known only by its products with vectors.

    An operator whose `matvec` is itself shared by several processes (each holds part of the data) must be called by
    all of them at once; it says so with an attribute ``distributed = True``, and its probes are then not split.
    """

    size: int
    """n."""
    dtype: torch.dtype
    """Of the vectors it takes and returns: float32 or float64."""
    device: torch.device

    @property
    def fingerprint(self) -> str:
        """Identifies matrix, data and parameters: a run is resumed only with the operator it was begun with."""

    def matvec(self, vector: Float[Tensor, " n *columns"]) -> Float[Tensor, " n *columns"]:
        """A v, or A V column by column."""


class MatrixOperator:
    """An explicit symmetric matrix as a `SymmetricOperator`.

    Args:
        matrix: n >= 1, finite and symmetric to rounding; only (A + A^T) / 2 is used.
        dtype: float32 or float64 of the vectors, and of the products.

    Raises:
        UsageError: a matrix that is not square, not finite, or not symmetric.
    """

    def __init__(self, matrix: Shaped[Tensor, "n n"], dtype: torch.dtype = torch.float64) -> None:
        matrix = torch.as_tensor(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise UsageError(f"got a matrix of shape {tuple(matrix.shape)}: expected (n, n) with n >= 1")
        if not torch.isfinite(matrix).all():
            raise UsageError("got a matrix with NaN or infinite entries: expected finite numbers")
        asymmetry = float((matrix - matrix.T).abs().max())
        if asymmetry > 1e3 * torch.finfo(dtype).eps * float(matrix.abs().max()):
            raise UsageError(f"got a matrix that is not symmetric, by {asymmetry:.3g}: expected A = A^T")
        self.matrix = ((matrix + matrix.T) / 2).to(dtype)
        self.size, self.dtype, self.device = matrix.shape[0], dtype, self.matrix.device

    @classmethod
    def of_symmetric(cls, matrix: Shaped[Tensor, "n n"]) -> MatrixOperator:
        """Of a matrix that is known to be finite and symmetric: it is neither checked nor copied."""
        found = cls.__new__(cls)
        found.matrix, found.size, found.dtype, found.device = matrix, len(matrix), matrix.dtype, matrix.device
        return found

    @property
    def fingerprint(self) -> str:
        return f"matrix {self.size} {hash_of(self.matrix)}"

    def matvec(self, vector: Float[Tensor, " n *columns"]) -> Float[Tensor, " n *columns"]:
        """A v, or A V for columns."""
        return self.matrix @ vector


class ScaledOperator:
    """D A D for a diagonal D: the Hessian in scaled coordinates, as adaptive and filter-normalised sharpness use it.

    Raises:
        UsageError: a `scale` (the diagonal) of another shape, or not finite.
    """

    def __init__(self, operator: SymmetricOperator, scale: Float[Tensor, " n"]) -> None:
        if tuple(scale.shape) != (operator.size,) or not torch.isfinite(scale).all():
            raise UsageError(f"got a scale of shape {tuple(scale.shape)}: expected {operator.size} finite numbers")
        self.operator = operator
        self.size, self.dtype, self.device = operator.size, operator.dtype, operator.device
        self.scale = scale.detach().to(operator.device, operator.dtype)
        self.distributed = bool(getattr(operator, "distributed", False))

    @property
    def fingerprint(self) -> str:
        return f"scaled {hash_of(self.scale)} {self.operator.fingerprint}"

    def matvec(self, vector: Float[Tensor, " n *columns"]) -> Float[Tensor, " n *columns"]:
        """D A D v, or D A D V for columns."""
        scale = self.scale if vector.ndim == 1 else self.scale[:, None]
        return scale * self.operator.matvec(scale * vector)


def hash_of(tensor: Tensor) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a tensor's numbers."""
    data = tensor.detach().cpu().contiguous()
    return hashlib.sha256(data.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def not_finite(number: int | None = None) -> KansciError:
    """What to raise where a product has NaN or infinite entries; `number`: which product it was."""
    return KansciError(
        f"a product with the matrix{'' if number is None else f' (number {number})'} has NaN or infinite entries:"
        " expected finite ones: check that the loss and its first two derivatives are finite"
    )
