"""Pruning of a spline KAN (Liu et al. 2024, section 2.5.1): edges that do little, and nodes that nothing needs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._refit.parameters import require_own
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN


def _layers(network: KAN, dense: bool = False) -> list[SplineKAN]:
    if not isinstance(network, KAN):
        raise ValueError(f"got a {type(network).__name__}: expected a KAN(widths, layer='spline')")
    return network.spline_layers(dense)


def _norms(network: KAN, x: Tensor | None) -> list[Tensor]:
    layers = _layers(network)
    if x is None:
        return [layer.edge_norms() for layer in layers]
    norms = [layer.edge_norms(seen) for layer, seen in zip(layers, network.layer_inputs(x))]
    if not all(bool(torch.isfinite(one).all()) for one in norms):
        raise ValueError(
            "got edges whose size over these inputs is NaN or infinite: expected finite inputs and weights"
        )
    return norms


@torch.no_grad()
def node_scores(network: KAN, x: Float[Tensor, "*batch inputs"] | None = None) -> list[Float[Tensor, " _"]]:
    """For each node of each hidden layer, the smaller of its largest incoming and largest outgoing edge norm.

    Args:
        x: inputs of the network over which to take the norms, as the paper does; None: from the weights alone.

    Raises:
        ValueError: layers other than `SplineKAN`, convolutions too, or inputs that make an edge NaN or infinite.
    """
    _layers(network, dense=True)
    norms = _norms(network, x)
    return [torch.minimum(into.amax(0), out.amax(1)) for into, out in zip(norms[:-1], norms[1:])]


@torch.no_grad()
def prune_edges(network: KAN, threshold: float, x: Float[Tensor, "*batch inputs"] | None = None) -> int:
    """Set every edge whose norm (`SplineKAN.edge_norms`) is below `threshold` to zero, in place.

    Training may bring them back: prune again at its end. Returns how many edges were not zero before.

    Args:
        x: inputs of the network over which to take the norms, of all layers before any edge is set to zero; None: from
            the weights alone.

    Raises:
        ValueError: a negative threshold, layers other than `SplineKAN`, weights that are made from others, as by
            weight_norm, or inputs that make an edge NaN or infinite.
    """
    _check(threshold)
    pruned, layers = 0, _layers(network)
    for layer in layers:
        require_own(layer, "spline_weight", "base_weight")
    for layer, norms in zip(layers, _norms(network, x)):
        weak = (norms < threshold) & (layer.edge_norms() > 0)  # zero over x alone is not zero
        pruned += int(weak.sum())
        layer.spline_weight.masked_fill_(weak.unsqueeze(1), 0.0)
        if layer.base_weight is not None:
            layer.base_weight.masked_fill_(weak, 0.0)
    return pruned


@torch.no_grad()
def prune_nodes(network: KAN, threshold: float, x: Float[Tensor, "*batch inputs"] | None = None) -> KAN:
    """A smaller network without the hidden nodes whose score (`node_scores`) is below `threshold`.

    Inputs and outputs stay, and of every hidden layer at least its strongest node. The network given is not changed;
    frozen weights stay frozen, and weights that are made from others, as by weight_norm, become ordinary ones.
    What a removed node added to the next layer is not added anywhere: with x, at most `threshold` in the mean to each
    output, where its outgoing edges were the weak ones.

    Raises:
        ValueError: as in `node_scores`, or a negative threshold.
    """
    _check(threshold)
    layers = _layers(network)
    kept = [torch.arange(layers[0].in_features)]
    for scores in node_scores(network, x):
        strong = torch.nonzero(scores >= threshold).flatten()
        kept.append(strong if len(strong) else scores.argmax()[None])
    kept.append(torch.arange(layers[-1].out_features))
    return KAN.of_layers(_part(layer, *pair) for layer, pair in zip(layers, zip(kept[:-1], kept[1:])))


def _part(layer: SplineKAN, inputs: Tensor, outputs: Tensor) -> SplineKAN:
    """The layer between some of its inputs and some of its outputs."""
    weight = layer.spline_weight
    inputs, outputs = inputs.to(weight.device), outputs.to(weight.device)
    part = SplineKAN(
        len(inputs),
        len(outputs),
        layer.grid,
        layer.spline_order,
        spline_scale=layer.spline_scale is not None,
        bias=layer.bias is not None,
        base_activation=layer.base_activation,
        outside=layer.outside,
        init=layer.init,
        backend=layer.backend,
        learnable_knots=layer.knot_logits is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    state = {"knots": layer.knots[inputs]}  # where they are learned, from here on
    for name, parameter in part.named_parameters():
        value = getattr(layer, name)
        if name != "knot_logits":
            state[name] = (value if name == "bias" else value[inputs])[..., outputs]
        parameter.requires_grad_(value.requires_grad)
    part.load_state_dict(state)
    part.keep_basis = layer.keep_basis
    return part.train(layer.training)


def _check(threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"got threshold {threshold}: expected a number of at least 0")
