"""The spline layer's kernels in C++ for CPU tensors of float32 or float64, where `_native/spline.cpp` has been built.

Two ways to the same numbers. Dense: C++ fills a block of the basis that stays in cache, a GEMM of PyTorch multiplies
it. Sparse: only the S + 1 splines that are not zero at an input meet their weights, in C++ alone; so does the base
branch, as one more spline, where a graph keeps act(x).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kansciml.layers._kernels import plain, spline_second
from kansciml.layers._kernels.activations import activate, slope, times_slope
from kansciml.layers._kernels.cpp_library import Base, KeptPointers, base_of, function, grid_of, pointer
from kansciml.layers._kernels.plain import Given, Known, Parts, Weights
from kansciml.layers._kernels.spline_second import Sums
from kansciml.layers.bspline import SplineSpec

MAX_ORDER = 5
"""Orders that are compiled; the plain kernels run the others."""
ROWS, BLOCK_BYTES = 1024, 1 << 20
"""Samples and bytes of a block of the basis in the dense way: it stays in the second-level cache."""
SPARSE_SHARE = 0.85
"""Largest share of splines that are not zero at an input for which the sparse way was the faster one."""
CHUNK, MOST_CELLS = 128, 16
"""Rows that are put in the order of their cells at a time, and cells up to which they are, as in `_native`."""


@dataclass(frozen=True)
class Kept:
    """What a layer computes from x alone, kept by a graph that serves many products and has the memory for it.

    The splines are not in it: to evaluate them takes no longer than to read them. All is in the order in which the
    kernels read it.

    Args:
        u: positions, N I numbers as all here. value, slope: act(x) and act'(x); None without a base branch.
        bend: of `Known`.
        order: of each chunk and input, rows in the order of their cells, uint8 (chunks, I, CHUNK).
        members: how many lie in each cell, (chunks, I, G). Both None where the kernels do not use them.
    """

    u: Tensor
    value: Tensor | None
    slope: Tensor | None
    bend: Tensor
    order: Tensor | None
    members: Tensor | None

    @property
    def pointers(self) -> KeptPointers:
        """For the kernels."""
        tensors = self.u, self.value, self.slope, self.bend, self.order, self.members
        return KeptPointers(*map(pointer, tensors))


def prefer_sparse(spec: SplineSpec) -> bool:
    """Whether the sparse way is the faster one: where at most this share of the splines is not zero.

    The sparse way does (S + 1) / (G + S) of the products of the three GEMMs. Forward and backward on one core (AVX-512,
    float32, 64 x 64 and 192 x 256) it takes 0.44 of the dense way's time at a share of 1/2, 0.56 to 0.59 at 0.8 and
    0.66 to 0.73 at 1; the limit leaves room for narrower vectors, with which this was not measured.
    """
    return spec.spline_order + 1 <= SPARSE_SHARE * (spec.grid + spec.spline_order)


def _runs(spec: SplineSpec) -> bool:
    return spec.spline_order <= MAX_ORDER


def _fused(spec: SplineSpec, x: Tensor) -> bool:
    """Whether one kernel computes all second derivatives at once."""
    return len(x) > 0 and _runs(spec) and prefer_sparse(spec)


def _ready(tensor: Any, dtype: torch.dtype) -> Any:
    """As the kernels read it, if there is one."""
    return None if tensor is None else tensor.to(dtype).contiguous()


def _given(given: Given) -> Given:
    """In one dtype, as the kernels read it; the base branch's weights are PyTorch's to multiply."""
    (spec, x, cells, w), dtype = given, given.w.spline.dtype
    own = Weights(w.base, w.spline.contiguous(), _ready(w.scale, dtype))
    return Given(spec, _ready(x, dtype), _ready(cells, dtype), own)


def _blocks(given: Given, along: Tensor | None) -> Iterator[tuple[slice, slice, tuple[int | None, ...], int | None]]:
    """Row and input slices, pointers to their first x and direction and the numbers of both, to their cells."""
    spec, x, cells, _ = given
    n_rows, n_in = x.shape
    rows = min(ROWS, max(n_rows, 1))
    inputs = min(n_in, max(1, BLOCK_BYTES // (rows * (spec.grid + spec.spline_order) * cells.element_size())))
    for i in range(0, n_in, inputs):
        at_cell = pointer(cells, i if spec.uniform else i * cells.shape[1])
        for r in range(0, n_rows, rows):
            row, column = slice(r, min(r + rows, n_rows)), slice(i, min(i + inputs, n_in))
            at = pointer(x, r * n_in + i), pointer(along, r * n_in + i), n_in, row.stop - r, column.stop - i
            yield row, column, at, at_cell


class _Memory:
    """Memory for one block of the basis after the other, of which the first is the largest."""

    def __init__(self, like: Tensor) -> None:
        self.buffer = like.new_empty(0)

    def __call__(self, rows: int, columns: int) -> Tensor:
        """A contiguous (rows, columns)."""
        if self.buffer.numel() < rows * columns:
            self.buffer = self.buffer.new_empty(rows * columns)
        return self.buffer[: rows * columns].view(rows, columns)


def _add_splines(given: Given, along: Tensor | None, y: Tensor) -> None:
    """y += B W', or with `along` (N, I) how that changes when x moves along it; contiguous, one dtype."""
    spec, x, cells, w = given
    grid = grid_of(spec, cells)
    if prefer_sparse(spec):
        pointers = map(pointer, (cells, w.spline, w.scale, y))
        function("forward", x.dtype)(grid, pointer(x), pointer(along), *x.shape, w.spline.shape[-1], *pointers)
        return
    fill, memory, weight_of = function("dense", x.dtype), _Memory(x), plain.Scaler(w.spline, w.scale)
    for row, column, at, at_cell in _blocks(given, along):
        if row.start == 0:
            part = weight_of(column)
        block = memory(row.stop - row.start, part.shape[0])
        fill(grid, *at, at_cell, pointer(block), None, 1)
        y[row].addmm_(block, part)


