"""B-splines in registers: the S + 1 that are not zero at each of a block of inputs, by the Cox-de Boor recursion.

One recursion for all knots: of even ones the position is in cells, and the knots around it are whole numbers, which the
compiler folds. Tuples hold one block per spline. Every function is inlined into the kernels.
"""

# Tuples of the kernels' language grow while they are unrolled, as those of Python's types cannot.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def bounded(x, low, high):
    """x within [low, high]; NaN stays (as it does not in tl.clamp)."""
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def lowered(found, widths, K: tl.constexpr):
    """Derivatives of splines of order K from those, one derivative less, of order K - 1, over their widths."""
    left = found[0] / widths[0]
    slopes = (-K * left,)
    for a in tl.static_range(1, K):
        right = found[a] / widths[a]
        slopes += (K * (left - right),)
        left = right
    slopes += (K * left,)
    return slopes


@triton.jit
def recursion(at, knots, S: tl.constexpr, DERIVATIVES: tl.constexpr):
    """Values, slopes and bends of the S + 1 splines at a place between the middle two of 2 S knots."""
    basis = (at * 0 + 1,)
    slopes = basis
    bends = basis
    for k in tl.static_range(1, S + 1):
        widths = ()
        for a in tl.static_range(k):
            widths += (knots[S + a] - knots[S + a - k],)
        if DERIVATIVES >= 2 and k == S:
            bends = lowered(bends, widths, k)
        if DERIVATIVES >= 2 and k == S - 1:
            bends = lowered(basis, widths, k)
        if DERIVATIVES >= 1 and k == S:
            slopes = lowered(basis, widths, k)
        last = basis[0] / widths[0]
        raised = ((knots[S] - at) * last,)
        for a in tl.static_range(1, k):
            own = basis[a] / widths[a]
            raised += ((at - knots[S + a - k - 1]) * last + (knots[S + a] - at) * own,)
            last = own
        raised += ((at - knots[S - 1]) * last,)
        basis = raised
    if DERIVATIVES >= 2 and S == 1:
        bends = (at * 0, at * 0)
    return basis, slopes, bends


@triton.jit
def in_even_cells(x, cells, i, n_in, G, S: tl.constexpr, OUTSIDE: tl.constexpr):
    """First spline, place in the cell, the knots around it, what lies beyond the grid, cells per unit of x."""
    per = tl.load(cells + n_in + i)
    u = (x - tl.load(cells + i)) * per
    if OUTSIDE == "zero":
        at = bounded(u, -S - 1.0, G + S + 0.0)
    else:
        at = bounded(u, 0.0, G + 0.0)
    beyond = u - at
    cell = tl.where(at == at, tl.floor(at), 0.0)
    cell = tl.where(at == G, G - 1.0, cell)  # the right end of the grid belongs to its last interval
    knots = ()
    for k in tl.static_range(1 - S, S + 1):
        knots += (k,)
    return cell.to(tl.int32), at - cell, knots, beyond, per


@triton.jit
def in_any_cells(x, cells, i, G, S: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr):
    """As `in_even_cells`, by bisection of the knots; the place is x itself."""
    size = G + 2 * S + 1
    row = cells + i * size
    if OUTSIDE == "zero":
        at = bounded(x, tl.load(row), tl.load(row + size - 1))
    else:
        at = bounded(x, tl.load(row + S), tl.load(row + G + S))
    cell = tl.zeros_like(at).to(tl.int32) + i * 0
    for h in tl.static_range(HALVINGS):
        step = 1 << (HALVINGS - 1 - h)
        further = tl.minimum(cell + step, size - 1)
        cell = tl.where(tl.load(row + further) <= at, further, cell)
    if OUTSIDE == "zero":
        cell = tl.where(x < tl.load(row), -1, cell)
    cell = tl.where(at == tl.load(row + G + S), G + S - 1, cell)  # see above
    knots = ()
    for k in tl.static_range(1 - S, S + 1):
        place = cell + k
        there = tl.minimum(tl.maximum(place, 0), size - 1)
        knots += (tl.load(row + there) + (place - there),)
    return cell - S, at, knots, x - at, 1.0


