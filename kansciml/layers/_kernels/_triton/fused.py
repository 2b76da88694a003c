"""Kernels that make the splines in registers and multiply them by tensor cores, so that no block of them is in memory.

The weights are packed, (Q, I, O), see `dense`. One program has a part of the output and goes through all it sums over.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kansciml.layers._kernels._triton.splines import activated, activation_slope, inputs, pick, splines


@triton.jit
def multiplied(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b; exact: in the type of the sum, as the interpreter must, which cannot multiply bfloat16."""
    if PRECISION == "exact":
        return tl.dot(a.to(total.dtype), b.to(total.dtype), total, input_precision="ieee", out_dtype=total.dtype)
    else:
        return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def forward(
    x, along, cells, weight, y, n_rows, n_in, n_out, share, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, ACTIVATION: tl.constexpr,
    ALONG: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """y (shares, N, O) of `share` inputs each, added to what is there if ADD; the base branch in the same sum."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    o = tl.program_id(1) * BO + tl.arange(0, BO)[None, :]
    inner = tl.arange(0, BI)
    kept = (n < n_rows) & (o < n_out)
    y += tl.program_id(2).to(tl.int64) * n_rows * n_out + n * n_out + o
    dtype = weight.dtype.element_ty
    total = tl.zeros([BN, BO], tl.float64 if dtype == tl.float64 else tl.float32)
    if ADD:
        total += tl.load(y, mask=kept, other=0)
    plane = tl.cast(n_in, tl.int64) * n_out
    begin = tl.program_id(2) * share
    for start in range(begin, tl.minimum(begin + share, n_in), BI):
        i = start + inner[None, :]
        real = (n < n_rows) & (i < n_in)
        at, direction = inputs(x, along, n * n_in + i, real, cells, ALONG)
        first, values, _ = splines(
            at, direction, cells, tl.minimum(i, n_in - 1), n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, False
        )
        k = start + inner[:, None]
        there = (k < n_in) & (o < n_out)
        place = weight + k.to(tl.int64) * n_out + o
        for m in range(G + S):
            factor = tl.load(place, mask=there, other=0)
            total = multiplied(pick(values, m - first, S).to(dtype), factor, total, PRECISION)
            place += plane
        if ACTIVATION is not None:
            factor = tl.load(place, mask=there, other=0)
            total = multiplied(activated(at, ACTIVATION).to(dtype), factor, total, PRECISION)
    tl.store(y, total, mask=kept)


@triton.jit
def _product(gy, place, n, k, n_rows, n_in, n_out, PRECISION: tl.constexpr, BO: tl.constexpr):
    """gy W^T, (rows, inputs): of the weights of one spline of each input."""
    total = tl.zeros([n.shape[0], k.shape[1]], tl.float64 if gy.dtype.element_ty == tl.float64 else tl.float32)
    for start in range(0, n_out, BO):
        o = start + tl.arange(0, BO)
        cotangent = tl.load(gy + n * n_out + o[None, :], mask=(n < n_rows) & (o[None, :] < n_out), other=0)
        factor = tl.load(place + o[:, None], mask=(k < n_in) & (o[:, None] < n_out), other=0)
        total = multiplied(cotangent, factor, total, PRECISION)
    return total


@triton.jit
def backward(
    gy, x, along, cells, weight, gx, n_rows, n_in, n_out, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, ACTIVATION: tl.constexpr,
    ALONG: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """The gradient of x, added to gx."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    i = tl.program_id(1) * BI + tl.arange(0, BI)[None, :]
    real = (n < n_rows) & (i < n_in)
    at, direction = inputs(x, along, n * n_in + i, real, cells, ALONG)
    first, _, slopes = splines(
        at, direction, cells, tl.minimum(i, n_in - 1), n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, True
    )
    total = tl.load(gx + n * n_in + i, mask=real, other=0).to(at.dtype)
    place = weight + i.to(tl.int64) * n_out
    plane = tl.cast(n_in, tl.int64) * n_out
    for m in range(G + S):
        total += pick(slopes, m - first, S) * _product(gy, place, n, i, n_rows, n_in, n_out, PRECISION, BO)
        place += plane
    if ACTIVATION is not None:
        share = _product(gy, place, n, i, n_rows, n_in, n_out, PRECISION, BO)
        total += activation_slope(at, ACTIVATION) * share
    tl.store(gx + n * n_in + i, total, mask=real)
