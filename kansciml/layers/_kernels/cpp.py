"""The spline layer's kernels in C++ for CPU tensors of float32 or float64, where `_native/spline.cpp` has been built.

Two ways to the same numbers. Dense: C++ fills a block of the basis that stays in cache, a GEMM of PyTorch multiplies
it. Sparse: only the S + 1 splines that are not zero at an input meet their weights, in C++ alone; so does the base
branch, as one more spline, where a graph keeps act(x).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kansciml.layers._kernels import plain
from kansciml.layers._kernels.activations import ACTIVATIONS, slope, times_slope
from kansciml.layers._kernels.cpp_library import Base, KeptPointers, base_of, function, grid_of, pointer
from kansciml.layers._kernels.spline_second import (
    Known,
    base_curvature,
    base_terms,
    by_terms,
    plain_terms,
    tangent_of,
)
from kansciml.layers._kernels.spline_second import double_backward as by_branches
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
        order, members: of each chunk of rows and each input, rows in the order of their cells, and how many lie in
            each; uint8 (chunks, I, CHUNK) and (chunks, I, G), None where the kernels do not use them.
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


def _blocks(spec: SplineSpec, n_rows: int, n_in: int, cells: Tensor):
    """Row and input slices with the offsets of their first x and cells."""
    size = spec.grid + spec.spline_order
    rows = min(ROWS, max(n_rows, 1))
    inputs = min(n_in, max(1, BLOCK_BYTES // (rows * size * cells.element_size())))
    for i in range(0, n_in, inputs):
        for r in range(0, n_rows, rows):
            at = i if spec.uniform else i * cells.shape[1]
            yield slice(r, min(r + rows, n_rows)), slice(i, min(i + inputs, n_in)), r * n_in + i, at


def _matrix(memory: Tensor, rows: int, columns: int) -> Tensor:
    """A contiguous (rows, columns) at the start of `memory`."""
    return memory[: rows * columns].view(rows, columns)


def _memory(spec: SplineSpec, x: Tensor, cells: Tensor) -> Tensor:
    """Memory for the largest block, the first."""
    row, column, *_ = next(_blocks(spec, *x.shape, cells), (slice(0, 0), slice(0, 0)))
    return x.new_empty(row.stop * column.stop * (spec.grid + spec.spline_order))


def _add_splines(
    spec: SplineSpec,
    x: Tensor,
    along: Tensor | None,
    cells: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    y: Tensor,
) -> None:
    """y += B scaled(weight), or with `along` (N, I) how that changes when x moves along it; contiguous, one dtype."""
    n_rows, n_in = x.shape
    grid = grid_of(spec, cells)
    if prefer_sparse(spec):
        sizes = n_rows, n_in, weight.shape[-1]
        pointers = map(pointer, (cells, weight, scale, y))
        function("forward", x.dtype)(grid, pointer(x), pointer(along), *sizes, *pointers)
        return
    fill = function("dense", x.dtype)
    memory, weight_of = _memory(spec, x, cells), plain.Scaler(weight, scale)
    for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
        shape = row.stop - row.start, column.stop - column.start
        if row.start == 0:
            part = weight_of(column)
        block = _matrix(memory, shape[0], part.shape[0])
        positions = pointer(x, at_x), pointer(along, at_x)
        fill(grid, *positions, n_in, *shape, pointer(cells, at_cell), pointer(block), None, 1)
        y[row].addmm_(block, part)


def _add_gradients(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    along: Tensor | None,
    cells: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    gx: Tensor | None,
    gweight: Tensor | None,
    gscale: Tensor | None,
    base: Base | None = None,
    kept: KeptPointers | None = None,
) -> None:
    """Gradients of `_add_splines`: added to gx, written to the others; without gscale, of scaled weights."""
    n_rows, n_in = x.shape
    n_out = weight.shape[-1]
    if n_rows == 0:
        for grad in (gweight, gscale):
            if grad is not None:
                grad.zero_()
        return
    grid = grid_of(spec, cells)
    if prefer_sparse(spec):
        positions = map(pointer, (gy, x, along))
        pointers, wanted = map(pointer, (cells, weight, scale)), map(pointer, (gx, gweight, gscale))
        function("backward", x.dtype)(grid, *positions, n_rows, n_in, n_out, *pointers, base, kept, *wanted)
        return
    run = function("dense", x.dtype)
    memory, weight_of = _memory(spec, x, cells), plain.Scaler(weight, scale)
    for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
        shape = row.stop - row.start, column.stop - column.start
        cotangent = gy[row]
        block = _matrix(memory, shape[0], shape[1] * weight.shape[1])
        if gx is not None:
            if row.start == 0:
                part = weight_of(column)
            torch.mm(cotangent, part.t(), out=block)
        pointers = pointer(cells, at_cell), pointer(block), pointer(gx, at_x)
        run(grid, pointer(x, at_x), pointer(along, at_x), n_in, *shape, *pointers, int(gweight is not None))
        if gweight is not None:
            total = gweight[column].view(-1, n_out)
            plain.add_product(total, block.t(), cotangent, first=row.start == 0)
    if gscale is not None:
        plain.split_scale(weight, scale, gweight, gscale)


def forward(
    spec: SplineSpec,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Tensor:
    """y (N, O) of a spline KAN layer at x (N, I), in the dtype of the weights."""
    if not _runs(spec):
        return plain.forward(spec, x, cells, base_weight, spline_weight, spline_scale)
    dtype = spline_weight.dtype
    x, cells, weight, scale = _ready(dtype, x, cells, spline_weight, spline_scale)
    y = x.new_zeros(len(x), weight.shape[-1]) if base_weight is None else ACTIVATIONS[spec.activation](x) @ base_weight
    _add_splines(spec, x, None, cells, weight, scale, y)
    return y


def _ready(dtype: torch.dtype, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.to(dtype).contiguous() for t in tensors]


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
    kept: Kept | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, base_weight, spline_weight, spline_scale, given the output's (N, O); None where not needed.

    `kept`: of this x, by `keep`.
    """
    if not _runs(spec):
        arguments = (gy, x, cells, base_weight, spline_weight, spline_scale, need_x, need_weights)
        return plain.backward(spec, *arguments)
    if not need_x and not need_weights:
        return None, None, None, None
    dtype, dtype_x = spline_weight.dtype, x.dtype
    gy, x, cells, weight, scale = _ready(dtype, gy, x, cells, spline_weight, spline_scale)
    gx = gbase = base = None
    if base_weight is None or kept is not None:
        gx = torch.zeros_like(x) if need_x else None
    elif need_x:
        gx = times_slope(spec.activation, gy @ base_weight.t(), x).contiguous()
    if base_weight is not None and kept is not None:
        base_weight = base_weight.contiguous()
        gbase = torch.empty_like(base_weight) if need_weights else None
        base = base_of(base_weight, gbase)
    elif base_weight is not None and need_weights:
        gbase = ACTIVATIONS[spec.activation](x).t() @ gy
    gspline = torch.empty_like(weight) if need_weights else None
    gscale = torch.empty_like(scale) if need_weights and scale is not None else None
    _add_gradients(spec, gy, x, None, cells, weight, scale, gx, gspline, gscale, base, kept and kept.pointers)
    return (gx.to(dtype_x) if need_x else None), gbase, gspline, gscale


