"""One spline KAN layer as one differentiable operation that keeps nothing for its backward pass but its arguments.

Four doors to the same function, chosen by `apply`:

* eager: an autograd function over the kernels (plain PyTorch or C++);
* eager, with a graph of the gradient wanted (Hessians): its backward pass is an autograd function of its own, whose
  backward is in closed form too (`spline_second`). It keeps nothing either, until a backward pass that keeps its graph
  goes through it: then what all such passes share (`spline_second.Known`), and of a layer that is told to `keep_basis`
  the splines too (`plain.Kept`, `cpp.Kept`). Third derivatives are the composite's;
* under `torch.compile`: registered operators, because a traced autograd function would keep the basis again; in place
  of cells they are given the knots, at which they look when they run;
* under `torch.func` transforms (there in backward passes too) or forward-mode differentiation, also inside
  `torch.compile`, and where a graph is recorded for elsewhere (`autograd.recorded`): the composite itself.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from kansciml.layers._kernels import (
    autograd,
    cpp,
    cpp_library,
    plain,
    spline_second,
)
from kansciml.layers._kernels.activations import ACTIVATIONS
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import read
from kansciml.layers.bspline import SplineSpec

BACKENDS = ("auto", "torch", "cpp")


class _Keeper:
    """What a layer's two nodes of one graph share: empty until that is known to pay."""

    found: plain.Kept | cpp.Kept | None = None


def composite(
    spec: SplineSpec,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Tensor:
    """The layer in differentiable PyTorch operations, to any order and under any transform."""
    weight = plain.scaled(spline_weight, spline_scale)
    # a traced layer has its knots here, in float64
    cells = cells.to(torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32))
    values = evaluate(spec, x.t().to(cells.dtype), cells)[0].to(weight.dtype)
    y = values.flatten(0, 1).t() @ weight.flatten(0, 1)
    return y if base_weight is None else y + ACTIVATIONS[spec.activation](x).to(weight.dtype) @ base_weight


def kernels(backend: str, x: Tensor, weight: Tensor) -> Any:
    """The module whose `forward` and `backward` run this layer.

    Raises:
        ValueError: C++ was asked for and cannot run this.
    """
    if backend == "torch":
        return plain
    ordinary = x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)
    if ordinary and weight.dtype in (torch.float32, torch.float64) and cpp_library.available():
        return cpp
    if backend == "cpp" and ordinary:
        got = f"{weight.dtype} weights" if cpp_library.available() else cpp_library.reason()
        raise ValueError(f"backend 'cpp' cannot run this layer ({got}): use float32 or float64, or backend 'auto'")
    return plain


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spec, backend, keep, x, cells, base_weight, spline_weight, spline_scale):
        ctx.spec, ctx.backend, ctx.cells = spec, backend, cells  # constants that all calls of a layer share
        ctx.keeper = _Keeper() if keep and x.dtype == spline_weight.dtype else None
        ctx.save_for_backward(x, base_weight, spline_weight, spline_scale)
        run = kernels(backend, x, spline_weight)
        return run.forward(spec, x, cells, base_weight, spline_weight, spline_scale)

    @staticmethod
    def backward(ctx, gy):
        wanted, graph = ctx.needs_input_grad[3:], torch.is_grad_enabled()
        x, *weights = ctx.saved_tensors
        tensors = (x, ctx.cells, *weights)
        if autograd.transformed(gy) or autograd.recorded():
            function = partial(composite, ctx.spec)
            return None, None, None, *autograd.gradient(function, wanted, gy, tensors, graph)
        if graph:
            return None, None, None, *_Gradient.apply(ctx.spec, ctx.backend, wanted, ctx.keeper, gy, *tensors)
        kept = ctx.keeper and ctx.keeper.found
        return None, None, None, *_gradients(ctx.spec, ctx.backend, wanted, gy, *tensors, kept=kept)


def _gradients(spec, backend, wanted, gy, x, cells, *weights, kept=None) -> tuple[Tensor | None, ...]:
    """Gradients of x, cells (None) and the weights, by the kernels, where wanted; `kept`: of the plain ones."""
    run = kernels(backend, x, weights[1])
    more = {} if kept is None else {"kept": kept}
    gx, *grads = run.backward(spec, gy.contiguous(), x, cells, *weights, wanted[0], any(wanted[2:]), **more)
    return gx, None, *(grad if want else None for grad, want in zip(grads, wanted[2:]))


