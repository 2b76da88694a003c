"""Other packages' networks: a list of layers called ``layers``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def split(state_dict: Mapping[str, Tensor], package: str, example: str) -> list[dict[str, Tensor]]:
    """The states of a network's layers, in order, without ``layers.0.`` before their keys.

    Raises:
        ValueError: other keys, no layers, or one is missing; it names the package and a key that it has.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        whole, _, rest = key.partition(".")
        index, _, name = rest.partition(".")
        if whole != "layers" or not index.isdigit() or not name:
            raise ValueError(f"got key {key!r}: expected {package}'s, such as layers.0.{example}")
        found.setdefault(int(index), {})[name] = value
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError(f"got layers {sorted(found)}: expected all of 0, 1, ... of an {package} network")
    return [found[index] for index in range(len(found))]