@triton.jit
def inputs(x, along, place, mask, cells, ALONG: tl.constexpr):
    """x at some places, 0 where masked, and the direction of its derivatives, in the precision of the grid."""
    at = tl.load(x + place, mask=mask, other=0).to(cells.dtype.element_ty)
    direction = at
    if ALONG:
        direction = tl.load(along + place, mask=mask, other=0).to(at.dtype)
    return at, direction


@triton.jit
def splines(
    x, along, cells, i, n_in, G,
    S: tl.constexpr, UNIFORM: tl.constexpr, OUTSIDE: tl.constexpr, HALVINGS: tl.constexpr,
    ALONG: tl.constexpr, SLOPES: tl.constexpr,
):  # fmt: skip
    """Number of the first spline that is not zero at x (rows, inputs i), S + 1 values, and as many slopes.

    With ALONG, the values are how the splines change as x moves along `along`, and the slopes those of that.
    """
    DERIVATIVES: tl.constexpr = 1 if OUTSIDE == "linear" and ALONG + SLOPES == 0 else ALONG + SLOPES
    if UNIFORM:
        first, at, knots, beyond, per = in_even_cells(x, cells, i, n_in, G, S, OUTSIDE)
    else:
        first, at, knots, beyond, per = in_any_cells(x, cells, i, G, S, OUTSIDE, HALVINGS)
    values, slopes, bends = recursion(at, knots, S, DERIVATIVES)
    inside = (beyond == 0).to(x.dtype)
    factors = ()
    rises = ()
    for q in tl.static_range(S + 1):
        value = values[q]
        slope = value
        bend = value
        if DERIVATIVES >= 1:
            slope = slopes[q]
        if DERIVATIVES >= 2:
            bend = bends[q]
        if OUTSIDE == "linear":
            value = value + beyond * slope
        if OUTSIDE == "clamp":
            slope = slope * inside
        if OUTSIDE != "zero":
            bend = bend * inside
        if ALONG:
            factors += (slope * per * along,)
            rises += (bend * per * per * along,)
        else:
            factors += (value,)
            rises += (slope * per,)
    return first, factors, rises


@triton.jit
def pick(found, q, S: tl.constexpr):
    """The q-th of S + 1 blocks, zero where there is none."""
    value = tl.zeros_like(found[0])
    for k in tl.static_range(S + 1):
        value = tl.where(q == k, found[k], value)
    return value


@triton.jit
def tanh(x):
    """To float32's rounding, also near 0."""
    fade = tl.exp(-2 * tl.abs(x))
    far = (1 - fade) / (1 + fade)
    s = x * x
    near = x * (1 - s * (1 / 3 - s * (2 / 15 - s * (17 / 315 - s * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """act(x)."""
    if ACTIVATION == "silu":
        return x * tl.sigmoid(x)
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "tanh":
        return tanh(x)
    elif ACTIVATION == "relu":
        return tl.where(x <= 0, 0.0, x)
    else:
        return x


@triton.jit
def activation_slope(x, ACTIVATION: tl.constexpr):
    """act'(x)."""
    if ACTIVATION == "silu":
        s = tl.sigmoid(x)
        return s * (1 + x * (1 - s))
    elif ACTIVATION == "gelu":
        normal = tl.exp(-0.5 * x * x) * 0.3989422804014327
        return 0.5 * (1 + tl.erf(x * 0.7071067811865476)) + x * normal
    elif ACTIVATION == "tanh":
        t = tanh(x)
        return 1 - t * t
    elif ACTIVATION == "relu":
        return (x > 0).to(x.dtype)
    else:
        return x * 0 + 1
