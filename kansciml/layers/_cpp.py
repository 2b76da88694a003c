"""The spline layer's kernels in C++ for CPU tensors of float32 or float64, where `_native/spline.cpp` has been built.

Two ways to the same numbers. Dense: C++ fills a block of the basis that stays in cache, a GEMM of PyTorch multiplies
it. Sparse: only the S + 1 splines that are not zero at an input meet their weights, in C++ alone.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from . import _plain
from ._activations import ACTIVATIONS, times_slope
from ._native.build import HERE, library_name
from ._spline_second import Known, base_curvature, by_terms, plain_terms, tangent_of
from .bspline import OUTSIDE, SplineSpec

MAX_ORDER = 5
"""Orders that are compiled; the plain kernels run the others."""
ROWS, BLOCK_BYTES = 1024, 1 << 20
"""Samples and bytes of a block of the basis in the dense way: it stays in the second-level cache."""
SPARSE_SHARE = 0.85
"""Largest share of splines that are not zero at an input for which the sparse way was the faster one."""
_INTERFACE = 3
"""Of the functions' arguments, as the library tells it: an older build must not be called with others."""
_SETS = ("portable", "AVX2", "AVX-512")


class _Grid(ctypes.Structure):
    _fields_ = [(name, ctypes.c_longlong) for name in ("grid", "order", "uniform", "outside", "n_cells", "threads")]


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, with its functions' types.

    Raises:
        OSError: it is not there, not for this machine, or built from another version of its source.
    """
    library = ctypes.CDLL(str(path))
    if not hasattr(library, "kansciml_interface") or library.kansciml_interface() != _INTERFACE:
        raise OSError("built from another version of its source")
    number, pointer = ctypes.c_longlong, ctypes.c_void_p
    grid = ctypes.POINTER(_Grid)
    for real in "fd":
        getattr(library, f"kansciml_dense_{real}_").argtypes = [
            grid, pointer, pointer, number, number, number, pointer, pointer, pointer, number
        ]  # fmt: skip
        getattr(library, f"kansciml_forward_{real}_").argtypes = [grid, *[pointer] * 2, *[number] * 3, *[pointer] * 4]
        getattr(library, f"kansciml_backward_{real}_").argtypes = [grid, *[pointer] * 3, *[number] * 3, *[pointer] * 6]
        getattr(library, f"kansciml_second_{real}_").argtypes = [
            grid, *[pointer] * 3, *[number] * 3, *[pointer] * 11, number
        ]  # fmt: skip
    return library


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("KANSCIML_NO_CPP", "") not in ("", "0"):
        return None, "C++ kernels switched off by KANSCIML_NO_CPP"
    path = HERE / library_name()
    if not path.exists():
        return (
            None,
            "C++ kernels not built: install a C++ compiler and reinstall, or run kansciml/layers/_native/build.py",
        )
    try:
        library = load(path)
        threads = "OpenMP" if library.kansciml_openmp() else "one thread"
        return library, f"C++ kernels, {_SETS[library.kansciml_isa()]}, {threads}"
    except (OSError, AttributeError) as error:
        return None, f"C++ kernels cannot be loaded ({error}): run python -m kansciml.layers._native.build again"


def available() -> bool:
    """Whether the C++ kernels can run here."""
    return _loaded()[0] is not None


def reason() -> str:
    """One line: why they cannot, or the instruction set they run with."""
    return _loaded()[1]


def prefer_sparse(spec: SplineSpec) -> bool:
    """Whether the sparse way is the faster one: where at most this share of the splines is not zero.

    The sparse way does (S + 1) / (G + S) of the products of the three GEMMs, in its forward pass at their rate, for the
    gradient of the weights at half of it (a store for each product). Forward and backward on one core (64 x 64 to
    192 x 256, both precisions), it takes 0.5 of the dense way's time at a share of 1/2, 0.8 to 0.97 at 0.8, 1.2 at 1.
    """
    return spec.spline_order + 1 <= SPARSE_SHARE * (spec.grid + spec.spline_order)


def _arguments(spec: SplineSpec, cells: Tensor) -> _Grid:
    outside = OUTSIDE.index(spec.outside)
    return _Grid(spec.grid, spec.spline_order, spec.uniform, outside, cells.shape[1], torch.get_num_threads())


def _pointer(tensor: Tensor | None, offset: int = 0) -> int | None:
    return None if tensor is None else tensor.data_ptr() + offset * tensor.element_size()


def _function(name: str, dtype: torch.dtype):
    return getattr(_loaded()[0], f"kansciml_{name}_{'f' if dtype == torch.float32 else 'd'}_")


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
    grid = _arguments(spec, cells)
    if prefer_sparse(spec):
        sizes = n_rows, n_in, weight.shape[-1]
        pointers = map(_pointer, (cells, weight, scale, y))
        _function("forward", x.dtype)(grid, _pointer(x), _pointer(along), *sizes, *pointers)
        return
    fill = _function("dense", x.dtype)
    memory, weight_of = _memory(spec, x, cells), _plain.Scaler(weight, scale)
    for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
        shape = row.stop - row.start, column.stop - column.start
        if row.start == 0:
            part = weight_of(column)
        block = _matrix(memory, shape[0], part.shape[0])
        positions = _pointer(x, at_x), _pointer(along, at_x)
        fill(grid, *positions, n_in, *shape, _pointer(cells, at_cell), _pointer(block), None, 1)
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
) -> None:
    """Gradients of `_add_splines`: added to gx, written to the others; without gscale, of scaled weights."""
    n_rows, n_in = x.shape
    n_out = weight.shape[-1]
    if n_rows == 0:
        for grad in (gweight, gscale):
            if grad is not None:
                grad.zero_()
        return
    grid = _arguments(spec, cells)
    if prefer_sparse(spec):
        positions = map(_pointer, (gy, x, along))
        pointers = map(_pointer, (cells, weight, scale, gx, gweight, gscale))
        _function("backward", x.dtype)(grid, *positions, n_rows, n_in, n_out, *pointers)
        return
    run = _function("dense", x.dtype)
    memory, weight_of = _memory(spec, x, cells), _plain.Scaler(weight, scale)
    for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
        shape = row.stop - row.start, column.stop - column.start
        cotangent = gy[row]
        block = _matrix(memory, shape[0], shape[1] * weight.shape[1])
        if gx is not None:
            if row.start == 0:
                part = weight_of(column)
            torch.mm(cotangent, part.t(), out=block)
        pointers = _pointer(cells, at_cell), _pointer(block), _pointer(gx, at_x)
        run(grid, _pointer(x, at_x), _pointer(along, at_x), n_in, *shape, *pointers, int(gweight is not None))
        if gweight is not None:
            total = gweight[column].view(-1, n_out)
            _plain.add_product(total, block.t(), cotangent, first=row.start == 0)
    if gscale is not None:
        _plain.split_scale(weight, scale, gweight, gscale)


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
        return _plain.forward(spec, x, cells, base_weight, spline_weight, spline_scale)
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
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, base_weight, spline_weight, spline_scale, given the output's (N, O); None where not needed."""
    if not _runs(spec):
        arguments = (gy, x, cells, base_weight, spline_weight, spline_scale, need_x, need_weights)
        return _plain.backward(spec, *arguments)
    if not need_x and not need_weights:
        return None, None, None, None
    dtype, dtype_x = spline_weight.dtype, x.dtype
    gy, x, cells, weight, scale = _ready(dtype, gy, x, cells, spline_weight, spline_scale)
    gx = gbase = None
    if base_weight is not None and need_weights:
        gbase = ACTIVATIONS[spec.activation](x).t() @ gy
    if need_x:
        gx = torch.zeros_like(x) if base_weight is None else gy @ base_weight.t()
        if base_weight is not None:
            gx = times_slope(spec.activation, gx, x).contiguous()
    gspline = torch.empty_like(weight) if need_weights else None
    gscale = torch.empty_like(scale) if need_weights and scale is not None else None
    _add_gradients(spec, gy, x, None, cells, weight, scale, gx, gspline, gscale)
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


