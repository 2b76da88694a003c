"""Reading weights of fast-kan, faster-kan and Vision-KAN, whose layers have the same names for the same things."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

NAMES = {
    "layernorm.weight": "layernorm.weight",
    "layernorm.bias": "layernorm.bias",
    "spline_linear.bias": "bias",
    "base_linear.bias": "bias",
}
FAST_KAN = (
    "rbf.grid",
    "spline_linear.weight",
    "layernorm.weight",
    "layernorm.bias",
    "base_linear.weight",
    "base_linear.bias",
)


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What of a state stands under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def read(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors of the layer under a prefix, under this package's names and in its layout.

    Raises:
        ValueError: a missing key, or shapes that do not fit each other.
    """
    found = part(state, prefix)
    needed = ("rbf.grid", "spline_linear.weight", *["base_linear.weight"] * ("base_linear.bias" in found))
    missing = [key for key in needed if key not in found]
    if missing:
        layers = sorted({key.removesuffix("rbf.grid") for key in state if key.endswith("rbf.grid")})
        hint = f"; set prefix to one of {', '.join(map(repr, layers))}" if layers else ""
        raise ValueError(f"got a state without {', '.join(prefix + key for key in missing)}: expected one layer{hint}")
    points, weight = found["rbf.grid"], found["spline_linear.weight"]
    if points.dim() != 1 or weight.dim() != 2 or len(points) < 1 or weight.shape[1] % len(points):
        raise ValueError(
            f"got rbf.grid {tuple(points.shape)} and spline_linear.weight {tuple(weight.shape)}:"
            " expected (G,) and (O, I G)"
        )
    loaded = {ours: found[theirs] for theirs, ours in NAMES.items() if theirs in found}
    if "base_linear.weight" in found:
        loaded["base_weight"] = found["base_linear.weight"].t()
    shape = weight.shape[1] // len(points), len(points), weight.shape[0]
    return loaded | {"spline_weight": weight.t().reshape(shape), "grid_points": points}
