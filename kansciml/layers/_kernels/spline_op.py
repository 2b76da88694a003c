"""One spline KAN layer as one differentiable operation that keeps nothing for its backward pass but its arguments.

Four doors to the same function, chosen by `apply`:

* eager: an autograd function over the kernels (plain PyTorch or C++);
* eager, with a graph of the gradient wanted (Hessians): its backward pass is an autograd function of its own, whose
  backward is in closed form too (`spline_second`). It keeps nothing either, until a backward pass that keeps its graph
  goes through it: then what all such passes share (`plain.Known`), and of a layer that is told to `keep_basis` the
  splines too (`plain.Kept`, `cpp.Kept`). Third derivatives are the composite's;
* under `torch.compile`: registered operators, because a traced autograd function would keep the basis again; in place
  of cells they are given the knots, at which they look when they run. Of knots that are learned, the composite;
* under `torch.func` transforms (there in backward passes too) or forward-mode differentiation, also inside
  `torch.compile`, and where a graph is recorded for elsewhere (`autograd.recorded`): the composite itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kansciml.layers._kernels import autograd, cpp, cpp_library, free_knots, plain, spline_second
from kansciml.layers._kernels._triton import library as triton_library
from kansciml.layers._kernels.activations import activate
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers._kernels.knots import read
from kansciml.layers._kernels.plain import Given, Known, Parts, Weights
from kansciml.layers.bspline import SplineSpec

BACKENDS = ("auto", "torch", "cpp", "triton")


class Kernels(NamedTuple):
    """What runs a layer: the functions of those names in `plain` and `spline_second`, in `cpp`, or of Triton's."""

    forward: Callable[..., Tensor]
    backward: Callable[..., Parts]
    double_backward: Callable[..., tuple[Tensor | None, ...]]
    known: Callable[..., Known | None]
    keep: Callable[..., tuple[Known, Any]]


PLAIN = Kernels(plain.forward, plain.backward, spline_second.double_backward, spline_second.known, plain.keep)
CPP = Kernels(cpp.forward, cpp.backward, cpp.double_backward, cpp.known, cpp.keep)


@cache
def _triton() -> Kernels:
    """Loaded when first used: Triton takes a while."""
    from kansciml.layers._kernels._triton import backend

    return Kernels(backend.forward, backend.backward, backend.double_backward, backend.known, backend.keep)


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
    weight = Weights(base_weight, spline_weight, spline_scale).scaled
    # a traced layer has its knots here, in float64
    cells = cells.to(torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32))
    values = evaluate(spec, x.t().to(cells.dtype), cells)[0].to(weight.dtype)
    y = values.flatten(0, 1).t() @ weight.flatten(0, 1)
    return y if base_weight is None else y + activate(spec.activation, x).to(weight.dtype) @ base_weight


def kernels(backend: str, order: int, x: Tensor, weight: Tensor) -> Kernels:
    """Those that run this layer: by themselves C++ on a CPU, where they can, and PyTorch elsewhere.

    Raises:
        ValueError: C++ or Triton was asked for and cannot run this.
    """
    if backend == "torch":
        return PLAIN
    if triton_library.chosen(backend, order, x, weight):
        return _triton()
    ordinary = x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter) and backend != "triton"
    if ordinary and weight.dtype in (torch.float32, torch.float64) and cpp_library.available():
        return CPP
    if backend == "cpp" and ordinary:
        got = f"{weight.dtype} weights" if cpp_library.available() else cpp_library.reason()
        raise ValueError(f"backend 'cpp' cannot run this layer ({got}): use float32 or float64, or backend 'auto'")
    return PLAIN


class _Spline(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spec, run, keep, x, cells, *weights):
        ctx.spec, ctx.run, ctx.cells = spec, run, cells  # constants that all calls of a layer share
        ctx.keeper = _Keeper() if keep and x.dtype == weights[1].dtype else None
        ctx.save_for_backward(x, *weights)
        return run.forward(Given(spec, x, cells, Weights(*weights)))

    @staticmethod
    def backward(ctx, gy):
        wanted, graph = ctx.needs_input_grad[3:], torch.is_grad_enabled()
        x, *weights = ctx.saved_tensors
        tensors = (x, ctx.cells, *weights)
        if autograd.watched(gy) or (graph and wanted[1]):
            function = partial(composite, ctx.spec)
            return None, None, None, *autograd.gradient(function, wanted, gy, tensors, graph)
        if graph:
            return None, None, None, *_Gradient.apply(ctx.spec, ctx.run, wanted, ctx.keeper, gy, *tensors)
        kept = ctx.keeper and ctx.keeper.found
        return None, None, None, *_gradients(ctx.spec, ctx.run, wanted, gy, *tensors, kept=kept)


