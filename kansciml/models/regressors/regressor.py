"""Networks that learn a function of several variables: MLP, KAN, and MLP with learnable B-splines for activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from kansciml._errors import UsageError, check_name
from kansciml.layers.kan import KAN
from kansciml.layers.mlp import ACTIVATIONS, MLP
from kansciml.layers.spline_kan import SplineKAN
from kansciml.models.regressors.spline_units import SplineUnits, begin_linear

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
                begin_linear(module.weight, module.bias, module.in_features, generator)
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