class _Gradient(torch.autograd.Function):
    """`_gradients` as a function of gy, x and the weights."""

    @staticmethod
    def forward(ctx, spec, backend, wanted, keeper, gy, x, cells, *weights):
        ctx.spec, ctx.backend, ctx.wanted, ctx.keeper, ctx.cells = spec, backend, wanted, keeper, cells
        ctx.save_for_backward(gy, x, *weights)
        ctx.set_materialize_grads(False)
        return _gradients(spec, backend, wanted, gy, x, cells, *weights)

    @staticmethod
    def _keep(ctx, native, gy, x, cells, *weights):
        """What all products with this graph share."""
        find = cpp.known if native else spline_second.plain_known
        ctx.known = find(ctx.spec, gy, x, cells, *weights)
        if ctx.keeper and ctx.known is not None:
            its = ctx.spec, x, cells, gy.shape[1]
            ctx.keeper.found = ctx.kept = cpp.keep(*its, ctx.known[0]) if native else plain.keep(*its)
            if native:
                ctx.known = None, ctx.known[1]  # the other is kept in another order

    @staticmethod
    def backward(ctx, hx, _, *h):
        (gy, x, *weights), needs = ctx.saved_tensors, ctx.needs_input_grad[4:]
        cells, graph = ctx.cells, torch.is_grad_enabled()
        if graph or autograd.transformed(hx, *h) or autograd.recorded():
            function, saved, along = partial(composite, ctx.spec), (gy, x, cells, *weights), (hx, None, *h)
            return None, None, None, None, *autograd.second(function, ctx.wanted, needs, saved, along, graph)
        gy = gy.contiguous()
        tensors = (gy, x, cells, *weights, hx, *h)
        wanted = needs[0], needs[1], any(needs[3:])
        native = kernels(ctx.backend, x, weights[1]) is cpp
        known = kept = None
        if hx is not None and any(t is not None for t in h[1:]):  # of the splines' weights
            if not hasattr(ctx, "known") and autograd.graph_is_kept():
                _Gradient._keep(ctx, native, gy, x, cells, *weights)
            known, kept = getattr(ctx, "known", None), getattr(ctx, "kept", None)
        if native:
            ggy, gx, *grads = cpp.double_backward(ctx.spec, *tensors, *wanted, known, kept)
        else:
            splines = partial(spline_second.plain_splines, known=known, kept=kept)
            ggy, gx, *grads = spline_second.double_backward(splines, ctx.spec, *tensors, *wanted, known is None, kept)
        found = (ggy, gx, None, *grads)
        return None, None, None, None, *(grad if need else None for grad, need in zip(found, needs))


_ARGUMENTS = (
    "Tensor x, Tensor cells, Tensor? base_weight, Tensor spline_weight, Tensor? spline_scale, "
    "int grid, int spline_order, bool uniform, str outside, str? activation, str backend"
)


@torch.library.custom_op("kansciml::spline_forward", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _forward_op(x, cells, base_weight, spline_weight, spline_scale, grid, order, uniform, outside, activation, backend):
    spec, cells = read(cells, order, outside, activation, torch.promote_types(x.dtype, spline_weight.dtype))
    return kernels(backend, x, spline_weight).forward(spec, x, cells, base_weight, spline_weight, spline_scale)


@_forward_op.register_fake
def _(x, cells, base_weight, spline_weight, *rest):
    return x.new_empty(x.shape[0], spline_weight.shape[-1], dtype=spline_weight.dtype)


@torch.library.custom_op(
    "kansciml::spline_backward",
    mutates_args=(),
    schema=f"(Tensor gy, {_ARGUMENTS}, bool need_x, bool need_weights) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward_op(gy, x, cells, base_weight, spline_weight, spline_scale, *options):
    _, order, _, outside, activation, backend, need_x, need_weights = options
    spec, cells = read(cells, order, outside, activation, torch.promote_types(x.dtype, spline_weight.dtype))
    tensors = (gy.contiguous(), x, cells, base_weight, spline_weight, spline_scale)
    found = kernels(backend, x, spline_weight).backward(spec, *tensors, need_x, need_weights)
    return tuple(x.new_empty(0) if grad is None else grad.contiguous() for grad in found)  # operators return tensors


@_backward_op.register_fake
def _(gy, x, cells, base_weight, spline_weight, spline_scale, *rest):
    need_x, need_weights = rest[-2:]
    wanted = (need_x, need_weights and base_weight is not None, need_weights, need_weights and spline_scale is not None)
    tensors = (x, base_weight, spline_weight, spline_scale)
    return tuple(t.new_empty(t.shape) if want else x.new_empty(0) for t, want in zip(tensors, wanted))


def _setup(ctx, inputs, output):
    *tensors, grid, order, uniform, outside, activation, backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (grid, order, uniform, outside, activation, backend)


def _gradient(ctx, gy):
    wanted = ctx.needs_input_grad[:5]
    found = _backward_op(gy, *ctx.saved_tensors, *ctx.options, wanted[0], any(wanted[2:]))
    gx, *weights = [grad if want else None for grad, want in zip(found, (wanted[0], *wanted[2:]))]
    return gx, None, *weights, *(None,) * 6


def _setup_second(ctx, inputs, output):
    gy, *tensors = inputs[:6]
    ctx.spec, (ctx.need_x, ctx.need_weights) = SplineSpec(*inputs[6:11]), inputs[-2:]
    ctx.save_for_backward(gy, *tensors)


def _second(ctx, hx, *h):
    wanted = (ctx.need_x, False, *(ctx.need_weights and t is not None for t in ctx.saved_tensors[3:]))
    needs, saved, along = ctx.needs_input_grad[:6], ctx.saved_tensors, (hx, None, *h)
    found = autograd.second(partial(composite, ctx.spec), wanted, needs, saved, along, torch.is_grad_enabled())
    return *found, *(None,) * 8


_forward_op.register_autograd(_gradient, setup_context=_setup)
_backward_op.register_autograd(_second, setup_context=_setup_second)


def apply(
    spec: SplineSpec,
    backend: str,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    keep_basis: bool = False,
) -> Tensor:
    """y (N, O) of a spline KAN layer at x (N, I); `keep_basis`: as `SplineKAN` has it."""
    if autograd.plain_wanted() or cells.requires_grad:
        return composite(spec, x, cells, base_weight, spline_weight, spline_scale)
    if torch.compiler.is_compiling():
        return _forward_op(x, cells, base_weight, spline_weight, spline_scale, *spec, backend)
    return _Spline.apply(spec, backend, keep_basis, x, cells, base_weight, spline_weight, spline_scale)
