"""Kernels for many grid cells: only the S + 1 splines that are not zero at an input meet their weights.

No tensor core helps with so few, but the cost does not grow with the grid. The gradient of the weights needs no atomic
sums: the inputs are sorted by their first spline, so that those which reach a spline lie side by side.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kansciml.layers._kernels._triton.splines import activated, activation_slope, inputs, pick, splines


@triton.jit
def forward(
    x, along, cells, weight, y, n_rows, n_in, n_out, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, ACTIVATION: tl.constexpr,
    ALONG: tl.constexpr, ADD: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """y (N, O), added to what is there if ADD."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    o = tl.program_id(1) * BO + tl.arange(0, BO)[None, :]
    kept = (n < n_rows) & (o < n_out)
    total = tl.zeros([BN, BO], cells.dtype.element_ty)
    if ADD:
        total += tl.load(y + n * n_out + o, mask=kept, other=0)
    for i in range(n_in):
        at, direction = inputs(x, along, n * n_in + i, n < n_rows, cells, ALONG)
        first, values, _ = splines(at, direction, cells, i, n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, False)
        for q in tl.static_range(S + 1):
            m = first + q
            place = weight + (m.to(tl.int64) * n_in + i) * n_out + o
            factor = tl.load(place, mask=kept & (m >= 0) & (m < G + S), other=0).to(at.dtype)
            total += tl.where((m >= 0) & (m < G + S), values[q], 0.0) * factor
        if ACTIVATION is not None:
            place = weight + (tl.cast(G + S, tl.int64) * n_in + i) * n_out + o
            total += activated(at, ACTIVATION) * tl.load(place, mask=o < n_out, other=0).to(at.dtype)
    tl.store(y + n * n_out + o, total, mask=kept)


@triton.jit
def backward(
    gy, x, along, cells, weight, gx, n_rows, n_in, n_out, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, ACTIVATION: tl.constexpr,
    ALONG: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """The gradient of one input of some rows, added to gx."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    i = tl.program_id(1)
    at, direction = inputs(x, along, n * n_in + i, n < n_rows, cells, ALONG)
    first, _, slopes = splines(at, direction, cells, i, n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, True)
    total = tl.zeros([BN, BO], at.dtype)
    for start in range(0, n_out, BO):
        o = start + tl.arange(0, BO)[None, :]
        kept = (n < n_rows) & (o < n_out)
        cotangent = tl.load(gy + n * n_out + o, mask=kept, other=0).to(at.dtype)
        for q in tl.static_range(S + 1):
            m = first + q
            there = (m >= 0) & (m < G + S)
            factor = tl.load(weight + (m.to(tl.int64) * n_in + i) * n_out + o, mask=kept & there, other=0).to(at.dtype)
            total += tl.where(there, slopes[q], 0.0) * factor * cotangent
        if ACTIVATION is not None:
            place = weight + (tl.cast(G + S, tl.int64) * n_in + i) * n_out + o
            factor = tl.load(place, mask=o < n_out, other=0).to(at.dtype)
            total += activation_slope(at, ACTIVATION) * factor * cotangent
    found = tl.load(gx + n * n_in + i, mask=n < n_rows, other=0).to(at.dtype) + tl.sum(total, 1, keep_dims=True)
    tl.store(gx + n * n_in + i, found, mask=n < n_rows)


@triton.jit
def first_spline(
    x, cells, found, n_rows, n_in, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Number of the first spline that is not zero at each input, (I, N), from -S - 1 to G + S."""
    n = (tl.program_id(0) * BN + tl.arange(0, BN)).to(tl.int64)[:, None]
    i = tl.program_id(1)
    at = tl.load(x + n * n_in + i, mask=n < n_rows, other=0).to(cells.dtype.element_ty)
    first, _, _ = splines(at, at, cells, i, n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, False, False)
    tl.store(found + i.to(tl.int64) * n_rows + n, first, mask=n < n_rows)


@triton.jit
def weights(
    gy, x, along, cells, order, ends, total, n_rows, n_in, n_out, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr,
    ALONG: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """The gradient (P, I, O) of the scaled weights of one spline of one input.

    Rows in the `order` of their first spline, (I, N); `ends` (I, P + S + 1): how many have one below -S, -S + 1, ...
    """
    m, i = tl.program_id(0), tl.program_id(1).to(tl.int64)
    o = tl.program_id(2) * BO + tl.arange(0, BO)[None, :]
    ends += i * (G + 2 * S + 1) + m
    begin, end = tl.load(ends), tl.load(ends + S + 1)
    found = tl.zeros([BN, BO], cells.dtype.element_ty)
    for start in range(begin, end, BN):
        k = start + tl.arange(0, BN)[:, None]
        n = tl.load(order + i * n_rows + k, mask=k < end, other=0).to(tl.int64)
        at, direction = inputs(x, along, n * n_in + i, k < end, cells, ALONG)
        first, values, _ = splines(at, direction, cells, i, n_in, G, S, UNIFORM, OUTSIDE, HALVINGS, ALONG, False)
        cotangent = tl.load(gy + n * n_out + o, mask=(k < end) & (o < n_out), other=0).to(at.dtype)
        found += tl.where(k < end, pick(values, m - first, S), 0.0) * cotangent
    place = total + (m.to(tl.int64) * n_in + i) * n_out + o
    tl.store(place, tl.sum(found, 0, keep_dims=True), mask=o < n_out)
