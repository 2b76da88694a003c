"""Pruning of a spline KAN (Liu et al. 2024, section 2.5.1): edges that do little, and nodes that nothing needs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._refit.parameters import require_own
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN


def _layers(network: KAN) -> list[SplineKAN]:
    if not isinstance(network, KAN):
        raise ValueError(f"got a {type(network).__name__}: expected a KAN(widths, layer='spline')")
    return network.spline_layers()


@torch.no_grad()
def node_scores(network: KAN) -> list[Float[Tensor, " _"]]:
    """For each node of each hidden layer, the smaller of its largest incoming and largest outgoing edge norm.

    Raises:
        ValueError: layers other than `SplineKAN`.
    """
    norms = [layer.edge_norms() for layer in _layers(network)]
    return [torch.minimum(into.amax(0), out.amax(1)) for into, out in zip(norms[:-1], norms[1:])]


@torch.no_grad()
def prune_edges(network: KAN, threshold: float) -> int:
    """Set every edge whose norm (`SplineKAN.edge_norms`) is below `threshold` to zero, in place; returns their number.

    Training may bring them back: prune again at its end.

    Raises:
        ValueError: a negative threshold, layers other than `SplineKAN`, or weights that are made from others, as by
            weight_norm.
    """
    _check(threshold)
    pruned, layers = 0, _layers(network)
    for layer in layers:
        require_own(layer, "spline_weight", "base_weight")
    for layer in layers:
        norms = layer.edge_norms()
        weak = (norms < threshold) & (norms > 0)
        pruned += int(weak.sum())
        layer.spline_weight.masked_fill_(weak.unsqueeze(1), 0.0)
        if layer.base_weight is not None:
            layer.base_weight.masked_fill_(weak, 0.0)
    return pruned


@torch.no_grad()
def prune_nodes(network: KAN, threshold: float) -> KAN:
    """A smaller network without the hidden nodes whose score (`node_scores`) is below `threshold`.

    Inputs and outputs stay, and of every hidden layer at least its strongest node. The network given is not changed;
    frozen weights stay frozen, and weights that are made from others, as by weight_norm, become ordinary ones.
    A removed node's value at zero input is not added anywhere: the splines' constant parts go with it.

    Raises:
        ValueError: a negative threshold, or layers other than `SplineKAN`.
    """
    _check(threshold)
    layers = _layers(network)
    kept = [torch.arange(layers[0].in_features)]
    for scores in node_scores(network):
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
        device=weight.device,
        dtype=weight.dtype,
    )
    state = {"knots": layer.knots[inputs]}
    for name, parameter in part.named_parameters():
        value = getattr(layer, name)
        state[name] = (value if name == "bias" else value[inputs])[..., outputs]
        parameter.requires_grad_(value.requires_grad)
    part.load_state_dict(state)
    part.keep_basis = layer.keep_basis
    return part.train(layer.training)


def _check(threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"got threshold {threshold}: expected a number of at least 0")
