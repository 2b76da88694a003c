"""Writing to a layer's parameters so that its forward pass and its optimiser see it, or refusing to."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

_earlier_shapes: Any = WeakTensorKeyDictionary()
"""Of parameters that were resized, the shapes they had."""


def require_own(layer: nn.Module, *names: str) -> None:
    """Refuse to write to weights that are not the layer's own parameters: what is written would be lost.

    Raises:
        ValueError: weights made from others, as by weight_norm or pruning, or kept elsewhere, as shards are.
    """
    for name in names:
        own = {**vars(layer), **layer._parameters}.get(name, name)  # to read the attribute may change its state
        if own is not None and (not isinstance(own, nn.Parameter) or hasattr(own, "placements")):
            raise ValueError(
                f"got {name} that is made from other parameters (weight_norm, pruning, a shard): expected an ordinary"
                " one; remove that first, as by torch.nn.utils.parametrize.remove_parametrizations or prune.remove"
            )


def resize(parameter: nn.Parameter, like: Tensor) -> None:
    """Give the very same parameter the shape of `like`, its values undefined, where it has another.

    Its gradient is dropped. From then on optimisers refuse to step it with moments of an earlier shape.

    Raises:
        ValueError: processes work together, and what sums up their gradients may remember the present shape.
    """
    if parameter.shape == like.shape:
        return
    before = parameter.data
    parameter.data = before.new_empty(like.shape)
    if _shape_is_held(parameter):
        if dist.is_available() and dist.is_initialized():
            parameter.data = before
            raise ValueError(
                f"got a parameter of shape {tuple(before.shape)}, to become {tuple(like.shape)}, that a"
                " DistributedDataParallel (or a loss of an earlier step) holds: delete that, change the grid, wrap anew"
            )
        # by a loss alone; a parameter of another type is given a new accumulator
        parameter.data = before.new_empty(0, dtype=torch.float32 if before.dtype == torch.float64 else torch.float64)
        parameter.data = before.new_empty(like.shape)
    parameter.grad = None
    _watch_optimisers()
    _earlier_shapes.setdefault(parameter, set()).add(before.shape)
    _earlier_shapes[parameter].discard(like.shape)


def _shape_is_held(parameter: nn.Parameter) -> bool:
    """Whether somebody holds what accumulates its gradients, made for an earlier shape."""
    if not parameter.requires_grad or parameter.is_meta:
        return False
    with torch.enable_grad():
        view = parameter.view_as(parameter).grad_fn
    assert view is not None
    accumulator: Any = view.next_functions[0][0]
    return tuple(accumulator._input_metadata[0].shape) != parameter.shape


@cache
def _watch_optimisers() -> None:
    register_optimizer_step_pre_hook(_refuse_earlier_moments)


def _refuse_earlier_moments(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Before a step: fused optimisers would go beyond such moments' memory, and the others' words are no help."""
    for parameter, earlier in _earlier_shapes.items():
        for moments in optimiser.state.get(parameter, {}).values():
            if isinstance(moments, Tensor) and (moments.shape in earlier or not _fits(moments, parameter)):
                raise ValueError(
                    f"got an optimiser with moments of shape {tuple(moments.shape)} for a parameter of shape"
                    f" {tuple(parameter.shape)}, which a change of grid resized: make the optimiser anew"
                )
    held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    size = getattr(optimiser, "_numel_cache", None)  # L-BFGS keeps flat vectors
    if size is not None and any(parameter in _earlier_shapes for parameter in held):
        now = sum(parameter.numel() * (1 + parameter.is_complex()) for parameter in held)
        if size != now:
            raise ValueError(
                f"got an L-BFGS that remembers {size} numbers for parameters of {now}, after a change of grid: make the"
                " optimiser anew"
            )


def _fits(moments: Tensor, parameter: Tensor) -> bool:
    """Whether they may be of this parameter: of its shape, means over its axes, or other numbers."""
    pairs = zip(moments.shape, parameter.shape)
    return moments.dim() != parameter.dim() or all(size in (1, now) for size, now in pairs)


def ordinary(tensor: Any) -> Any:
    """The tensor, or a copy where it came out of inference mode, outside of which it could not be written to."""
    return tensor.clone() if isinstance(tensor, Tensor) and tensor.is_inference() else tensor
