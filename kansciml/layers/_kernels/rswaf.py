"""One RSWAF layer (LayerNorm, bumps, products with the weights) as one operation that keeps only x for backward.

The kernel fills the basis in blocks that stay in cache and rebuilds it, and the LayerNorm, in backward. With
t = exp(-2 (|z - c| - H) / h), c the middle and H the half width of the grid, one exponential gives all functions:
sech^2 = 4 r / (1 + r)^2 with r_k = t exp(-2 d_k / h), d_k from g_k to the end of the grid on z's side of c. Measured
from that end, r is normal wherever the result is. 1 - tanh^2 has no correct digit left beyond |u| = 9.

`apply` chooses as the spline layer does: kernel in eager mode, registered operators under `torch.compile`, the
composite where a graph of the gradient, a transform, forward mode or a graph for elsewhere is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kansciml.layers import layer_norm
from kansciml.layers._kernels import autograd, tensor_values
from kansciml.layers._kernels._triton import library as triton_library
from kansciml.layers._kernels.activations import activate, times_slope
from kansciml.layers._kernels.plain import add_product

ROWS = 512
"""Samples in a block: enough that packing the weights for a GEMM costs little against the GEMM."""
BLOCK_BYTES = 1 << 19
"""Bytes of one block of the basis: it and its temporaries fit a core's second-level cache."""
BACKENDS = ("auto", "torch", "triton")
BUMPS = ("switch", "gauss")
"""sech^2 u and exp(-u^2), with u = (z - g) / h."""
FAR = 28.0
"""|u| from which exp(-u^2) is 0 in every dtype: an infinite input must not make 0 * inf."""
MAX_EXPONENT = 40.0
"""Width of the grid, in units of h, up to which r^2 cannot leave float32's range (exp(88))."""


