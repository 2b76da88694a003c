"""One RSWAF layer (LayerNorm, switch functions, matrix product) as one operation that keeps only x for backward.

The kernel fills the basis in blocks that stay in cache and rebuilds it, and the LayerNorm, in backward. With
t = exp(-2 (|z - c| - H) / h), c the middle and H the half width of the grid, one exponential gives all functions:
sech^2 = 4 r / (1 + r)^2 with r_k = t exp(-2 d_k / h), d_k from g_k to the end of the grid on z's side of c. Measured
from that end, r is normal wherever the result is. 1 - tanh^2 has no correct digit left beyond |u| = 9.

`apply` chooses as the spline layer does: kernel in eager mode, registered operators under `torch.compile`, the
composite where a graph of the gradient, a transform, forward mode or a graph for elsewhere is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from kansciml.layers import layer_norm
from kansciml.layers._kernels import autograd, tensor_values
from kansciml.layers._kernels.plain import add_product

ROWS = 512
"""Samples in a block: enough that packing the weights for a GEMM costs little against the GEMM."""
BLOCK_BYTES = 1 << 19
"""Bytes of one block of the basis: it and its temporaries fit a core's second-level cache."""
MAX_EXPONENT = 40.0
"""Width of the grid, in units of h, up to which r^2 cannot leave float32's range (exp(88))."""


