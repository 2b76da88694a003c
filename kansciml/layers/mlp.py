"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


class MLP(nn.Module):
    """Linear layers with an activation between them (none after the last).

    Args:
        widths: layer widths from input to output, at least two.
        activation: one of ``tanh``, ``silu``, ``gelu`` (exact, by erf), ``relu``, ``sigmoid``.
        device, dtype: as in `torch.nn.Linear`.

    Raises:
        ValueError: fewer than two widths, a width below 1, an unknown activation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"got widths {tuple(widths)}: expected at least two, each at least 1")
        if activation not in ACTIVATIONS:
            raise ValueError(f"got activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        self.activation = activation
        self.layers = nn.ModuleList(
            nn.Linear(n_in, n_out, device=device, dtype=dtype) for n_in, n_out in zip(widths[:-1], widths[1:])
        )

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        act = ACTIVATIONS[self.activation]
        for layer in self.layers[:-1]:
            x = act(layer(x))
        return self.layers[-1](x)

    def extra_repr(self) -> str:
        return f"activation={self.activation}"