def second_terms(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hx: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
    ggy: Tensor | None,
    gx: Tensor | None,
    of_moved: Tensor | None,
    of_values: Tensor | None,
) -> None:
    """`_spline_second.plain_terms` by these kernels: a forward and a backward pass along hx, and another for V."""
    if not _runs(spec):
        tensors = (gy, x, cells, spline_weight, spline_scale, hx, hspline, hscale, ggy, gx, of_moved, of_values)
        return plain_terms(spec, *tensors)
    dtype = spline_weight.dtype
    gy, x, cells, weight, scale, hx = _ready(dtype, gy, x, cells, spline_weight, spline_scale, hx)
    added = gx if gx is None or gx.dtype == dtype else torch.zeros_like(x)
    passes = []
    if hx is not None:
        passes.append((hx, weight, scale, of_moved))
    if hspline is not None or hscale is not None:
        tangent = tangent_of(*_ready(dtype, weight, scale, hspline, hscale)).contiguous()
        passes.append((None, tangent, None, of_values))
    for along, factor, its_scale, total in passes:
        if ggy is not None:
            _add_splines(spec, x, along, cells, factor, its_scale, ggy)
        if gx is not None or total is not None:
            _add_gradients(spec, gy, x, along, cells, factor, its_scale, added, total, None)
    if added is not gx:
        gx += added


