"""Stacks of KAN layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kansciml.layers._kernels import efficient_kan
from kansciml.layers._refit.parameters import require_own
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LAYERS: dict[str, type[nn.Module]] = {"spline": SplineKAN, "rswaf": RSWAFKAN}


class KAN(nn.Module):
    """KAN layers one after the other, with nothing between them: the activations are on the edges.

    Args:
        widths: layer widths from input to output, at least two.
        layer: ``spline`` (`SplineKAN`, default) or ``rswaf`` (`RSWAFKAN`).
        options: further arguments of every layer, such as ``grid=8`` or ``outside="linear"``.

    Shapes: input (..., widths[0]), output (..., widths[-1]). `update_grid`, `extend_grid`, `regularisation` and
    `edge_curves` are those of spline layers.

    Raises:
        ValueError: fewer than two widths, an unknown layer, what the layer refuses, or a method that it does not have.
    """

    def __init__(self, widths: Sequence[int], layer: str = "spline", **options: Any) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"got widths {tuple(widths)}: expected at least two")
        if layer not in LAYERS:
            raise ValueError(f"got layer {layer!r}: expected one of {', '.join(LAYERS)}")
        make = LAYERS[layer]
        self.layers = nn.ModuleList(make(n_in, n_out, **options) for n_in, n_out in zip(widths[:-1], widths[1:]))

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from input to output."""
        return (self.layers[0].in_features, *(layer.out_features for layer in self.layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def update_grid(self, x: Tensor, blend: float = 0.02, group: ProcessGroup | None = None) -> list[Any]:
        """Fit every layer's grid to what reaches it when the network is given x; returns each layer's refit error.

        Several processes: see `SplineKAN.update_grid`.

        Raises:
            ValueError: what a layer refuses (then no layer has changed, unless its inputs are not finite), layers of
                another kind, or layers that share their weights.
        """
        self._all_have("update_grid")
        self._require_own()
        return self._in_turn(x, lambda layer, seen: layer.update_grid(seen, blend, group))

    @torch.no_grad()
    def extend_grid(self, grid: int, x: Tensor | None = None, group: ProcessGroup | None = None) -> list[Any]:
        """Refine every layer's grid to `grid` intervals, keeping the function; returns each layer's refit error.

        The parameters stay the same ones, in another shape: see `SplineKAN.extend_grid`.

        Raises:
            ValueError: as in `update_grid`, or a smaller `grid`.
        """
        self._all_have("extend_grid")
        self._require_own()
        if x is None:
            return [layer.extend_grid(grid) for layer in self.layers]
        return self._in_turn(x, lambda layer, seen: layer.extend_grid(grid, seen, group))

    def _require_own(self) -> None:
        """Refuse a change of grid before any layer changes, if one of them cannot."""
        for layer in self.layers:
            require_own(layer, "spline_weight")
        if len({id(layer.spline_weight) for layer in self.layers}) < len(self.layers):
            raise ValueError("got layers that share spline_weight: expected each to have its own, as it has its grid")

    def _all_have(self, method: str) -> None:
        for layer in self.layers:
            if not hasattr(layer, method):
                kind = type(layer).__name__
                raise ValueError(f"got a network with {kind} layers: expected SplineKAN alone, which has {method}")

    def _in_turn(self, x: Tensor, change: Any) -> list[Any]:
        found = []
        for layer in self.layers:
            following = layer(x)  # before the change: what the next layer has been seeing
            found.append(change(layer, x))
            x = following
        return found

    def regularisation(self, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
        """Sum of the layers' `SplineKAN.regularisation`."""
        self._all_have("regularisation")
        return sum(layer.regularisation(l1, entropy) for layer in self.layers)

    @torch.no_grad()
    def edge_curves(self, points: int = 101) -> list[tuple[Tensor, Tensor]]:
        """`SplineKAN.edge_curves` of every layer, as `kansciml.reporting.kan_plot` draws them."""
        self._all_have("edge_curves")
        return [layer.edge_curves(points) for layer in self.layers]

    @classmethod
    def from_efficient_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of an efficient-kan state: ``layers.0.base_weight``, ``layers.0.spline_weight`` ...

        Raises:
            ValueError: keys or shapes that are not efficient-kan's.
        """
        layers = [SplineKAN.from_efficient_kan(state, **options) for state in efficient_kan.split(state_dict)]
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network.layers = nn.ModuleList(layers)
        return network
