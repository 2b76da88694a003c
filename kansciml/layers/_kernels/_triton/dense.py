"""Kernels beside a library's products of matrices: weights in their layout, splines into it, gradients out of it.

A block is (rows, Q, I): Q is P splines and, last, the base branch if there is one; so lie the weights, (Q, I, O).
"""

from __future__ import annotations

import triton
import triton.language as tl

from kansciml.layers._kernels._triton.splines import activated, activation_slope, inputs, pick, splines


@triton.jit
def pack(weight, scale, base, packed, n_in, size, n_out, SCALE: tl.constexpr, BASE: tl.constexpr, BO: tl.constexpr):
    """The weights (Q, I, O), each edge's factor on its splines'."""
    i = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    real = o < n_out
    edge, plane = i * n_out + o, tl.cast(n_in, tl.int64) * n_out
    WIDE: tl.constexpr = tl.float64 if packed.dtype.element_ty == tl.float64 else tl.float32
    if SCALE:
        factor = tl.load(scale + edge, mask=real, other=0)
    for m in range(size):
        value = tl.load(weight + (i * size + m) * n_out + o, mask=real, other=0)
        if SCALE:
            value = value.to(WIDE) * factor.to(WIDE)
        tl.store(packed + m * plane + edge, value, mask=real)
    if BASE:
        tl.store(packed + size * plane + edge, tl.load(base + edge, mask=real), mask=real)


@triton.jit
def unpack(
    packed, weight, scale, to_weight, to_scale, to_base, n_in, size, n_out,
    SPLIT: tl.constexpr, BASE: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """From the gradient of packed weights (Q, I, O) those of the weights; SPLIT: of both their factors."""
    i = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    real = o < n_out
    edge, plane = i * n_out + o, tl.cast(n_in, tl.int64) * n_out
    WIDE: tl.constexpr = tl.float64 if packed.dtype.element_ty == tl.float64 else tl.float32
    if SPLIT:
        factor = tl.load(scale + edge, mask=real, other=0).to(WIDE)
        total = tl.zeros([BO], WIDE)
    for m in range(size):
        place = (i * size + m) * n_out + o
        grad = tl.load(packed + m * plane + edge, mask=real, other=0).to(WIDE)
        if SPLIT:
            total += grad * tl.load(weight + place, mask=real, other=0).to(WIDE)
            grad = grad * factor
        tl.store(to_weight + place, grad, mask=real)
    if SPLIT:
        tl.store(to_scale + edge, total, mask=real)
    if BASE:
        tl.store(to_base + edge, tl.load(packed + size * plane + edge, mask=real), mask=real)


@triton.jit
def exchange(
    x, along, cells, block, gx, n_rows, n_in, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, ACTIVATION: tl.constexpr,
    ALONG: tl.constexpr, CONTRACT: tl.constexpr, FILL: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """CONTRACT: the gradient of x out of a block of the splines' gradients, added to gx. FILL: the splines into it."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    i = tl.program_id(1) * BI + tl.arange(0, BI)[None, :]
    real = (n < n_rows) & (i < n_in)
    at, direction = inputs(x, along, n * n_in + i, real, cells, ALONG)
    first, values, slopes = splines(
        at, direction, cells, tl.minimum(i, n_in - 1), n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, CONTRACT
    )
    size = G + S
    width = size * n_in
    if ACTIVATION is not None:
        width += n_in
    place = block + n * width + i
    total = tl.zeros_like(at)
    if CONTRACT:
        total += tl.load(gx + n * n_in + i, mask=real, other=0).to(at.dtype)
    for m in range(size):
        if CONTRACT:
            total += pick(slopes, m - first, S) * tl.load(place, mask=real, other=0).to(at.dtype)
        if FILL:
            tl.store(place, pick(values, m - first, S), mask=real)
        place += n_in
    if ACTIVATION is not None:
        if CONTRACT:
            total += activation_slope(at, ACTIVATION) * tl.load(place, mask=real, other=0).to(at.dtype)
        if FILL:
            tl.store(place, activated(at, ACTIVATION), mask=real)
    if CONTRACT:
        tl.store(gx + n * n_in + i, total, mask=real)