def double_backward(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hx: Tensor | None,
    hbase: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
    need_gy: bool,
    need_x: bool,
    need_weights: bool,
    known: Known | None = None,
    kept: Kept | None = None,
) -> tuple[Tensor | None, ...]:
    """As `_spline_second` has it, by these kernels: in one where inputs and weights vary, else by `second_terms`."""
    varies = hspline is not None or hscale is not None
    if hx is None or not varies or not len(x) or not _runs(spec) or not prefer_sparse(spec):
        tensors = (gy, x, cells, base_weight, spline_weight, spline_scale, hx, hbase, hspline, hscale)
        return by_branches(partial(by_terms, second_terms), spec, *tensors, need_gy, need_x, need_weights)
    dtype, x_given = spline_weight.dtype, x
    tensors = _ready(dtype, gy, x, hx, cells, spline_weight, spline_scale, hspline, hscale, base_weight, hbase)
    gy, x, hx, cells, weight, scale, hspline, hscale, base_weight, hbase = tensors
    gbase = base = gscale = bend = values = None
    if kept is None:
        ggy, gx, gbase = base_terms(spec, gy, x_given, base_weight, hx, hbase, known is None)
    else:
        ggy, gx = torch.zeros_like(gy), torch.zeros_like(x)
        gbase = torch.empty_like(base_weight) if base_weight is not None and need_weights else None
        base = None if base_weight is None else base_of(base_weight, gbase, hbase)
    gspline = torch.empty_like(weight) if need_weights else None
    if known is not None:
        bend, values = known
    have_values = values is not None
    if need_weights and scale is not None:
        gscale = torch.empty_like(scale)
        values = torch.empty_like(weight) if values is None else values
    added = gx if gx.dtype == dtype else torch.zeros_like(x)
    positions, pointers = map(pointer, (gy, x, hx)), map(pointer, (cells, weight, scale, hspline, hscale))
    found = map(pointer, (ggy, added, gspline, gscale, bend, values))
    sizes, its = (*x.shape, weight.shape[-1]), kept and kept.pointers
    function("second", dtype)(grid_of(spec, cells), *positions, *sizes, *pointers, base, its, *found, int(have_values))
    if added is not gx:
        gx += added
    weights = (gbase, gspline, gscale) if need_weights else (None,) * 3
    return ggy if need_gy else None, gx if need_x else None, *weights


def known(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Known | None:
    """What `double_backward` computes in every product and the tangents do not change; None where it would not use it.

    It takes no more memory than x and gy, which the graph keeps anyway: weights' gradients only where rows are many.
    """
    if not len(x) or not _runs(spec) or not prefer_sparse(spec):
        return None
    gy, x, cells, weight, scale = _ready(spline_weight.dtype, gy, x, cells, spline_weight, spline_scale)
    bend = base_curvature(spec, gy, x, base_weight)
    bend = torch.zeros_like(x) if bend is None else bend
    _add_gradients(spec, gy, x, torch.ones_like(x), cells, weight, scale, bend, None, None)
    if scale is None or weight.numel() > gy.numel():
        return bend, None
    values = torch.empty_like(weight)
    _add_gradients(spec, gy, x, None, cells, weight, None, None, values, None)
    return bend, values


def keep(spec: SplineSpec, x: Tensor, cells: Tensor, n_out: int, bend: Tensor) -> Kept:
    """All that `Kept` has; `bend`: by `known`, which keeps something of this spec."""
    x, cells = _ready(x.dtype, x, cells)
    grid = grid_of(spec, cells)
    n_rows, n_in = x.shape
    value = rise = order = members = None
    if spec.activation is not None:
        value, rise = ACTIVATIONS[spec.activation](x).contiguous(), slope(spec.activation, x).contiguous()
    if spec.uniform:
        x = (x - cells[0]).mul_(cells[1])
        rise = None if rise is None else rise * (1 / cells[1])
    if spec.grid <= MOST_CELLS:
        chunks = -(-n_rows // CHUNK)
        order = torch.empty(chunks, n_in, CHUNK, dtype=torch.uint8)
        members = torch.empty(chunks, n_in, spec.grid, dtype=torch.uint8)
    # whole vectors are read, beyond the last number too
    found = [None if t is None else t.new_zeros(x.numel() + 64) for t in (x, value, rise, bend)]
    kept = Kept(*found, order, members)
    positions = map(pointer, (x, value, rise, bend))
    function("keep", x.dtype)(grid, *positions, n_rows, n_in, n_out, pointer(cells), kept.pointers)
    return kept
