"""Pruning of a spline KAN (Liu et al. 2024, section 2.5.1): edges that do little, and nodes that nothing needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kansciml.layers._refit.parameters import require_own
from kansciml.layers.images.kan_conv import KANConv2d
from kansciml.layers.kan import KAN
from kansciml.layers.spline_kan import SplineKAN


def _layers(network: KAN, dense: bool = False) -> list[SplineKAN]:
    if not isinstance(network, KAN):
        raise ValueError(f"got a {type(network).__name__}: expected a KAN(widths, layer='spline')")
    return network.spline_layers(dense)


def _seen(network: KAN, x: Tensor | None) -> Sequence[Tensor | None]:
    """What reaches each layer; None: unknown."""
    return [None] * len(network.layers) if x is None else network.layer_inputs(x)


def _norms(layers: Sequence[SplineKAN], seen: Sequence[Tensor | None]) -> list[Tensor]:
    norms = [layer.edge_norms(inputs) for layer, inputs in zip(layers, seen)]
    if not all(bool(torch.isfinite(one).all()) for one in norms):
        raise ValueError("got edges whose size is NaN or infinite: expected finite inputs and weights")
    return norms


def _mean(layer: SplineKAN, inputs: Tensor | None) -> Tensor:
    """Of each output over these inputs, in float64; zero where they are unknown, or no bias could take it up."""
    if inputs is None or layer.bias is None:
        return torch.zeros(()) if layer.bias is None else torch.zeros_like(layer.bias)
    axis = -3 if isinstance(layer, KANConv2d) else -1
    outputs = layer(inputs).double().movedim(axis, -1)
    return outputs.reshape(-1, outputs.shape[-1]).mean(0)


@torch.no_grad()
def node_scores(network: KAN, x: Float[Tensor, "*batch inputs"] | None = None) -> list[Float[Tensor, " _"]]:
    """For each node of each hidden layer, the smaller of its largest incoming and largest outgoing edge norm.

    Args:
        x: inputs of the network over which to take the norms, as the paper does; None: from the weights alone.

    Raises:
        ValueError: layers other than `SplineKAN`, convolutions too, or inputs or weights that make an edge NaN or
            infinite.
    """
    norms = _norms(_layers(network, dense=True), _seen(network, x))
    return [torch.minimum(into.amax(0), out.amax(1)) for into, out in zip(norms[:-1], norms[1:])]


@torch.no_grad()
def prune_edges(network: KAN, threshold: float, x: Float[Tensor, "*batch inputs"] | None = None) -> int:
    """Set every edge whose norm (`SplineKAN.edge_norms`) is below `threshold` to zero, in place.

    Training may bring them back: prune again at its end. Returns how many edges were not zero before.
    What the edges added to an output in the mean over x is added to its bias, if the layer has biases: then no mean
    output of a layer changes. Without biases, or without x, it is lost: less than `threshold` an edge over x.

    Args:
        x: inputs of the network over which to take the norms, of all layers before any edge is set to zero; None: from
            the weights alone.

    Raises:
        ValueError: a negative threshold, layers other than `SplineKAN`, weights that are made from others, as by
            weight_norm, or inputs or weights that make an edge NaN or infinite.
    """
    _check(threshold)
    pruned, layers, seen = 0, _layers(network), _seen(network, x)
    for layer in layers:
        require_own(layer, "spline_weight", "base_weight", *["bias"] * (x is not None))
    for layer, norms, inputs in zip(layers, _norms(layers, seen), seen):
        before = _mean(layer, inputs)
        weak = (norms < threshold) & (layer.edge_norms() > 0)  # zero over x alone is not zero
        pruned += int(weak.sum())
        layer.spline_weight.masked_fill_(weak.unsqueeze(1), 0.0)
        if layer.base_weight is not None:
            layer.base_weight.masked_fill_(weak, 0.0)
        if layer.bias is not None:
            layer.bias.add_(before - _mean(layer, inputs))
    return pruned


@torch.no_grad()
def prune_nodes(network: KAN, threshold: float, x: Float[Tensor, "*batch inputs"] | None = None) -> KAN:
    """A smaller network without the hidden nodes whose score (`node_scores`) is below `threshold`.

    Inputs and outputs stay, and of every hidden layer at least its strongest node. The network given is not changed;
    frozen weights stay frozen, and weights that are made from others, as by weight_norm, become ordinary ones.
    What a removed node added to the next layer in the mean over x is added to that layer's biases, if it has some.
    Without biases, or without x, it is lost, as in pykan: over x less than `threshold` an output if the outgoing edges
    were the weak ones, but any amount if the incoming ones were, as those of a node that is constant. So make networks
    that are to be pruned with ``bias=True``.

    Raises:
        ValueError: as in `node_scores`, or a negative threshold.
    """
    _check(threshold)
    layers, seen = _layers(network), _seen(network, x)
    kept = [torch.arange(layers[0].in_features)]
    for scores in node_scores(network, x):
        strong = torch.nonzero(scores >= threshold).flatten()
        kept.append(strong if len(strong) else scores.argmax()[None])
    kept.append(torch.arange(layers[-1].out_features))
    parts = [_part(layer, *pair) for layer, pair in zip(layers, zip(kept[:-1], kept[1:]))]
    for part, layer, inputs, rows, columns in zip(parts, layers, seen, kept[:-1], kept[1:]):
        if part.bias is not None and len(rows) < layer.in_features:
            part.bias.add_(_mean(layer, inputs)[columns] - _mean(part, None if inputs is None else inputs[..., rows]))
    return KAN.of_layers(parts)


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
