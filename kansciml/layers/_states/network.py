"""Other packages' networks: a list of layers called ``layers``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor

from kansciml.layers._layer import KANLayer

Layer = TypeVar("Layer", bound=KANLayer)


def split(state_dict: Mapping[str, Tensor], package: str, example: str) -> list[dict[str, Tensor]]:
    """The states of a network's layers, in order, without ``layers.0.`` before their keys.

    Raises:
        ValueError: other keys, no layers, or one is missing; it names the package and a key that it has.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        whole, _, rest = key.partition(".")
        index, _, name = rest.partition(".")
        if whole != "layers" or not (index.isascii() and index.isdigit()) or not name:
            raise ValueError(f"got key {key!r}: expected {package}'s, such as layers.0.{example}")
        found.setdefault(int(index), {})[name] = value
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError(f"got layers {sorted(found)}: expected all of 0, 1, ... of a network of {package}")
    return [found[index] for index in range(len(found))]


def load(layer: Layer, state: Mapping[str, Tensor]) -> Layer:
    """The layer, made with the user's options, with what was read.

    Raises:
        ValueError: weights that the layer does not have, or that it misses, or other shapes.
    """
    try:
        layer.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        sizes = f"{layer.in_features} inputs and {layer.out_features} outputs with these options"
        raise ValueError(f"got a state that does not fit {sizes}: {reason}") from None
    return layer


def chained(layers: Iterable[KANLayer]) -> Iterator[KANLayer]:
    """The layers, each of which takes what the one before it gives.

    Raises:
        ValueError: one takes another number of inputs.
    """
    width = None
    for number, layer in enumerate(layers):
        if width not in (None, layer.in_features):
            raise ValueError(f"got layers.{number} of {layer.in_features} inputs: expected {width}, the outputs before")
        width = layer.out_features
        yield layer
