"""Stacks of KAN layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.layers._kernels import efficient_kan
from kansciml.layers._layer import KANLayer
from kansciml.layers._refit.parameters import require_own
from kansciml.layers._refit.refit import RefitError
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LAYERS: dict[str, Callable[..., KANLayer]] = {"spline": SplineKAN, "rswaf": RSWAFKAN}


class KAN(nn.Module):
    """KAN layers one after the other, with nothing between them: the activations are on the edges.

    Args:
        widths: layer widths from input to output, at least two.
        layer: ``spline`` (`SplineKAN`, default) or ``rswaf`` (`RSWAFKAN`).
        options: further arguments of every layer, such as ``grid=8`` or ``outside="linear"``.

    `update_grid`, `extend_grid`, `regularisation` and `edge_curves` are those of spline layers.

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

    @classmethod
    def of_layers(cls, layers: Iterable[KANLayer]) -> KAN:
        """The stack of layers that are there already."""
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network.layers = nn.ModuleList(layers)
        return network

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from input to output."""
        layers: list[Any] = list(self.layers)
        return (layers[0].in_features, *(layer.out_features for layer in layers))

    def spline_layers(self) -> list[SplineKAN]:
        """Its layers, if all are spline layers.

        Raises:
            ValueError: others.
        """
        found = []
        for layer in self.layers:
            if not isinstance(layer, SplineKAN):
                kind = type(layer).__name__
                raise ValueError(
                    f"got a network with {kind} layers: expected SplineKAN alone, as of KAN(widths, layer='spline')"
                )
            found.append(layer)
        return found

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def update_grid(
        self, x: Float[Tensor, "*batch inputs"], blend: float = 0.02, group: ProcessGroup | None = None
    ) -> list[RefitError]:
        """Fit every layer's grid to what reaches it when the network is given x; returns each layer's refit error.

        Several processes: see `SplineKAN.update_grid`.

        Raises:
            ValueError: what a layer refuses (then no layer has changed, unless its inputs are not finite), layers of
                another kind, or layers that share their weights.
        """
        return self._in_turn(x, lambda layer, seen: layer.update_grid(seen, blend, group))

    @torch.no_grad()
    def extend_grid(
        self, grid: int, x: Float[Tensor, "*batch inputs"] | None = None, group: ProcessGroup | None = None
    ) -> list[RefitError]:
        """Refine every layer's grid to `grid` intervals, keeping the function; returns each layer's refit error.

        The parameters stay the same ones, in another shape: see `SplineKAN.extend_grid`.

        Raises:
            ValueError: as in `update_grid`, or a smaller `grid`.
        """
        return self._in_turn(x, lambda layer, seen: layer.extend_grid(grid, seen, group))

    def _in_turn(self, x: Tensor | None, change: Callable[[SplineKAN, Any], RefitError]) -> list[RefitError]:
        layers = self.spline_layers()
        for layer in layers:  # refuse before any layer changes, if one of them cannot
            require_own(layer, "spline_weight")
        if len({id(layer.spline_weight) for layer in layers}) < len(layers):
            raise ValueError("got layers that share spline_weight: expected each to have its own, as it has its grid")
        found = []
        for layer in layers:
            following = None if x is None else layer(x)  # before the change: what the next layer has been seeing
            found.append(change(layer, x))
            x = following
        return found

    def regularisation(self, l1: float = 1.0, entropy: float = 1.0) -> Float[Tensor, ""]:
        """Sum of the layers' `SplineKAN.regularisation`."""
        return torch.stack([layer.regularisation(l1, entropy) for layer in self.spline_layers()]).sum()

    @torch.no_grad()
    def edge_curves(self, points: int = 101) -> list[tuple[Float64[Tensor, "points _"], Float64[Tensor, "points _ _"]]]:
        """`SplineKAN.edge_curves` of every layer, as `kansciml.reporting.kan_plot` draws them."""
        return [layer.edge_curves(points) for layer in self.spline_layers()]

    @classmethod
    def from_efficient_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of an efficient-kan state: ``layers.0.base_weight``, ``layers.0.spline_weight`` ...

        Raises:
            ValueError: keys or shapes that are not efficient-kan's.
        """
        return cls.of_layers(
            SplineKAN.from_efficient_kan(state, **options) for state in efficient_kan.split(state_dict)
        )
