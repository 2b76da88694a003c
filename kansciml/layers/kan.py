"""Stacks of KAN layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from kansciml.layers._layer import KANLayer
from kansciml.layers._refit.parameters import require_own
from kansciml.layers._refit.refit import RefitError
from kansciml.layers._states import inkan
from kansciml.layers._states.network import chained, split
from kansciml.layers.images.kan_conv import KANConv2d
from kansciml.layers.rswaf_kan import RSWAFKAN
from kansciml.layers.spline_kan import SplineKAN

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from torch.distributed import ProcessGroup

    from kansciml.layers.reading.symbolic import Symbolic

LAYERS: dict[str, Callable[..., KANLayer]] = {"spline": SplineKAN, "rswaf": RSWAFKAN}


class KAN(nn.Module):
    """KAN layers one after the other, with nothing between them: the activations are on the edges.

    Args:
        widths: layer widths from input to output, at least two.
        layer: ``spline`` (`SplineKAN`, default) or ``rswaf`` (`RSWAFKAN`).
        options: further arguments of every layer, such as ``grid=8`` or ``outside="linear"``.

    All methods but `layer_inputs` and the importers are those of spline layers; `plot` over data and `symbolic` refuse
    convolutions.

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

    def spline_layers(self, dense: bool = False) -> list[SplineKAN]:
        """Its layers, if all are spline layers; `dense`: none of them a convolution, whose edges are taps.

        Raises:
            ValueError: others.
        """
        found = []
        for layer in self.layers:
            if not isinstance(layer, SplineKAN) or (dense and isinstance(layer, KANConv2d)):
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

    def layer_inputs(self, x: Float[Tensor, "*batch inputs"]) -> list[Float[Tensor, "*batch _"]]:
        """What reaches each layer when the network is given x, with its graph."""
        found = [x]
        for layer in list(self.layers)[:-1]:
            found.append(layer(found[-1]))
        return found

    def _in_turn(self, x: Tensor | None, change: Callable[[SplineKAN, Any], RefitError]) -> list[RefitError]:
        layers = self.spline_layers()
        for layer in layers:  # refuse before any layer changes, if one of them cannot
            require_own(layer, "spline_weight", "knot_logits")
        if len({id(layer.spline_weight) for layer in layers}) < len(layers):
            raise ValueError("got layers that share spline_weight: expected each to have its own, as it has its grid")
        found = []
        for layer in layers:
            following = None if x is None else layer(x)  # before the change: what the next layer has been seeing
            found.append(change(layer, x))
            x = following
        return found

    def regularisation(
        self, l1: float = 1.0, entropy: float = 1.0, x: Float[Tensor, "*batch inputs"] | None = None
    ) -> Float[Tensor, ""]:
        """Sum of the layers' `SplineKAN.regularisation`, over what reaches each of them if the network is given x."""
        layers = self.spline_layers()
        seen = [None] * len(layers) if x is None else self.layer_inputs(x)
        return torch.stack([layer.regularisation(l1, entropy, at) for layer, at in zip(layers, seen)]).sum()

    @torch.no_grad()
    def edge_curves(self, points: int = 101) -> list[tuple[Float64[Tensor, "points _"], Float64[Tensor, "points _ _"]]]:
        """`SplineKAN.edge_curves` of every layer."""
        return [layer.edge_curves(points) for layer in self.spline_layers()]

    @torch.no_grad()
    def plot(
        self,
        x: Float[Tensor, "*batch inputs"] | None = None,
        path: Path | str | None = None,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        max_panels: int = 64,
    ) -> Figure:
        """Draw the function of every edge: a diagram of a small network, a grid of panels of a larger one.

        Args:
            x: data: edges are drawn over the range of what reaches them when the network is given x, the more opaque
                the larger the mean of abs(phi) over it in their layer. None: over their grids, by the curves' means.
            path: file to write, in the format that its ending tells: png, pdf, svg ...
            inputs, outputs: names of the first and the last nodes (default: x1 ..., y1 ...).
            max_panels: panels in the grid, those of largest mean (default 64); a line tells how many are left out.

        Returns:
            The figure of matplotlib, which is loaded here and not before.

        Raises:
            ValueError: layers of another kind, x of another width or not finite, names that are not one for each node,
                an ending that is no format.
        """
        from kansciml.layers.reading.picture import edge_functions_figure
        from kansciml.layers.reading.values import curves_over

        curves, norms = (self.edge_curves(), None) if x is None else curves_over(self, x)
        arrays = [(at.cpu().numpy(), values.cpu().numpy()) for at, values in curves]
        return edge_functions_figure(arrays, norms, inputs, outputs, max_panels, path)

    def symbolic(
        self,
        x: Float[Tensor, "*batch inputs"],
        threshold: float = 0.999,
        functions: Sequence[str] | None = None,
        max_edges: int = 2000,
    ) -> Symbolic:
        """Read every edge as c f(a x + b) + d, with f of a library, and so the network as formulas.

        Each edge, base branch and spline together, is fitted over what reaches it when the network is given x. An edge
        whose values spread by at most 0.001 of the widest into the same node is a constant. Of the functions whose R2
        is at the threshold or above the simplest good one is taken (where there are none, the best): one constant more
        has to leave a tenth of 1 - R2, down to 1e-8. x has two constants; x^2, exp, sqrt, log, 1/x, x^3, 1/x^2, x^4
        and abs three; sin, tanh, gaussian and arctan four. Of equally many constants, the first in this order is taken
        that leaves at most twice as much as the best.

        Args:
            x: data, at least 10 rows.
            threshold: least R2 at which an edge counts as read (default 0.999: errors of 3 % of its spread).
            functions: names of those to choose from, beside x (default: all of the above).
            max_edges: edges that are not constant above which it is refused (default: 2000, some 40 s of one core).

        Returns:
            All edges with their functions, R2 and margins; `Symbolic.expressions` gives the formulas where every edge
            is read, and `Symbolic.unread` the edges that are not.

        Raises:
            ValueError: layers of another kind, x of another width, too short or not finite, weights that are not, an
                unknown function, more edges than max_edges.
        """
        from kansciml.layers.reading.symbolic import read_network

        return read_network(self, x, threshold, functions, max_edges)

    @classmethod
    def from_efficient_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of an efficient-kan state: ``layers.0.base_weight``, ``layers.0.spline_weight`` ...

        Raises:
            ValueError: keys or shapes that are not efficient-kan's.
        """
        states = split(state_dict, "efficient-kan", "base_weight")
        return cls.of_layers(chained(SplineKAN.from_efficient_kan(state, **options) for state in states))

    @classmethod
    def from_inkan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of an InKAN state, of any version: ``layers.0.weight``, ``layers.0.grid_starts`` ...

        Equal outputs, also outside the grid, by spline layers without factors on edges.

        Args:
            options: further arguments of every `SplineKAN`, such as `base_activation` (InKAN's default: silu).

        Raises:
            ValueError: keys or shapes that are not InKAN's, or a layer of splines of two inputs at once (dim=2).
        """
        states = split(state_dict, "InKAN", "grid_starts")
        return cls.of_layers(chained(inkan.layer(state, **options) for state in states))

    @classmethod
    def from_flashkan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of a FlashKAN state, as `from_inkan`: InKAN is what that package came to be called."""
        return cls.from_inkan(state_dict, **options)

    @classmethod
    def from_fast_kan(cls, state_dict: Mapping[str, Tensor], **options: Any) -> KAN:
        """The network of a fast-kan state: ``layers.0.rbf.grid``, ``layers.0.spline_linear.weight`` ...

        Equal outputs, by RSWAF layers with Gaussian functions (``bump="gauss"``) and a base branch.

        Args:
            options: further arguments of `RSWAFKAN.from_fast_kan` for every layer.

        Raises:
            ValueError: keys or shapes that are not fast-kan's.
        """
        states = split(state_dict, "fast-kan", "rbf.grid")
        return cls.of_layers(chained(RSWAFKAN.from_fast_kan(state, **options) for state in states))
