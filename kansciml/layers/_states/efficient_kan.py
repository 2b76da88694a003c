"""Reading efficient-kan's weights. Its layer: outputs first, ``spline_scaler`` for the scale, knots in ``grid``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

KEYS = ("base_weight", "spline_weight", "grid")


def read(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Tensors of one layer under this package's names and in its layout, and the spline order.

    Raises:
        ValueError: missing or unknown keys, or shapes that do not fit each other.
    """
    missing = [key for key in KEYS if key not in state]
    unknown = [key for key in state if key not in (*KEYS, "spline_scaler")]
    if missing or unknown:
        raise ValueError(
            f"got keys {', '.join(state)}: expected base_weight, spline_weight, grid and perhaps spline_scaler"
        )
    base, spline, knots = (state[key] for key in KEYS)
    order = knots.shape[-1] - spline.shape[-1] - 1
    grid = spline.shape[-1] - order
    if (
        spline.dim() != 3
        or base.shape != spline.shape[:2]
        or knots.shape[0] != base.shape[1]
        or min(order, grid - 1) < 0
    ):
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
        raise ValueError(f"got {shapes}: expected (O, I), (O, I, G + S) and knots (I, G + 2S + 1)")
    found = {"base_weight": base.t(), "spline_weight": spline.permute(1, 2, 0), "knots": knots.double()}
    if "spline_scaler" in state:
        found["spline_scale"] = state["spline_scaler"].t()
    return {name: value.detach().contiguous() for name, value in found.items()}, order
