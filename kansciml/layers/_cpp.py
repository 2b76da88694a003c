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
from .bspline import OUTSIDE, SplineSpec

MAX_ORDER = 5
"""Orders that are compiled; the plain kernels run the others."""
ROWS, BLOCK_BYTES = 1024, 1 << 20
"""Samples and bytes of a block of the basis in the dense way: it stays in the second-level cache."""
SPARSE_SHARE = 0.85
"""Largest share of splines that are not zero at an input for which the sparse way was the faster one."""
_SETS = ("portable", "AVX2", "AVX-512")


class _Grid(ctypes.Structure):
    _fields_ = [(name, ctypes.c_longlong) for name in ("grid", "order", "uniform", "outside", "n_cells", "threads")]


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, with its functions' types.

    Raises:
        OSError: it is not there or not for this machine.
    """
    library = ctypes.CDLL(str(path))
    number, pointer = ctypes.c_longlong, ctypes.c_void_p
    grid = ctypes.POINTER(_Grid)
    for real in "fd":
        getattr(library, f"kansciml_dense_{real}_").argtypes = [
            grid, pointer, number, number, number, pointer, pointer, pointer, number
        ]  # fmt: skip
        getattr(library, f"kansciml_forward_{real}_").argtypes = [grid, pointer, *[number] * 3, *[pointer] * 4]
        getattr(library, f"kansciml_backward_{real}_").argtypes = [grid, *[pointer] * 2, *[number] * 3, *[pointer] * 5]
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
    n_rows, n_in = x.shape
    n_out, dtype = spline_weight.shape[-1], spline_weight.dtype
    x = x.to(dtype).contiguous()
    cells, spline_weight = cells.to(dtype).contiguous(), spline_weight.contiguous()
    y = x.new_zeros(n_rows, n_out) if base_weight is None else ACTIVATIONS[spec.activation](x) @ base_weight
    grid = _arguments(spec, cells)
    if prefer_sparse(spec):
        scale = None if spline_scale is None else spline_scale.contiguous()
        sizes = n_rows, n_in, n_out
        pointers = map(_pointer, (cells, spline_weight, scale, y))
        _function("forward", dtype)(grid, _pointer(x), *sizes, *pointers)
        return y
    weight = _plain.scaled(spline_weight, spline_scale)
    fill = _function("dense", dtype)
    memory = _memory(spec, x, cells)
    for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
        shape = row.stop - row.start, column.stop - column.start
        part = weight[column].flatten(0, 1)
        block = _matrix(memory, shape[0], part.shape[0])
        fill(grid, _pointer(x, at_x), n_in, *shape, _pointer(cells, at_cell), _pointer(block), None, 1)
        y[row].addmm_(block, part)
    return y


def _matrix(memory: Tensor, rows: int, columns: int) -> Tensor:
    """A contiguous (rows, columns) at the start of `memory`."""
    return memory[: rows * columns].view(rows, columns)


def _memory(spec: SplineSpec, x: Tensor, cells: Tensor) -> Tensor:
    """Memory for the largest block, the first."""
    row, column, *_ = next(_blocks(spec, *x.shape, cells), (slice(0, 0), slice(0, 0)))
    return x.new_empty(row.stop * column.stop * (spec.grid + spec.spline_order))


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
    n_rows, n_in = x.shape
    n_out, dtype, dtype_x = spline_weight.shape[-1], spline_weight.dtype, x.dtype
    x, gy = x.to(dtype).contiguous(), gy.to(dtype).contiguous()
    cells, spline_weight = cells.to(dtype).contiguous(), spline_weight.contiguous()
    gx = gbase = gspline = gscale = None
    if base_weight is not None and need_weights:
        gbase = ACTIVATIONS[spec.activation](x).t() @ gy
    if need_x:
        gx = torch.zeros_like(x) if base_weight is None else gy @ base_weight.t()
        if base_weight is not None:
            gx = times_slope(spec.activation, gx, x).contiguous()
    grid = _arguments(spec, cells)
    if not need_x and not need_weights:
        return None, None, None, None
    if prefer_sparse(spec):
        gspline = torch.zeros_like(spline_weight) if need_weights else None
        scale = None if spline_scale is None else spline_scale.contiguous()
        pointers = map(_pointer, (cells, spline_weight, scale, gx, gspline))
        _function("backward", dtype)(grid, _pointer(gy), _pointer(x), n_rows, n_in, n_out, *pointers)
    else:
        gspline = torch.zeros_like(spline_weight) if need_weights else None
        weight = _plain.scaled(spline_weight, spline_scale) if need_x else spline_weight
        run = _function("dense", dtype)
        memory = _memory(spec, x, cells)
        for row, column, at_x, at_cell in _blocks(spec, n_rows, n_in, cells):
            shape = row.stop - row.start, column.stop - column.start
            part, cotangent = weight[column].flatten(0, 1), gy[row]
            block = _matrix(memory, shape[0], part.shape[0])
            if need_x:
                torch.mm(cotangent, part.t(), out=block)
            pointers = _pointer(cells, at_cell), _pointer(block), _pointer(gx, at_x) if need_x else None
            run(grid, _pointer(x, at_x), n_in, *shape, *pointers, int(need_weights))
            if need_weights:
                gspline[column].view(-1, n_out).addmm_(block.t(), cotangent)
    if need_weights and spline_scale is not None:
        gscale = (gspline * spline_weight).sum(1)
        gspline *= spline_scale.unsqueeze(1)
    return (gx.to(dtype_x) if need_x else None), gbase, gspline, gscale