def _add_gradients(
    given: Given, gy: Tensor, along: Tensor | None, to: Parts, base: Base | None = None, kept: Kept | None = None
) -> None:
    """Gradients of `_add_splines`: added to `to.x`, written to the others; without `to.scale`, of scaled weights."""
    spec, x, cells, w = given
    (n_rows, n_in), (_, size, n_out) = x.shape, w.spline.shape
    if n_rows == 0:
        for grad in (to.spline, to.scale):
            if grad is not None:
                grad.zero_()
        return
    grid = grid_of(spec, cells)
    if prefer_sparse(spec):
        positions, weights = map(pointer, (gy, x, along)), map(pointer, (cells, w.spline, w.scale))
        wanted, its = map(pointer, (to.x, to.spline, to.scale)), kept and kept.pointers
        function("backward", x.dtype)(grid, *positions, n_rows, n_in, n_out, *weights, base, its, *wanted)
        return
    run, memory, weight_of = function("dense", x.dtype), _Memory(x), plain.Scaler(w.spline, w.scale)
    for row, column, at, at_cell in _blocks(given, along):
        cotangent = gy[row]
        block = memory(row.stop - row.start, (column.stop - column.start) * size)
        if to.x is not None:
            if row.start == 0:
                part = weight_of(column)
            torch.mm(cotangent, part.t(), out=block)
        at_gx = pointer(to.x, row.start * n_in + column.start)
        run(grid, *at, at_cell, pointer(block), at_gx, int(to.spline is not None))
        if to.spline is not None:
            total = to.spline[column].view(-1, n_out)
            plain.add_product(total, block.t(), cotangent, first=row.start == 0)
    if to.spline is not None and to.scale is not None and w.scale is not None:
        plain.split_scale(w.spline, w.scale, to.spline, to.scale)


def forward(given: Given) -> Tensor:
    """y (N, O) of a spline KAN layer, in the dtype of the weights."""
    if not _runs(given.spec):
        return plain.forward(given)
    spec, x, _, w = given = _given(given)
    y = x.new_zeros(len(x), w.spline.shape[-1]) if w.base is None else activate(spec.activation, x) @ w.base
    _add_splines(given, None, y)
    return y


def backward(given: Given, gy: Tensor, need_x: bool, need_weights: bool, kept: Kept | None = None) -> Parts:
    """Gradients of x and the weights, given the output's (N, O). `kept`: of this x, by `keep`."""
    if not _runs(given.spec):
        return plain.backward(given, gy, need_x, need_weights)
    if not need_x and not need_weights:
        return Parts()
    dtype_x, (spec, x, _, w) = given.x.dtype, (given := _given(given))
    gy = _ready(gy, x.dtype)
    gx = gbase = base = None
    if w.base is None or kept is not None:
        gx = torch.zeros_like(x) if need_x else None
    elif need_x:
        gx = times_slope(spec.activation, gy @ w.base.t(), x).contiguous()
    if w.base is not None and kept is not None:
        base_weight = w.base.contiguous()
        gbase = torch.empty_like(base_weight) if need_weights else None
        base = base_of(base_weight, gbase)
    elif w.base is not None and need_weights:
        gbase = activate(spec.activation, x).t() @ gy
    gspline = torch.empty_like(w.spline) if need_weights else None
    gscale = torch.empty_like(w.scale) if need_weights and w.scale is not None else None
    to = Parts(gx, gbase, gspline, gscale)
    _add_gradients(given, gy, None, to, base, kept)
    return to if gx is None else to._replace(x=gx.to(dtype_x))


