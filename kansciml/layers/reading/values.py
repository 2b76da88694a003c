"""What a spline network's edges are over data: the inputs that reach them, their curves and their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._kernels.edges import curves_between

if TYPE_CHECKING:
    from kansciml.layers.kan import KAN
    from kansciml.layers.spline_kan import SplineKAN


@torch.no_grad()
def reaching(network: KAN, x: Float[Tensor, "*batch inputs"]) -> list[tuple[SplineKAN, Float[Tensor, "n _"]]]:
    """Each layer with the rows that reach it when the network is given x.

    Raises:
        ValueError: no tensor, layers of another kind, no rows, rows of another width, or numbers that are not finite.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"got {type(x).__name__}: expected a tensor of inputs")
    found = []
    for number, (layer, seen) in enumerate(zip(network.spline_layers(dense=True), network.layer_inputs(x)), 1):
        rows = layer._rows(seen)
        if not len(rows) or not bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"got inputs of layer {number} of shape {tuple(seen.shape)}: expected at least one row, finite numbers"
            )
        found.append((layer, rows))
    return found


@torch.no_grad()
def curves_over(
    network: KAN, x: Float[Tensor, "*batch inputs"], points: int = 101
) -> tuple[list[tuple[Tensor, Tensor]], list[np.ndarray]]:
    """`KAN.edge_curves` over the ranges of what reaches the layers, and the edges' norms over it, (I, O) a layer.

    Raises:
        ValueError: as `reaching`.
    """
    curves, norms = [], []
    for layer, rows in reaching(network, x):
        curves.append(curves_between(layer, rows.double().amin(0), rows.double().amax(0), points))
        norms.append(layer.edge_norms(rows).double().cpu().numpy())
    return curves, norms
