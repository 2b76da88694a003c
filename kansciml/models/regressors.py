"""Networks that learn a function of several variables: MLP, KAN, and MLP with learnable B-splines for activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from kansciml._errors import UsageError, check_name
from kansciml.layers.kan import KAN
from kansciml.layers.mlp import ACTIVATIONS, MLP
from kansciml.layers.spline_kan import SplineKAN

MODELS = {"mlp": "MLP", "kan": "KAN", "spline-mlp": "MLP, B-spline activations"}


@dataclass(frozen=True)
class Regressor:
    """A network from d inputs to one output.

    Args:
        model: a key of `MODELS`. widths: of its layers, from d to 1.
        activation: of the MLP. grid, spline_order: G and S of the splines, whose grids are [-1, 1].

    Raises:
        UsageError: an unknown name, or a size out of range.
    """

    model: str
    widths: tuple[int, ...]
    activation: str = "tanh"
    grid: int = 5
    spline_order: int = 3

    def __post_init__(self) -> None:
        check_name("model", self.model, MODELS)
        check_name("activation", self.activation, ACTIVATIONS)
        if len(self.widths) < 2 or min(*self.widths, self.grid) < 1 or self.spline_order < 0:
            raise UsageError(
                f"got widths {self.widths}, grid {self.grid}, spline_order {self.spline_order}: expected two or more"
                " widths, all at least 1, and a spline_order of at least 0"
            )

    @property
    def label(self) -> str:
        """``KAN 2-5-1, G = 5``."""
        name = {"mlp": "MLP", "kan": "KAN", "spline-mlp": "spline MLP"}[self.model]
        grid = "" if self.model == "mlp" else f", G = {self.grid}"
        return f"{name} {'-'.join(map(str, self.widths))}{grid}"

    def build(self, seed: int) -> MLP | KAN | nn.Sequential:
        """The network in float64, with first weights drawn by a generator of its own.

        Linear layers begin as PyTorch's do, uniform within 1 / sqrt(inputs); KAN layers by `SplineKAN`'s ``glorot``.
        """
        with torch.random.fork_rng(devices=[]):  # what layers draw when they are made is drawn anew below
            network = self._network()
        generator = torch.Generator().manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                _begin_linear(module.weight, module.bias, module.in_features, generator)
            elif isinstance(module, (SplineKAN, SplineUnits)):
                module.reset_parameters(generator)
        return network

    def _network(self) -> MLP | KAN | nn.Sequential:
        if self.model == "mlp":
            return MLP(self.widths, self.activation, dtype=torch.float64)
        if self.model == "kan":
            return KAN(self.widths, grid=self.grid, spline_order=self.spline_order, dtype=torch.float64)
        pairs = zip(self.widths[1:-1], self.widths[2:])
        units = [SplineUnits(n_in, n_out, self.grid, self.spline_order) for n_in, n_out in pairs]
        return nn.Sequential(nn.Linear(self.widths[0], self.widths[1], dtype=torch.float64), *units)


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
        _begin_linear(self.weight, self.bias, len(self.weight), generator)
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
def _begin_linear(weight: Tensor, bias: Tensor, inputs: int, generator: torch.Generator | None) -> None:
    bound = inputs**-0.5
    weight.uniform_(-bound, bound, generator=generator)
    bias.uniform_(-bound, bound, generator=generator)