def _gradients(
    spec: SplineSpec, run: Kernels, wanted: Sequence[bool], gy: Tensor, *tensors: Any, kept: Any = None
) -> tuple[Tensor | None, ...]:
    """Gradients where wanted, of x and the weights by the kernels; `kept`: by these kernels."""
    x, cells, *weights = tensors
    given = Given(spec, x, cells, Weights(*weights))
    gx, *grads = run.backward(given, gy.contiguous(), wanted[0], any(wanted[2:]), kept)
    of_knots = free_knots.of_layer(given, gy) if wanted[1] else None
    return gx, of_knots, *(grad if want else None for grad, want in zip(grads, wanted[2:]))


class _Gradient(torch.autograd.Function):
    """`_gradients` as a function of gy, x and the weights."""

    @staticmethod
    def forward(ctx, spec, run, wanted, keeper, gy, x, cells, *weights):
        ctx.spec, ctx.run, ctx.wanted, ctx.keeper, ctx.cells = spec, run, wanted, keeper, cells
        ctx.known = ctx.kept = None
        ctx.save_for_backward(gy, x, *weights)
        ctx.set_materialize_grads(False)
        return _gradients(spec, run, wanted, gy, x, cells, *weights)

    @staticmethod
    def backward(ctx, hx, _, *h):
        (gy, x, *weights), needs, cells = ctx.saved_tensors, ctx.needs_input_grad[4:], ctx.cells
        if torch.is_grad_enabled() or autograd.watched(hx, *h):
            function, saved, along = partial(composite, ctx.spec), (gy, x, cells, *weights), (hx, None, *h)
            found = autograd.second(function, ctx.wanted, needs, saved, along, torch.is_grad_enabled())
            return None, None, None, None, *found
        given, gy, along = Given(ctx.spec, x, cells, Weights(*weights)), gy.contiguous(), Parts(hx, *h)
        together = hx is not None and along.vary_splines
        if together and ctx.known is None and autograd.graph_is_kept():
            ctx.known = ctx.run.known(given, gy)
            if ctx.keeper and ctx.known is not None:
                ctx.known, ctx.kept = ctx.run.keep(given, ctx.known)
                ctx.keeper.found = ctx.kept
        shared = (ctx.known, ctx.kept) if together else ()
        wanted = needs[0], needs[1], any(needs[3:])
        ggy, gx, *grads = ctx.run.double_backward(given, gy, along, wanted, *shared)
        found = (ggy, gx, None, *grads)
        return None, None, None, None, *(grad if need else None for grad, need in zip(found, needs))


def _read(options: Sequence[Any], x: Tensor, knots: Tensor, weight: Tensor) -> tuple[SplineSpec, Tensor, Kernels]:
    """What runs an operator of a compiled program, which is given the knots in place of cells."""
    grid, order, _, outside, activation, backend, opaque = options
    if opaque:
        return SplineSpec(grid, order, False, outside, activation), knots, kernels(backend, order, x, weight)
    spec, cells = read(knots, order, outside, activation, torch.promote_types(x.dtype, weight.dtype))
    return spec, cells, kernels(backend, order, x, weight)


def _compiled_forward(options: Sequence[Any], x: Tensor, knots: Tensor, *weights: Any) -> Tensor:
    spec, cells, run = _read(options, x, knots, weights[1])
    return run.forward(Given(spec, x, cells, Weights(*weights)))


def _compiled_backward(options, wanted, gy, x, knots, *weights) -> tuple[Tensor | None, ...]:
    spec, cells, run = _read(options, x, knots, weights[1])
    return _gradients(spec, run, wanted, gy, x, cells, *weights)


COMPILED, COMPILED_BACKWARD = autograd.operators(
    "spline",
    "Tensor x, Tensor cells, Tensor? base_weight, Tensor spline_weight, Tensor? spline_scale",
    "int grid, int spline_order, bool uniform, str outside, str? activation, str backend, bool opaque",
    _compiled_forward,
    _compiled_backward,
    lambda options, *tensors: composite(SplineSpec(*options[:5]), *tensors),
    weight=3,
)


def apply(
    spec: SplineSpec,
    backend: str,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    keep_basis: bool = False,
    opaque: bool = False,
) -> Tensor:
    """y (N, O) of a spline KAN layer at x (N, I).

    Args:
        keep_basis: as `SplineKAN` has it.
        opaque: the cells are knots that nobody may look at, as they differ in every call.
    """
    tensors = x, cells, base_weight, spline_weight, spline_scale
    compiling = torch.compiler.is_compiling()
    if autograd.plain_wanted() or (compiling and cells.requires_grad):
        return composite(spec, *tensors)
    if compiling:
        return COMPILED(*tensors, *spec, backend, opaque)
    return _Spline.apply(spec, kernels(backend, spec.spline_order, x, spline_weight), keep_basis, *tensors)
