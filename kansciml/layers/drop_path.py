"""Stochastic depth (Huang et al. 2016): a residual branch is left out, sample by sample, while training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class DropPath(nn.Module):
    """Sets a sample's whole branch to zero with probability `rate`, and divides the others by 1 - rate.

    The mean over draws is the input; in evaluation, and at rate 0, it is the identity. Draws come from torch's own
    generator, as those of `torch.nn.Dropout` do.

    Args:
        rate: probability in [0, 1) (default 0).

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"got drop-path rate {rate}: expected at least 0 and less than 1")
        self.rate = float(rate)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
