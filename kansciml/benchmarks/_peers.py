"""Other people's KAN layers, where they are installed: one adapter each, with the grid of the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[int, int, int], nn.Module]
"""(in_features, out_features, grid) -> layer."""

PYKAN_EDGE_LIMIT = 200_000_000
"""pykan holds several tensors of batch x inputs x outputs: above this many elements a layer is left out."""


class FirstOutput(nn.Module):
    """A layer that returns a tuple, cut to its first entry."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _adapter(module: str, layer: str, options: Callable[[int], dict[str, Any]]) -> tuple[str, Build]:
    """The module, and what makes its layer with the `options` of a grid."""
    return module, lambda inputs, outputs, grid: getattr(import_module(module), layer)(inputs, outputs, **options(grid))


_PYKAN, _PYKAN_LAYER = _adapter("kan", "KANLayer", lambda grid: {"num": grid, "k": 3})
_ADAPTERS: dict[str, tuple[str, Build]] = {
    "InKAN": _adapter("inkan", "KANLayer", lambda grid: {"grid_size": grid, "compile_basis": False}),
    "InKAN, compiled": _adapter("inkan", "KANLayer", lambda grid: {"grid_size": grid, "compile_basis": True}),
    "pykan KANLayer": (_PYKAN, lambda *sizes: FirstOutput(_PYKAN_LAYER(*sizes))),
    "fast-kan": _adapter(
        "fastkan", "FastKANLayer", lambda grid: {"grid_min": -1.0, "grid_max": 1.0, "num_grids": grid + 3}
    ),
}


def installed_peers(shape: tuple[int, int, int], compiled: bool) -> dict[str, Build]:
    """Adapters of the packages that can be imported here, for a shape (in, out, batch)."""
    found = {name: build for name, (module, build) in _ADAPTERS.items() if find_spec(module) is not None}
    if not compiled:
        found.pop("InKAN, compiled", None)
    if torch.Size(shape).numel() > PYKAN_EDGE_LIMIT:
        found.pop("pykan KANLayer", None)
    return found


def third_party(name: str) -> bool:
    """Whether a candidate of this name is another package's."""
    return name in _ADAPTERS
