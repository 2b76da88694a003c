"""What the layers' own derivatives share: who looks on while they run, derivatives through plain operations, operators.

A layer's operation has a kernel, which PyTorch does not see into, and a composite of PyTorch's own operations. Whoever
records, transforms or differentiates what runs must be given the composite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
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


def watched(*cotangents: Tensor | None) -> bool:
    """Whether a backward pass, at these cotangents, must be plain operations."""
    return transformed(*cotangents) or recorded()


def plain_wanted() -> bool:
    """Whether a layer's forward pass must be plain operations: a recorder, a transform or forward mode is at work."""
    return transformed() or forward_mode() or recorded()


def graph_is_kept() -> bool:
    """Whether the backward pass that runs now was asked to keep its graph, for more passes to come."""
    told = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)  # not in every version
    return told is not None and told()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks of a layer's weights; None where it is off, unknown as on "meta", or leaves x alone.

    As in PyTorch's own layers it leaves float64 as it is, and what is no real floating-point number.
    """
    kind = x.device.type
    if x.dtype == torch.float64 or not x.is_floating_point():
        return None
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


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
        inputs = [t for t, want in zip(own, wanted) if want and t is not None]
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
        gy, *own = _views(saved)
        assert gy is not None
        grads = zip(gradient(function, wanted, gy, own, True), cotangents)
        pairs = [(grad, h) for grad, h in grads if h is not None and grad is not None and grad.requires_grad]
        asked = [t for t, need in zip((gy, *own), needs) if need and t is not None]
        if not pairs or not asked:
            return [None] * len(needs)
        outputs, along = zip(*pairs)
        found = iter(torch.autograd.grad(outputs, asked, along, create_graph=graph, allow_unused=True))
    return [next(found) if need else None for need in needs]


def operators(
    name: str,
    tensors: str,
    options: str,
    forward: Callable[..., Tensor],
    backward: Callable[..., Sequence[Tensor | None]],
    composite: Callable[..., Tensor],
    weight: int,
) -> tuple[Callable[..., Tensor], Callable[..., Any]]:
    """A layer and its gradients as registered operators, into which `torch.compile` does not look.

    Args:
        tensors, options: their arguments, as in a schema: tensors first, x before all.
        forward: of the options and the tensors. backward: of the options, the wanted tensors, gy and the tensors.
        composite: the layer in plain operations, for derivatives of the gradients; arguments as `forward`.
        weight: place among the tensors of that whose dtype and last size are the output's.
    """
    count, arguments = tensors.count("Tensor"), f"{tensors}, {options}"
    returned = ", ".join(["Tensor"] * count)

    @torch.library.custom_op(f"kansciml::{name}_forward", mutates_args=(), schema=f"({arguments}) -> Tensor")
    def run(*inputs):
        return forward(inputs[count:], *inputs[:count])

    @torch.library.custom_op(
        f"kansciml::{name}_backward", mutates_args=(), schema=f"(Tensor gy, bool[] wanted, {arguments}) -> ({returned})"
    )
    def run_backward(gy, wanted, *inputs):
        found = backward(inputs[count:], wanted, gy.contiguous(), *inputs[:count])
        return tuple(gy.new_empty(0) if grad is None else grad.contiguous() for grad in found)

    @run.register_fake
    def _(*inputs):
        return inputs[weight].new_empty(inputs[0].shape[0], inputs[weight].shape[-1])

    @run_backward.register_fake
    def _(gy, wanted, *inputs):
        return tuple(t.new_empty(t.shape) if want else gy.new_empty(0) for t, want in zip(inputs, wanted))

    def setup(ctx, inputs, output):
        ctx.options = inputs[count:]
        ctx.save_for_backward(*inputs[:count])

    def derivative(ctx, gy):
        wanted = list(ctx.needs_input_grad[:count])
        found = run_backward(gy, wanted, *ctx.saved_tensors, *ctx.options)
        return *(grad if want else None for grad, want in zip(found, wanted)), *(None for _ in ctx.options)

    def setup_second(ctx, inputs, output):
        gy, ctx.wanted, *rest = inputs
        ctx.options = rest[count:]
        ctx.save_for_backward(gy, *rest[:count])

    def second_derivative(ctx, *along):
        needs = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2 : 2 + count])
        function, graph = partial(composite, ctx.options), torch.is_grad_enabled()
        of_gy, *found = second(function, ctx.wanted, needs, ctx.saved_tensors, along, graph)
        return of_gy, None, *found, *(None for _ in ctx.options)

    run.register_autograd(derivative, setup_context=setup)
    run_backward.register_autograd(second_derivative, setup_context=setup_second)
    return run, run_backward