def second_splines(
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
    need_weights: bool,
    known: Known | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """`_spline_second.plain_splines` by these kernels: in one where inputs and weights vary, else by `second_terms`."""
    varies = hspline is not None or hscale is not None
    if hx is None or not varies or not len(x) or not _runs(spec) or not prefer_sparse(spec):
        tensors = (gy, x, cells, spline_weight, spline_scale, hx, hspline, hscale, ggy, gx)
        return by_terms(second_terms, spec, *tensors, need_weights)
    dtype = spline_weight.dtype
    grid = _arguments(spec, cells)
    tensors = _ready(dtype, gy, x, hx, cells, spline_weight, spline_scale, hspline, hscale)
    gy, x, hx, cells, weight, scale, hspline, hscale = tensors
    moved = torch.zeros_like(gy) if ggy is None else ggy
    added = gx if gx is not None and gx.dtype == dtype else torch.zeros_like(x)
    gspline = torch.empty_like(weight) if need_weights else None
    gscale = bend = values = None
    if known is not None:
        bend, values = known
    have_values = values is not None
    if need_weights and scale is not None:
        gscale = torch.empty_like(scale)
        values = torch.empty_like(weight) if values is None else values
    pointers = map(_pointer, (cells, weight, scale, hspline, hscale, moved, added, gspline, gscale, bend, values))
    positions = map(_pointer, (gy, x, hx))
    _function("second", dtype)(grid, *positions, *x.shape, weight.shape[-1], *pointers, int(have_values))
    if gx is not None and added is not gx:
        gx += added
    return gspline, gscale


def known(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Known | None:
    """What `second_splines` computes in every product and the tangents do not change; None where it would not use it.

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
