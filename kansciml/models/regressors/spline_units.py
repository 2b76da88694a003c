"""Learnable B-splines as the activations of an MLP."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kansciml.layers.spline_kan import SplineKAN


class SplineUnits(nn.Module):
    """Learnable activations, one per input, then a linear layer: z -> W phi(z) + b.

    phi_j(z) = a_j silu(z) + sum_i c_ji B_i(z), B_i the G + S B-splines on [-1, 1], as on the edges of a KAN layer, of
    which this is the one whose edges from an input all have one function, up to a factor W. Float64.

    Weights: `weight` (I, O), `bias` (O,), `base` (I, 1), `splines` (I, G + S, 1).
    """

    def __init__(self, in_features: int, out_features: int, grid: int = 5, spline_order: int = 3) -> None:
        super().__init__()

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=torch.float64))

        self.weight, self.bias = parameter(in_features, out_features), parameter(out_features)
        self.base, self.splines = parameter(in_features, 1), parameter(in_features, grid + spline_order, 1)
        layer = SplineKAN(in_features, out_features, grid, spline_order, bias=True, dtype=torch.float64)
        self._layer = (layer,)  # in a tuple its weights are none of this module's: it is called with these
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Begin near an MLP with SiLUs: a = 1, c of N(0, 0.01), W and b as in `torch.nn.Linear`."""
        begin_linear(self.weight, self.bias, len(self.weight), generator)
        self.base.fill_(1.0)
        self.splines.normal_(0.0, 0.1, generator=generator)

    def forward(self, z: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        shared = {
            "base_weight": self.base * self.weight,
            "spline_weight": self.splines.expand(-1, -1, self.weight.shape[1]),
            "spline_scale": self.weight,
            "bias": self.bias,
        }
        return functional_call(self._layer[0], shared, (z,))


@torch.no_grad()
def begin_linear(weight: Tensor, bias: Tensor, inputs: int, generator: torch.Generator | None) -> None:
    """Draw weight and bias of a linear layer as PyTorch does, uniform within 1 / sqrt(inputs)."""
    bound = inputs**-0.5
    weight.uniform_(-bound, bound, generator=generator)
    bias.uniform_(-bound, bound, generator=generator)
