"""Base activations of a KAN layer with their slopes, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "relu": F.relu,
    "identity": lambda x: x,
}

_aten = torch.ops.aten


def times_slope(name: str, cotangent: Tensor, x: Tensor) -> Tensor:
    """cotangent * act'(x), by PyTorch's own fused kernels where it has one."""
    if name == "silu":
        return _aten.silu_backward(cotangent, x)
    if name == "gelu":
        return _aten.gelu_backward(cotangent, x)
    if name == "tanh":
        return _aten.tanh_backward(cotangent, torch.tanh(x))
    if name == "relu":
        return cotangent * (x > 0)
    return cotangent
