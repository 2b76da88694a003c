"""Sparsity of a KAN layer from the norms of its edges (Liu et al. 2024, section 2.5.1): scalars, float32 at least."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Norms = Float[Tensor, "inputs outputs"]

SMALLEST_SHARE = 1e-12
"""Share of an edge below which the logarithm's slope no longer grows: it would be infinite at a zero edge."""
SMALLEST_SUM = 1e-18
"""Sum of norms at and below which a layer counts as all zero (more in float16: the slope grows as 1 over the sum)."""


def l1(edge_norms: Norms) -> Float[Tensor, ""]:
    r"""L1 norm of a layer: :math:`|\Phi|_1 = \sum_{io} |\phi_{io}|_1` (Liu et al. 2024, Equation 2.18).

    Args:
        edge_norms: at least 0: the mean of :math:`|\phi_{io}(x_i)|` over the samples (Equation 2.17).

    Raises:
        ValueError: edge_norms is not 2-D or not floating point.
    """
    return _checked(edge_norms).sum()


def entropy(edge_norms: Norms) -> Float[Tensor, ""]:
    r"""Entropy of a layer (Liu et al. 2024, Equation 2.19), from 0 (one edge does all) to log(I O) (all edges equal).

    .. math:: S(\Phi) = -\sum_{io} p_{io} \log p_{io},\quad p_{io} = |\phi_{io}|_1 / |\Phi|_1

    Finite with finite gradients for any norms: 0 log 0 = 0, its infinite slope is held at that of p = 1e-12, and a
    layer whose norms are all zero has entropy 0 and no gradient.

    Raises:
        ValueError: as `l1`.
    """
    norms = _checked(edge_norms)
    total = norms.sum()
    present = total > max(SMALLEST_SUM, 32 / torch.finfo(edge_norms.dtype).max)  # 32 > -log(SMALLEST_SHARE) + 1
    # both sides of `where` must be finite, or its gradient is NaN
    shares = norms * torch.where(present, 1 / torch.where(present, total, 1.0), 0.0)
    entropy = -(shares * shares.clamp(min=SMALLEST_SHARE).log()).sum()
    return torch.where(present, entropy, 0.0)


def penalty(edge_norms: Norms, of_l1: float = 1.0, of_entropy: float = 1.0) -> Float[Tensor, ""]:
    r"""Penalty of one layer, :math:`\mu_1 |\Phi|_1 + \mu_2 S(\Phi)` (Liu et al. 2024, Equation 2.20).

    Sum it over the layers, and add it to the loss with a factor :math:`\lambda`.

    Args:
        of_l1, of_entropy: the weights :math:`\mu_1` and :math:`\mu_2` (default 1, as in the paper).

    Raises:
        ValueError: as `l1`.
    """
    return of_l1 * l1(edge_norms) + of_entropy * entropy(edge_norms)


def _checked(edge_norms: Tensor) -> Tensor:
    if edge_norms.ndim != 2 or not edge_norms.is_floating_point():
        raise ValueError(
            f"got edge norms of shape {tuple(edge_norms.shape)} and {edge_norms.dtype}: expected (in_features,"
            " out_features) of floating-point numbers"
        )
    return edge_norms.to(torch.promote_types(edge_norms.dtype, torch.float32))
