"""The RSWAF layer's kernels in Triton: switch functions into a block, a library's products, gradients out of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from kansciml.layers._kernels import plain
from kansciml.layers._kernels._triton.backend import BLOCK, on_device, packed, unpacked
from kansciml.layers._kernels._triton.library import OPTIONS, cdiv, tile
from kansciml.layers._kernels.plain import Parts, Weights


@triton.jit
def exchange(
    z, points, block, gz, n_rows, n_in, size, TWICE: tl.constexpr, REST: tl.constexpr,
    CONTRACT: tl.constexpr, FILL: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """CONTRACT: the gradient gz of z out of a block (rows, G, I) of the functions' gradients. FILL: those into it.

    The exponent is 2 |z - g| / h with 2 / h = TWICE + REST; what its rounding loses, a factor next to 1 makes good.
    """
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    i = tl.program_id(1) * BI + tl.arange(0, BI)[None, :]
    real = (n < n_rows) & (i < n_in)
    at = tl.load(z + n * n_in + i, mask=real, other=0)
    place = block + n * size * n_in + i
    total = tl.zeros_like(at)
    for k in range(size):
        point = tl.load(points + k)
        near = point.to(at.dtype)
        offset = (at - near) - (point - near.to(point.dtype)).to(at.dtype)
        distance = tl.abs(offset)
        exponent = distance * TWICE
        lost = tl.fma(distance, tl.zeros_like(at) + TWICE, -exponent) + distance * REST
        r = tl.exp(-exponent) * (1 - lost)
        p = 1 / (1 + r)
        value = 4 * r * p * p
        if CONTRACT:
            slope = (2 * p - 1) * value * TWICE
            rise = tl.where(offset < 0, slope, -slope)
            total += rise * tl.load(place, mask=real, other=0).to(at.dtype)
        if FILL:
            tl.store(place, value, mask=real)
        place += n_in
    if CONTRACT:
        tl.store(gz + n * n_in + i, total, mask=real)


def _exchange(h: float, z: Tensor, points: Tensor, block: Tensor, gz: Tensor | None, fill: bool) -> None:
    (n_rows, n_in), size = z.shape, len(points)
    inputs = tile(n_in, 64)
    rows = tile(n_rows, 512 // inputs)
    twice = 2.0 / h if z.dtype == torch.float64 else float(np.float32(2.0 / h))
    has = {"CONTRACT": gz is not None, "FILL": fill, "TWICE": twice, "REST": 2.0 / h - twice}
    launch = exchange[cdiv(n_rows, rows), cdiv(n_in, inputs)]
    launch(z, points, block, gz, n_rows, n_in, size, **has, BN=rows, BI=inputs, **OPTIONS)


def _blocks(z: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and the same memory for the block of each."""
    step = max(1, BLOCK // len(weight))
    block = weight.new_empty(min(step, len(z)), len(weight))
    for start in range(0, len(z), step):
        row = slice(start, min(start + step, len(z)))
        yield row, block[: row.stop - row.start]


def _normed(spec: Any, t: Any) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, Any, Any]:
    """x and LayerNorm(x) in the dtype to compute in, its scale and shift, mean and 1 / deviation."""
    x = t.x.to(plain.sum_dtype(t.x.dtype)).contiguous()
    norm = t.norm(x.dtype)
    if norm is None:
        return x, x, None, None, None
    scale, shift = norm
    z, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], scale, shift, spec.eps)
    return x, z, (scale, shift), mean, rstd


def forward(spec: Any, t: Any) -> Tensor:
    """As `rswaf.forward`."""
    with on_device(t.x):
        z = _normed(spec, t)[1]
        weight = packed(Weights(None, t.weight.contiguous(), None))
        at_once = len(z) * len(weight) <= BLOCK
        y = weight.new_empty(len(z), weight.shape[1], dtype=weight.dtype if at_once else plain.sum_dtype(weight.dtype))
        for row, part in _blocks(z, weight):
            _exchange(spec.h, z[row], t.grid_points, part, None, True)
            plain.add_product(y[row], part, weight, first=True)
        return y.to(weight.dtype)


def backward(spec: Any, wanted: Sequence[bool], gy: Tensor, t: Any) -> tuple[Tensor | None, ...]:
    """As `rswaf.backward`, where the grid points are not wanted."""
    need_z, need_weight = any(wanted[:3]), wanted[4]
    with on_device(t.x):
        x, z, norm, mean, rstd = _normed(spec, t)
        own = Weights(None, t.weight.contiguous(), None)
        weight, gy = packed(own), gy.to(t.weight.dtype)
        gz = torch.empty_like(z) if need_z else None
        total = torch.empty_like(weight, dtype=plain.sum_dtype(weight.dtype)) if need_weight else None
        for row, part in _blocks(z, weight) if need_z or need_weight else ():
            if gz is not None:
                torch.mm(gy[row], weight.t(), out=part)
            _exchange(spec.h, z[row], t.grid_points, part, None if gz is None else gz[row], need_weight)
            if total is not None:
                plain.add_product(total, part.t(), gy[row], row.start == 0)
        gweight = None
        if total is not None:
            gweight = torch.empty_like(own.spline)
            unpacked(total, own, Parts(spline=gweight))
        found = [gz, None, None]
        if norm is not None and gz is not None:
            found = torch.ops.aten.native_layer_norm_backward(gz, x, x.shape[-1:], mean, rstd, *norm, [True] * 3)
    tensors = (t.x, t.norm_weight, t.norm_bias, None, t.weight)
    return tuple(
        None if grad is None or of is None or not want else grad.to(of.dtype)
        for grad, of, want in zip((*found, None, gweight), tensors, wanted)
    )
