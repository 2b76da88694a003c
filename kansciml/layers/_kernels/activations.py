"""Base activations of a KAN layer with their slopes, by name."""

from __future__ import annotations

import math
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


def activate(name: str | None, x: Tensor) -> Tensor:
    """act(x)."""
    return ACTIVATIONS[name or "identity"](x)


def times_slope(name: str | None, cotangent: Tensor, x: Tensor) -> Tensor:
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


def slope(name: str | None, x: Tensor) -> Tensor:
    """act'(x)."""
    return times_slope(name, torch.ones((), dtype=x.dtype, device=x.device).expand_as(x), x)


def curvature(name: str | None, x: Tensor) -> Tensor | None:
    """act''(x); None for the activations that bend nowhere."""
    if name == "silu":
        s = torch.sigmoid(x)
        return s * (1 - s) * (2 + x * (1 - 2 * s))
    if name == "gelu":
        return (2 - x * x) * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    if name == "tanh":
        t = torch.tanh(x)
        return -2 * t * (1 - t * t)
    return None
