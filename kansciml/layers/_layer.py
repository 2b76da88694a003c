"""What both kinds of KAN layers share: a grid that no cast narrows, what input they take, and how tools see them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from kansciml.layers._kernels.autograd import autocast_dtype
from kansciml.layers._refit.parameters import ordinary


def checked_range(grid_range: tuple[float, float]) -> tuple[float, float]:
    """Both ends of a grid.

    Raises:
        ValueError: ends that are not finite, or not in order.
    """
    low, high = (float(end) for end in grid_range)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"got grid_range {tuple(grid_range)}: expected two finite numbers, the lower one first")
    return low, high


class KANLayer(nn.Module, ABC):
    """A layer with a grid: (..., in_features) -> (..., out_features), `spline_weight` and perhaps a `bias`.

    torch.fx takes it as one node, as PyTorch's own layers; TorchScript's compiler is told that it cannot read it.
    """

    GRID: str
    """Name of the grid's positions: a float64 buffer, or a parameter where they are learned."""
    in_features: int
    out_features: int
    spline_weight: nn.Parameter
    bias: nn.Parameter | None

    @abstractmethod
    def _first_grid(self) -> Tensor:
        """The grid that the layer is made with, on the CPU."""

    @abstractmethod
    def _run(self, x: Tensor, narrow: torch.dtype | None) -> Tensor:
        """The output (N, O) without the bias at x (N, I), with weights cast to `narrow`."""

    def _check(self, x: Tensor) -> None:
        if not torch.jit.is_tracing() and x.shape[-1:] != (self.in_features,):  # the tracer warns of comparisons
            raise ValueError(f"got input of shape {tuple(x.shape)}: expected (..., {self.in_features})")

    def _weight(self, name: str) -> Any:
        """A weight of that name: a module takes microseconds to find it, and one made from others is no parameter."""
        return self._parameters[name] if name in self._parameters else getattr(self, name)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if isinstance(x, fx.Proxy):
            return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})
        self._check(x)
        weight = self._weight("spline_weight")
        narrow = autocast_dtype(x)
        if narrow is None and x.dtype != weight.dtype:
            raise ValueError(f"got input of {x.dtype}: expected {weight.dtype}, the dtype of the weights")
        y = self._run(x if x.dim() == 2 else x.reshape(-1, self.in_features), narrow)
        bias = self._weight("bias")
        if bias is not None:
            y = y + bias.to(y.dtype)
        return y.reshape(*x.shape[:-1], self.out_features)

    @torch.inference_mode(False)  # made, cast, loaded or changed there, a layer could not be trained afterwards
    def _apply(self, fn: Any, recurse: bool = True) -> KANLayer:
        # Casting a module casts its buffers: a narrower grid would move every function, so it follows the device alone.
        grid = self._buffers.get(self.GRID)
        super()._apply(fn, recurse)
        if grid is not None:
            now = getattr(self, self.GRID)
            if grid.is_meta and not now.is_meta:
                grid = self._first_grid()
            setattr(self, self.GRID, ordinary(grid.to(now.device)))
        return self

    @torch.inference_mode(False)
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.update({name: ordinary(tensor) for name, tensor in state_dict.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.GRID in self._buffers:
            setattr(self, self.GRID, getattr(self, self.GRID).double())  # assign=True takes the state's dtype

    def __prepare_scriptable__(self) -> nn.Module:
        raise ValueError(
            f"got {type(self).__name__} to script: TorchScript's compiler cannot read it;"
            " expected torch.jit.trace or torch.export, which can"
        )
