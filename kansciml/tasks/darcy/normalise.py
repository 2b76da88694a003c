"""Normalises samples, node by node, to mean 0 and standard deviation 1 over the training samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from kansciml._errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

EPS = 1e-5
A = TypeVar("A", np.ndarray, "Tensor")


@dataclass(frozen=True, eq=False)
class PointwiseNormaliser(Generic[A]):
    """encode: z = (x - mean) / (std + eps), decode: x = z (std + eps) + mean, at each node by itself.

    Where the training samples do not vary, as solutions on the boundary, std is 0, and eps alone divides: decoding
    brings such a node back to its mean whatever the network says there.

    Source: Li et al., Fourier neural operator for parametric partial differential equations (2021), code.

    Args:
        mean, std: (s, s) each, NumPy arrays or tensors; `fit` makes them.
        eps: default 1e-5.
    """

    mean: A
    std: A
    eps: float = EPS

    @staticmethod
    def fit(x: Float[np.ndarray, "n s s"], eps: float = EPS) -> PointwiseNormaliser[np.ndarray]:
        """From two samples or more: mean and unbiased standard deviation, summed in float64, of the type of x.

        Raises:
            UsageError: another shape, or fewer than two samples.
        """
        if x.ndim < 2 or len(x) < 2:
            raise UsageError(f"got training samples of shape {x.shape}: expected (N, s, s) with at least 2 samples")
        mean = x.mean(0, dtype=np.float64)
        std = x.std(0, dtype=np.float64, ddof=1)
        return PointwiseNormaliser(mean.astype(x.dtype), std.astype(x.dtype), eps)

    def to_torch(
        self, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> PointwiseNormaliser[Tensor]:
        """The same for tensors on a device, of type `dtype` (default: that of the arrays)."""
        import torch

        mean, std = (torch.as_tensor(x).to(device, dtype) for x in (self.mean, self.std))
        return PointwiseNormaliser(mean, std, self.eps)

    def resampled(self: PointwiseNormaliser[np.ndarray], size: int) -> PointwiseNormaliser[np.ndarray]:
        """The same on a grid of size x size nodes: where nodes coincide equal, between them interpolated bilinearly.

        A network that was trained at one resolution takes its means and deviations to another with it.
        """
        have = self.mean.shape[0] - 1
        if have % (size - 1) == 0:
            step = have // (size - 1)
            return PointwiseNormaliser(self.mean[::step, ::step], self.std[::step, ::step], self.eps)
        place = np.linspace(0, have, size)
        low = np.minimum(place.astype(int), have - 1)
        share = place - low

        def between(values: np.ndarray) -> np.ndarray:
            rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
            return (rows[:, low] * (1 - share) + rows[:, low + 1] * share).astype(values.dtype)

        return PointwiseNormaliser(between(self.mean), between(self.std), self.eps)

    def encode(self, x: A) -> A:
        """Normalised x (..., s, s)."""
        return (x - self.mean) / (self.std + self.eps)

    def decode(self, z: A) -> A:
        """The inverse of `encode`."""
        return z * (self.std + self.eps) + self.mean