def _compute(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def composite(
    h: float,
    eps: float,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    grid_points: Tensor,
    weight: Tensor,
) -> Tensor:
    """The layer in differentiable PyTorch operations, to any order and under any transform."""
    z = x.to(_compute(x.dtype))
    if norm_weight is not None:
        z = layer_norm.composite(eps, z, norm_weight.to(z.dtype), norm_bias.to(z.dtype))
    u = (z.unsqueeze(-1) - grid_points.to(z.dtype)) * autograd.constant(2.0 / h, z)
    # sech^2(u / 2) as two sigmoids: smooth at the centre, where |u| is not, and exact in both tails
    values = 4.0 * torch.sigmoid(u) * torch.sigmoid(-u)
    return values.to(weight.dtype).flatten(-2) @ weight.flatten(0, 1)


def is_narrow(grid_points: Tensor, h: float) -> bool:
    """Whether one exponential per input can serve all grid points, as they are now, within float32's range."""
    known = tensor_values.known(grid_points, h, lambda points: bool(points.max() - points.min() <= MAX_EXPONENT * h))
    return known is not None and known.found[h]


def _constants(grid_points: Tensor, h: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Middle and half width of the grid (float64), and the factors (1, G, 1) of t right and left of the middle."""
    points = grid_points.detach().double()
    low, high = points.min(), points.max()
    right = ((points - high) * (2.0 / h)).exp()
    left = ((low - points) * (2.0 / h)).exp()
    return (low + high) / 2, (high - low) / 2, right.to(dtype).view(1, -1, 1), left.to(dtype).view(1, -1, 1)


def evaluate(
    z: Tensor, grid_points: Tensor, h: float, shared: bool, slope: bool, constants: tuple | None = None
) -> tuple[Tensor, Tensor | None]:
    """Switch functions and dphi/dz (or None), each (I, G, N), at z (I, N). No autograd.

    ``shared``: one exponential per input; for grids at most MAX_EXPONENT h wide.
    Exponents are float64: at exp(-80) rounding a float32 exponent alone would cost a relative 4e-6.
    """
    wide = z.double()
    if shared:
        centre, half, right, left = constants or _constants(grid_points, h, z.dtype)
        offset = wide - centre
        on_right = offset >= 0
        t = ((offset.abs() - half) * (-2.0 / h)).exp().to(z.dtype)
        # a product, not `where`: NaN must stay NaN
        r = (t * on_right).unsqueeze(1) * right
        r.addcmul_((t * ~on_right).unsqueeze(1), left)
        # by arithmetic in z's dtype: `where` of two Python numbers is float32
        sign = (2.0 / h - (4.0 / h) * on_right.to(z.dtype)).unsqueeze(1) if slope else None
    else:
        offset = wide.unsqueeze(1) - grid_points.detach().double().view(1, -1, 1)
        sign = (offset.sign() * (-2.0 / h)).to(z.dtype) if slope else None
        r = offset.abs_().mul_(-2.0 / h).exp_().to(z.dtype)
    p = (r + 1).reciprocal_()
    values = r.mul_(p).mul_(p).mul_(4.0)
    if not slope:
        return values, None
    return values, p.mul_(2.0).sub_(1.0).mul_(values).mul_(sign)  # 2 p - 1 is |tanh|, signed by the side of c


def _row_blocks(x: Tensor, norm: tuple[Tensor, Tensor] | None, eps: float, size: int) -> Iterator[tuple]:
    """Row slice, x and LayerNorm(x) of it transposed to (I, n) in the dtype to compute in, mean and 1 / deviation."""
    on_cpu = x.device.type == "cpu"
    rows = ROWS if on_cpu else max(1, (1 << 24) // (x.shape[1] * size))
    for start in range(0, len(x), rows):
        row = slice(start, min(start + rows, len(x)))
        part = x[row].to(_compute(x.dtype))
        z, mean, rstd = part, None, None
        if norm is not None:
            z, mean, rstd = torch.native_layer_norm(part, part.shape[-1:], *norm, eps)
        yield row, part, z.t().contiguous(), mean, rstd


def _columns(z: Tensor, size: int) -> Iterator[slice]:
    n_in, rows = z.shape
    step = n_in if z.device.type != "cpu" else max(1, BLOCK_BYTES // (rows * size * z.element_size()))
    for start in range(0, n_in, step):
        yield slice(start, min(start + step, n_in))


def _norm(x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None) -> tuple[Tensor, Tensor] | None:
    dtype = _compute(x.dtype)
    return None if norm_weight is None else (norm_weight.to(dtype), norm_bias.to(dtype))


def forward(
    h: float,
    eps: float,
    shared: bool,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    grid_points: Tensor,
    weight: Tensor,
) -> Tensor:
    """y (N, O) at x (N, I), in the dtype of the weights (I, G, O)."""
    size, dtype = weight.shape[1], weight.dtype
    constants = _constants(grid_points, h, _compute(x.dtype)) if shared else None
    y = x.new_zeros(len(x), weight.shape[-1], dtype=_compute(dtype))
    for row, _, z, _, _ in _row_blocks(x, _norm(x, norm_weight, norm_bias), eps, size):
        for column in _columns(z, size):
            values = evaluate(z[column], grid_points, h, shared, False, constants)[0].to(dtype)
            add_product(y[row], values.flatten(0, 1).t(), weight[column].flatten(0, 1))
    return y.to(dtype)


def backward(
    gy: Tensor,
    h: float,
    eps: float,
    shared: bool,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    grid_points: Tensor,
    weight: Tensor,
    need_z: bool,
    need_grid: bool,
    need_weight: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, norm_weight, norm_bias, grid_points, weight (N, O cotangent gy); None where not needed."""
    size, dtype, compute = weight.shape[1], weight.dtype, _compute(x.dtype)
    norm = _norm(x, norm_weight, norm_bias)
    constants = _constants(grid_points, h, compute) if shared else None
    slope = need_z or need_grid
    gx = torch.zeros_like(x) if need_z else None
    gnorm = tuple(torch.zeros_like(part) for part in norm) if need_z and norm is not None else None
    ggrid = x.new_zeros(size, dtype=compute) if need_grid else None
    gweight = torch.zeros_like(weight, dtype=_compute(dtype)) if need_weight else None
    for row, part, z, mean, rstd in _row_blocks(x, norm, eps, size):
        cotangent, gz = gy[row], torch.empty_like(z) if need_z else None
        for column in _columns(z, size):
            values, slopes = evaluate(z[column], grid_points, h, shared, slope, constants)
            if need_weight:
                add_product(gweight[column].view(-1, gy.shape[1]), values.to(dtype).flatten(0, 1), cotangent)
            if slope:
                of_basis = (weight[column].flatten(0, 1) @ cotangent.t()).view(slopes.shape)
                slopes *= of_basis
                if need_z:
                    gz[column] = slopes.sum(1)
                if need_grid:
                    ggrid -= slopes.sum((0, 2))
        if need_z:
            if norm is None:
                gx[row] = gz.t()
                continue
            found = torch.ops.aten.native_layer_norm_backward(
                gz.t().contiguous(), part, part.shape[-1:], mean, rstd, *norm, [True] * 3
            )
            gx[row] = found[0]
            for total, share in zip(gnorm, found[1:]):
                total += share
    narrow = (None, None) if gnorm is None else (gnorm[0].to(norm_weight.dtype), gnorm[1].to(norm_bias.dtype))
    return (
        gx,
        *narrow,
        None if ggrid is None else ggrid.to(grid_points.dtype),
        None if gweight is None else gweight.to(dtype),
    )


def _needs(wanted: tuple[bool, ...]) -> tuple[bool, bool, bool]:
    return any(wanted[:3]), wanted[3], wanted[4]


class _Rswaf(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, eps, shared, *tensors):
        ctx.options = h, eps, shared
        ctx.save_for_backward(*tensors)
        return forward(h, eps, shared, *tensors)

    @staticmethod
    def backward(ctx, gy):
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[3:]
        h, eps, shared = ctx.options
        graph = torch.is_grad_enabled()
        if graph or autograd.transformed(gy) or autograd.recorded():
            return None, None, None, *autograd.gradient(partial(composite, h, eps), wanted, gy, saved, graph)
        found = backward(gy.contiguous(), h, eps, shared, *saved, *_needs(wanted))
        return None, None, None, *(grad if want else None for grad, want in zip(found, wanted))


_ARGUMENTS = (
    "float h, float eps, bool shared, "
    "Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor grid_points, Tensor weight"
)


@torch.library.custom_op("kansciml::rswaf_forward", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _forward_op(h, eps, shared, x, norm_weight, norm_bias, grid_points, weight):
    shared = shared and is_narrow(grid_points, h)
    return forward(h, eps, shared, x, norm_weight, norm_bias, grid_points, weight)


@_forward_op.register_fake
def _(h, eps, shared, x, norm_weight, norm_bias, grid_points, weight):
    return x.new_empty(x.shape[0], weight.shape[-1], dtype=weight.dtype)


@torch.library.custom_op(
    "kansciml::rswaf_backward",
    mutates_args=(),
    schema=f"(Tensor gy, {_ARGUMENTS}, bool need_z, bool need_grid, bool need_weight)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward_op(gy, h, eps, shared, x, norm_weight, norm_bias, grid_points, weight, need_z, need_grid, need_weight):
    tensors = (x, norm_weight, norm_bias, grid_points, weight)
    shared = shared and is_narrow(grid_points, h)
    found = backward(gy.contiguous(), h, eps, shared, *tensors, need_z, need_grid, need_weight)
    return tuple(x.new_empty(0) if grad is None else grad.contiguous() for grad in found)  # operators return tensors


@_backward_op.register_fake
def _(gy, h, eps, shared, x, norm_weight, norm_bias, grid_points, weight, need_z, need_grid, need_weight):
    tensors = (x, norm_weight, norm_bias, grid_points, weight)
    wanted = (need_z, need_z and norm_weight is not None, need_z and norm_bias is not None, need_grid, need_weight)
    return tuple(t.new_empty(t.shape) if want else x.new_empty(0) for t, want in zip(tensors, wanted))


def _setup(ctx, inputs, output):
    h, eps, shared, *tensors = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (h, eps, shared)


def _gradient(ctx, gy):
    wanted = ctx.needs_input_grad[3:]
    found = _backward_op(gy, *ctx.options, *ctx.saved_tensors, *_needs(wanted))
    return None, None, None, *(grad if want else None for grad, want in zip(found, wanted))


def _setup_second(ctx, inputs, output):
    gy, h, eps, _, *tensors = inputs[:9]
    ctx.save_for_backward(gy, *tensors)
    ctx.options, ctx.needs = (h, eps), inputs[9:]


def _second(ctx, *along):
    need_z, need_grid, need_weight = ctx.needs
    normed = need_z and ctx.saved_tensors[2] is not None
    wanted = (need_z, normed, normed, need_grid, need_weight)
    needs = (ctx.needs_input_grad[0], *ctx.needs_input_grad[4:9])
    function, graph = partial(composite, *ctx.options), torch.is_grad_enabled()
    of_gy, *found = autograd.second(function, wanted, needs, ctx.saved_tensors, along, graph)
    return of_gy, None, None, None, *found, None, None, None


_forward_op.register_autograd(_gradient, setup_context=_setup)
_backward_op.register_autograd(_second, setup_context=_setup_second)


def apply(
    h: float,
    eps: float,
    shared: bool,
    x: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    grid_points: Tensor,
    weight: Tensor,
) -> Tensor:
    """y (N, O) of an RSWAF layer at x (N, I)."""
    tensors = (x, norm_weight, norm_bias, grid_points, weight)
    if autograd.plain_wanted():
        return composite(h, eps, *tensors)
    if torch.compiler.is_compiling():
        return _forward_op(h, eps, shared, *tensors)
    return _Rswaf.apply(h, eps, shared, *tensors)
