"""What the layers' own derivatives share: who looks on while they run, and derivatives through plain operations.

A layer's operation has a kernel, which PyTorch does not see into, and a composite of PyTorch's own operations. Whoever
records, transforms or differentiates what runs must be given the composite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

Found = list["Tensor | None"]

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # not in every version


def recorded() -> bool:
    """Whether a graph is made for elsewhere: by torch.export, AOTInductor, either ONNX exporter, jit.trace or make_fx.

    Not by `torch.compile`, whose graphs may call operators of this package.
    """
    if torch.compiler.is_compiling():
        return _is_exporting()
    return torch.jit.is_tracing() or get_proxy_mode() is not None


def transformed(*cotangents: Tensor | None) -> bool:
    """Whether a transform is active, or cotangents are batched, as of a vectorised Jacobian or Hessian."""
    batched = torch._C._functorch.is_legacy_batchedtensor  # autograd's own vmap is not one of torch.func's
    return torch._C._are_functorch_transforms_active() or any(t is not None and batched(t) for t in cotangents)


def forward_mode() -> bool:
    """Whether forward-mode derivatives may be under way."""
    return forward_ad._current_level >= 0


def plain_wanted() -> bool:
    """Whether a layer's forward pass must be plain operations: a recorder, a transform or forward mode is at work."""
    return transformed() or forward_mode() or recorded()


def graph_is_kept() -> bool:
    """Whether the backward pass that runs now was asked to keep its graph, for more passes to come."""
    told = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)  # not in every version
    return told is not None and told()


def constant(value: float, like: Tensor) -> float | Tensor:
    """`value` for arithmetic with `like`, in its dtype where a graph is recorded: that of ONNX rounds plain numbers."""
    if recorded() and not torch.jit.is_tracing():
        return torch.tensor(value, dtype=like.dtype, device=like.device)
    return value


def _views(tensors: Sequence[Tensor | None]) -> Found:
    """The tensors as views of themselves, with respect to which a derivative is partial.

    One argument may be made from another (gy from x, or x from weights that are used twice): what flows through that is
    for autograd to count, once.
    """
    return [None if t is None else t.view_as(t) for t in tensors]


def gradient(
    function: Callable[..., Tensor], wanted: Sequence[bool], gy: Tensor, saved: Sequence[Tensor | None], graph: bool
) -> Found:
    """Gradients of <gy, function(*saved)> in `saved` where wanted, by autograd through `function`.

    `graph`: they are differentiable themselves, to any order and under any transform.
    """
    with torch.enable_grad():
        own = _views(saved)
        inputs = [t for t, want in zip(own, wanted) if want]
        found = iter(torch.autograd.grad(function(*own), inputs, gy, create_graph=graph, allow_unused=True))
    return [next(found) if want else None for want in wanted]


def second(
    function: Callable[..., Tensor],
    wanted: Sequence[bool],
    needs: Sequence[bool],
    saved: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    graph: bool,
) -> Found:
    """Gradients of `gradient` in its gy and tensors, `saved` here, where `needs` says so; one cotangent for each."""
    with torch.enable_grad():
        own = _views(saved)
        pairs = zip(gradient(function, wanted, own[0], own[1:], True), cotangents)
        pairs = [(grad, h) for grad, h in pairs if h is not None and grad is not None and grad.requires_grad]
        asked = [t for t, need in zip(own, needs) if need]
        if not pairs or not asked:
            return [None] * len(needs)
        outputs, along = zip(*pairs)
        found = iter(torch.autograd.grad(outputs, asked, along, create_graph=graph, allow_unused=True))
    return [next(found) if need else None for need in needs]


class Traceable(nn.Module):
    """A layer that torch.fx takes as one node, as PyTorch's own layers, and that says why it is not scripted."""

    def as_node(self, x: Any) -> Any:
        """The node of this layer at x where torch.fx traces symbolically, else None."""
        if not isinstance(x, fx.Proxy):
            return None
        return x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})

    def __prepare_scriptable__(self) -> nn.Module:
        raise ValueError(
            f"got {type(self).__name__} to script: TorchScript's compiler cannot read it;"
            " expected torch.jit.trace or torch.export, which can"
        )