def _terms(given: Given, gy: Tensor, h: Parts, to: Sums) -> None:
    """`spline_second.plain_terms` by these kernels: a forward and a backward pass along hx, and another for V."""
    if not _runs(given.spec):
        return spline_second.plain_terms(given, gy, h, to)
    given = _given(given)
    gy, added = _ready(gy, given.x.dtype), to.x
    if to.x is not None and to.x.dtype != given.x.dtype:
        added = torch.zeros_like(given.x)
    passes: list[tuple[Tensor | None, Given, Tensor | None]] = []
    if h.x is not None:
        passes.append((_ready(h.x, given.x.dtype), given, to.of_moved))
    if h.vary_splines:
        tangent = spline_second.tangent_of(given.w, h).contiguous()
        passes.append((None, given._replace(w=Weights(None, tangent, None)), to.of_values))
    for along, factors, total in passes:
        if to.gy is not None:
            _add_splines(factors, along, to.gy)
        if added is not None or total is not None:
            _add_gradients(factors, gy, along, Parts(added, spline=total))
    if to.x is not None and added is not None and added is not to.x:
        to.x.add_(added)
    return None


def double_backward(
    given: Given,
    gy: Tensor,
    h: Parts,
    needs: tuple[bool, bool, bool],
    known: Known | None = None,
    kept: Kept | None = None,
) -> tuple[Tensor | None, ...]:
    """As `spline_second` has it: by one kernel where inputs and weights vary, else by `_terms`."""
    if h.x is None or not h.vary_splines or not _fused(given.spec, given.x):
        return spline_second.double_backward(given, gy, h, needs, terms=_terms)
    dtype, own, (need_gy, need_x, need_weights) = given.w.spline.dtype, _given(given), needs
    spec, x, cells, w = own
    gy, h, base_weight = _ready(gy, dtype), Parts(*(_ready(part, dtype) for part in h)), _ready(w.base, dtype)
    gbase = base = gscale = bend = values = None
    if kept is None:
        ggy, gx, gbase = spline_second.base_terms(given._replace(w=w), gy, h, known is None)
    else:
        ggy, gx = torch.zeros_like(gy), torch.zeros_like(x)
        if base_weight is not None:
            gbase = torch.empty_like(base_weight) if need_weights else None
            base = base_of(base_weight, gbase, h.base)
    gspline = torch.empty_like(w.spline) if need_weights else None
    if known is not None:
        bend, values = known
    have_values = values is not None
    if need_weights and w.scale is not None:
        gscale = torch.empty_like(w.scale)
        values = torch.empty_like(w.spline) if values is None else values
    added = gx if gx.dtype == dtype else torch.zeros_like(x)
    positions, pointers = map(pointer, (gy, x, h.x)), map(pointer, (cells, w.spline, w.scale, h.spline, h.scale))
    found = map(pointer, (ggy, added, gspline, gscale, bend, values))
    sizes, its = (*x.shape, w.spline.shape[-1]), kept and kept.pointers
    function("second", dtype)(grid_of(spec, cells), *positions, *sizes, *pointers, base, its, *found, int(have_values))
    if added is not gx:
        gx += added
    weights = (gbase, gspline, gscale) if need_weights else (None,) * 3
    return ggy if need_gy else None, gx if need_x else None, *weights


def known(given: Given, gy: Tensor) -> Known | None:
    """What `double_backward` computes in every product and the tangents do not change; None where it has no use."""
    if not _fused(given.spec, given.x):
        return None
    given = _given(given)
    w, gy = given.w, _ready(gy, given.x.dtype)
    bend = spline_second.base_curvature(given, gy)
    _add_gradients(given, gy, torch.ones_like(given.x), Parts(bend))
    if w.scale is None or w.spline.numel() > gy.numel():
        return Known(bend, None)
    values = torch.empty_like(w.spline)
    _add_gradients(given._replace(w=w._replace(scale=None)), gy, None, Parts(spline=values))
    return Known(bend, values)


def keep(given: Given, known: Known) -> tuple[Known, Kept]:
    """What is `known` but for what `Kept` has in another order, and all that this has."""
    spec, x, cells, w = _given(given)
    grid = grid_of(spec, cells)
    n_rows, n_in = x.shape
    value = rise = order = members = None
    if spec.activation is not None:
        value, rise = activate(spec.activation, x).contiguous(), slope(spec.activation, x).contiguous()
    if spec.uniform:
        x = (x - cells[0]).mul_(cells[1])
        rise = None if rise is None else rise * (1 / cells[1])
    if spec.grid <= MOST_CELLS:
        chunks = -(-n_rows // CHUNK)
        order = torch.empty(chunks, n_in, CHUNK, dtype=torch.uint8)
        members = torch.empty(chunks, n_in, spec.grid, dtype=torch.uint8)

    def padded() -> Tensor:
        return x.new_zeros(x.numel() + 64)  # whole vectors are read, beyond the last number too

    has_base = spec.activation is not None
    kept = Kept(padded(), padded() if has_base else None, padded() if has_base else None, padded(), order, members)
    positions = map(pointer, (x, value, rise, known.bend))
    function("keep", x.dtype)(grid, *positions, n_rows, n_in, w.spline.shape[-1], pointer(cells), kept.pointers)
    return Known(None, known.values), kept