def _compute(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class RswafSpec(NamedTuple):
    """What the kernels must know of a layer beside its tensors."""

    h: float  # width of the functions
    eps: float  # of the LayerNorm
    shared: bool  # whether one exponential per input serves all grid points (`is_narrow`)
    backend: str = "auto"  # of `BACKENDS`
    bump: str = "switch"  # of `BUMPS`
    activation: str | None = None  # of the base branch, if there is one


class RswafTensors(NamedTuple):
    """A layer's input and what it learns or holds."""

    x: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    grid_points: Tensor
    weight: Tensor
    base: Tensor | None = None  # (I, O)

    def norm(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Scale and shift of the LayerNorm, if there is one."""
        if self.norm_weight is None or self.norm_bias is None:
            return None
        return self.norm_weight.to(dtype), self.norm_bias.to(dtype)


def composite(spec: RswafSpec, *tensors: Any) -> Tensor:
    """The layer in differentiable PyTorch operations, to any order and under any transform."""
    t = RswafTensors(*tensors)
    z = t.x.to(_compute(t.x.dtype))
    norm = t.norm(z.dtype)
    if norm is not None:
        z = layer_norm.composite(spec.eps, z, *norm)
    u = (z.unsqueeze(-1) - t.grid_points.to(z.dtype)) * autograd.constant(1.0 / spec.h, z)
    # sech^2(u) as two sigmoids: smooth at the centre, where |u| is not, and exact in both tails
    if spec.bump == "gauss":
        values = torch.exp(-(u.clamp(-FAR, FAR) ** 2))
    else:
        values = 4.0 * torch.sigmoid(2.0 * u) * torch.sigmoid(-2.0 * u)
    y = values.to(t.weight.dtype).flatten(-2) @ t.weight.flatten(0, 1)
    return y if t.base is None else y + activate(spec.activation, t.x).to(t.base.dtype) @ t.base


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
    if sign is None:
        return values, None
    return values, p.mul_(2.0).sub_(1.0).mul_(values).mul_(sign)  # 2 p - 1 is |tanh|, signed by the side of c


def gaussians(z: Tensor, grid_points: Tensor, h: float, slope: bool) -> tuple[Tensor, Tensor | None]:
    """As `evaluate`, of exp(-u^2)."""
    u = (z.unsqueeze(1) - grid_points.detach().to(z.dtype).view(1, -1, 1)).mul_(1.0 / h).clamp_(-FAR, FAR)
    values = (u * u).neg_().exp_()
    return values, u.mul_(values).mul_(-2.0 / h) if slope else None


def _evaluated(spec: RswafSpec, z: Tensor, t: RswafTensors, slope: bool, constants: tuple | None) -> tuple:
    if spec.bump == "gauss":
        return gaussians(z, t.grid_points, spec.h, slope)
    return evaluate(z, t.grid_points, spec.h, spec.shared, slope, constants)


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


def _triton_runs(spec: RswafSpec, t: RswafTensors) -> bool:
    ours = spec.bump == "switch" and t.base is None and len(t.x) > 0
    return ours and triton_library.chosen(spec.backend, 1, t.x, t.weight)


def forward(spec: RswafSpec, *tensors: Any) -> Tensor:
    """y (N, O) of `RswafTensors`, in the dtype of the weights (I, G, O)."""
    t = RswafTensors(*tensors)
    if _triton_runs(spec, t):
        from kansciml.layers._kernels._triton import rswaf as kernels

        return kernels.forward(spec, t)
    size, dtype, compute = t.weight.shape[1], t.weight.dtype, _compute(t.x.dtype)
    constants = _constants(t.grid_points, spec.h, compute) if spec.shared else None
    if t.base is None:
        y = t.x.new_zeros(len(t.x), t.weight.shape[-1], dtype=_compute(dtype))
    else:
        y = (activate(spec.activation, t.x).to(dtype) @ t.base).to(_compute(dtype))
    for row, _, z, _, _ in _row_blocks(t.x, t.norm(compute), spec.eps, size):
        for column in _columns(z, size):
            values = _evaluated(spec, z[column], t, False, constants)[0].to(dtype)
            add_product(y[row], values.flatten(0, 1).t(), t.weight[column].flatten(0, 1))
    return y.to(dtype)


def backward(spec: RswafSpec, wanted: Sequence[bool], gy: Tensor, *tensors: Any) -> tuple[Tensor | None, ...]:
    """Gradients of `RswafTensors` where wanted, given the output's (N, O)."""
    t, (need_z, need_grid, need_weight) = RswafTensors(*tensors), (any(wanted[:3]), wanted[3], wanted[4])
    if _triton_runs(spec, t) and not need_grid:
        from kansciml.layers._kernels._triton import rswaf as kernels

        return *kernels.backward(spec, wanted, gy, t), None
    size, dtype, compute = t.weight.shape[1], t.weight.dtype, _compute(t.x.dtype)
    norm = t.norm(compute)
    constants = _constants(t.grid_points, spec.h, compute) if spec.shared else None
    gx = torch.zeros_like(t.x) if need_z else None
    gnorm = [torch.zeros_like(part) for part in norm or ()]
    ggrid = t.x.new_zeros(size, dtype=compute) if need_grid else None
    gweight = torch.zeros_like(t.weight, dtype=_compute(dtype)) if need_weight else None
    for row, part, z, mean, rstd in _row_blocks(t.x, norm, spec.eps, size):
        cotangent, gz = gy[row], torch.empty_like(z) if need_z else None
        for column in _columns(z, size):
            values, slopes = _evaluated(spec, z[column], t, need_z or need_grid, constants)
            if gweight is not None:
                add_product(gweight[column].view(-1, gy.shape[1]), values.to(dtype).flatten(0, 1), cotangent)
            if slopes is not None:
                slopes *= (t.weight[column].flatten(0, 1) @ cotangent.t()).view(slopes.shape)
                if gz is not None:
                    gz[column] = slopes.sum(1)
                if ggrid is not None:
                    ggrid -= slopes.sum((0, 2))
        if gx is None or gz is None:
            continue
        if norm is None:
            gx[row] = gz.t()
            continue
        gx[row], *shares = torch.ops.aten.native_layer_norm_backward(
            gz.t().contiguous(), part, part.shape[-1:], mean, rstd, *norm, [True] * 3
        )
        for total, share in zip(gnorm, shares):
            total += share
    gbase = None
    if t.base is not None:
        if gx is not None:
            gx += times_slope(spec.activation, (gy @ t.base.t()).to(gx.dtype), t.x)
        if wanted[5]:
            gbase = activate(spec.activation, t.x).to(dtype).t() @ gy
    found = (gx, *(gnorm or (None, None)), ggrid, gweight, gbase)
    return tuple(
        None if grad is None or of is None or not want else grad.to(of.dtype)
        for grad, of, want in zip(found, t, wanted)
    )


class _Rswaf(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spec, *tensors):
        ctx.spec = spec
        ctx.save_for_backward(*tensors)
        return forward(spec, *tensors)

    @staticmethod
    def backward(ctx, gy):
        saved, wanted, graph = ctx.saved_tensors, ctx.needs_input_grad[1:], torch.is_grad_enabled()
        if graph or autograd.watched(gy):
            return None, *autograd.gradient(partial(composite, ctx.spec), wanted, gy, saved, graph)
        return None, *backward(ctx.spec, wanted, gy.contiguous(), *saved)


def _now(options: Sequence[Any], tensors: Sequence[Any]) -> RswafSpec:
    """What a compiled program was told, with a look at the grid points as they are now."""
    spec = RswafSpec(*options)
    return spec._replace(shared=spec.shared and is_narrow(RswafTensors(*tensors).grid_points, spec.h))


COMPILED, COMPILED_BACKWARD = autograd.operators(
    "rswaf",
    "Tensor x, Tensor? norm_weight, Tensor? norm_bias, Tensor grid_points, Tensor weight, Tensor? base_weight",
    "float h, float eps, bool shared, str backend, str bump, str? activation",
    lambda options, *tensors: forward(_now(options, tensors), *tensors),
    lambda options, wanted, gy, *tensors: backward(_now(options, tensors), wanted, gy, *tensors),
    lambda options, *tensors: composite(RswafSpec(*options), *tensors),
    weight=4,
)


def apply(spec: RswafSpec, tensors: RswafTensors) -> Tensor:
    """y (N, O) of an RSWAF layer."""
    if autograd.plain_wanted():
        return composite(spec, *tensors)
    if torch.compiler.is_compiling():
        return COMPILED(*tensors, *spec)
    return _Rswaf.apply(spec, *tensors)
