"""The spline layer's kernels in plain PyTorch: forward and backward without autograd, in blocks that stay in cache.

Nothing but the arguments is needed for the backward pass: the basis is rebuilt, block by block, because writing it once
more costs less than keeping and reading it (a cubic spline is a handful of operations).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb, factorial

import torch
from torch import Tensor

from ._activations import ACTIVATIONS, times_slope
from ._basis import evaluate
from .bspline import SplineSpec

ROWS = 1024
"""Samples in a block: enough that packing the weights for a GEMM costs little against the GEMM."""
_SCALED = 16
"""Inputs at a time whose gradients get the edges' factors."""
BLOCK_BYTES = 1 << 20
"""Bytes of one block of the basis: it and its temporaries fit a core's second-level cache."""


def _blocks(spec: SplineSpec, x: Tensor, cells: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Row slice, input slice, x of the block transposed to (i, n) in the dtype to compute in, and the block's cells."""
    n_rows, n_in = x.shape
    size = spec.grid + spec.spline_order
    if x.device.type == "cpu":
        rows = min(ROWS, max(n_rows, 1))
        inputs = max(1, BLOCK_BYTES // (rows * size * cells.element_size()))
    else:  # on a device the launches cost more than the memory
        rows = max(1, (1 << 26) // (n_in * size))
        inputs = n_in
    for r in range(0, n_rows, rows):
        row = slice(r, min(r + rows, n_rows))
        transposed = x[row].t().to(cells.dtype).contiguous()
        for i in range(0, n_in, inputs):
            column = slice(i, min(i + inputs, n_in))
            yield row, column, transposed[column], cells[:, column] if spec.uniform else cells[column]


def scaled(spline_weight: Tensor, spline_scale: Tensor | None) -> Tensor:
    """The weights of the splines with each edge's factor on them: (I, P, O)."""
    return spline_weight if spline_scale is None else spline_weight * spline_scale.unsqueeze(1)


def _part(spline_weight: Tensor, spline_scale: Tensor | None, column: slice) -> Tensor:
    """`scaled` for some inputs: a part is still in the cache when the product reads it."""
    return scaled(spline_weight[column], None if spline_scale is None else spline_scale[column])


class _Filler:
    """Evaluates the splines of block after block into the same buffers: fresh memory would cost more than the sums."""

    def __init__(self, spec: SplineSpec, slope: bool) -> None:
        self.spec, self.slope = spec, slope
        self.in_place = spec.uniform and spec.outside == "zero" and spec.spline_order > 1
        self.buffers: list[Tensor] = []

    def __call__(self, x: Tensor, cells: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.in_place:
            return evaluate(self.spec, x, cells, self.slope)
        order, size = self.spec.spline_order, self.spec.grid + self.spec.spline_order
        shape = (x.shape[0], size, x.shape[1])
        n = x.shape[0] * size * x.shape[1]
        if not self.buffers or self.buffers[0].numel() < n:
            self.buffers = [x.new_empty(n) for _ in range(5 if self.slope else 4)]
        a, t, lower, values, *rest = (buffer[:n].view(shape) for buffer in self.buffers)
        centres = torch.arange(size, dtype=x.dtype, device=x.device).add_(0.5 * (1 - order))
        u = (x - cells[0][:, None]).mul_(cells[1][:, None])
        torch.sub(u.unsqueeze(1), centres[:, None], out=a)
        slopes = rest[0].zero_() if self.slope else None
        d = a.sign() if self.slope else None
        a.abs_()
        for j in range(order // 2 + 1):
            torch.sub(0.5 * (order + 1) - j, a, out=t).clamp_min_(0)
            factor = (-1) ** j * comb(order + 1, j) / factorial(order)
            if order == 2:
                lower.copy_(t)
            else:
                torch.mul(t, t, out=lower)
                for _ in range(order - 3):
                    lower.mul_(t)
            if j == 0:
                torch.mul(lower, t, out=values).mul_(factor)
            else:
                values.addcmul_(lower, t, value=factor)
            if slopes is not None:
                slopes.add_(lower, alpha=-factor * order)
        if slopes is not None:
            slopes.mul_(d).mul_(cells[1][:, None, None])
        return values, slopes


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """total += a @ b (= if `first`); a sum over blocks is kept in float32 where the factors are narrower."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def forward(
    spec: SplineSpec,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Tensor:
    """y (N, O) of a spline KAN layer at x (N, I), in the dtype of the weights."""
    n_out, dtype = spline_weight.shape[-1], spline_weight.dtype
    if base_weight is None:
        y = x.new_zeros(len(x), n_out, dtype=_sum_dtype(dtype))
    else:
        y = (ACTIVATIONS[spec.activation](x).to(dtype) @ base_weight).to(_sum_dtype(dtype))
    fill = _Filler(spec, slope=False)
    for row, column, part, part_cells in _blocks(spec, x, cells):
        values = fill(part, part_cells)[0].to(dtype)
        add_product(y[row], values.flatten(0, 1).t(), _part(spline_weight, spline_scale, column).flatten(0, 1))
    return y.to(dtype)


def backward(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, base_weight, spline_weight, spline_scale, given the output's (N, O); None where not needed."""
    dtype = spline_weight.dtype
    gx = gbase = gspline = gscale = None
    if need_weights:
        fresh = torch.empty_like if len(x) else torch.zeros_like  # the first block of rows writes every element
        gspline = fresh(spline_weight, dtype=_sum_dtype(dtype))
    if need_x:
        gx = torch.zeros_like(x)
    if base_weight is not None:
        if need_weights:
            gbase = ACTIVATIONS[spec.activation](x).to(dtype).t() @ gy
        if need_x:
            gx = times_slope(spec.activation, (gy @ base_weight.t()).to(x.dtype), x)
    fill = _Filler(spec, slope=need_x)
    for row, column, part, part_cells in _blocks(spec, x, cells):
        values, slopes = fill(part, part_cells)
        cotangent = gy[row]
        if need_weights:
            grad = gspline[column].view(-1, gy.shape[1])
            add_product(grad, values.to(dtype).flatten(0, 1), cotangent, first=row.start == 0)
        if need_x:
            weight = _part(spline_weight, spline_scale, column)
            of_basis = (weight.flatten(0, 1) @ cotangent.t()).view(slopes.shape)
            gx[row, column] += slopes.mul_(of_basis).sum(1).t().to(gx.dtype)
    if need_weights and spline_scale is not None:
        gscale = torch.empty_like(spline_scale)
        tensors = (spline_weight, spline_scale, gspline, gscale)
        for weight, scale, grad, total in zip(*(tensor.split(_SCALED) for tensor in tensors)):
            total.copy_((grad * weight).sum(1))
            grad *= scale.unsqueeze(1)
    return gx, gbase, gspline if gspline is None else gspline.to(dtype), gscale
