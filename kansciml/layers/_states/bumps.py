"""Reading weights of fast-kan, faster-kan and Vision-KAN, whose layers have the same names for the same things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

NAMES = {
    "layernorm.weight": "layernorm.weight",
    "layernorm.bias": "layernorm.bias",
    "spline_linear.bias": "bias",
    "base_linear.bias": "bias",
}
BOTH = ("rbf.grid", "spline_linear.weight", "layernorm.weight", "layernorm.bias")
FAST_KAN = (*BOTH, "base_linear.weight", "base_linear.bias")
FASTER_KAN = (*BOTH, "spline_linear.bias", "rbf.inv_denominator")


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What of a state stands under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def read(state: Mapping[str, Tensor], prefix: str, keys: Sequence[str], upstream: str) -> dict[str, Tensor]:
    """Tensors of the layer under a prefix, under this package's names and in its layout.

    Args:
        keys: that a state of `upstream` may have, the name of a package.

    Raises:
        ValueError: a missing or unknown key, or shapes that do not fit each other.
    """
    found = part(state, prefix)
    unknown = [key for key in found if key not in keys]
    layers = sorted({key.removesuffix("rbf.grid") for key in state if key.endswith("rbf.grid")})
    if unknown and (prefix in layers or not layers):  # else the prefix is wrong
        raise ValueError(f"got key {prefix + unknown[0]!r}: expected {upstream}'s, {', '.join(keys)}")
    needed = ("rbf.grid", "spline_linear.weight", *["base_linear.weight"] * ("base_linear.bias" in found))
    missing = [key for key in needed if key not in found]
    if missing:
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
