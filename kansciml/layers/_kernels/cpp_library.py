"""The compiled library of the C++ kernels: found, loaded and checked once; its structures and functions for Python."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from kansciml.layers._native.build import SPLINE, library_path
from kansciml.layers.bspline import OUTSIDE, SplineSpec

_INTERFACE = 4
"""Of the functions' arguments, as the library tells it: an older build must not be called with others."""
_SETS = ("portable", "AVX2", "AVX-512")


class Grid(ctypes.Structure):
    """Grid of the splines, their knots' layout, and how many threads may run."""

    _fields_ = [(name, ctypes.c_longlong) for name in ("grid", "order", "uniform", "outside", "n_cells", "threads")]


class Base(ctypes.Structure):
    """The base branch's weights (I, O), their tangent and their gradient."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "tangent", "grad")]


class KeptPointers(ctypes.Structure):
    """`cpp.Kept`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("u", "value", "slope", "bend", "order", "members")]


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, with its functions' types.

    Raises:
        OSError: it is not there, not for this machine, or built from another version of its source.
    """
    library = ctypes.CDLL(str(path))
    if not hasattr(library, "kansciml_interface") or library.kansciml_interface() != _INTERFACE:
        raise OSError("built from another version of its source")
    n, a = ctypes.c_longlong, ctypes.c_void_p  # a number, an address
    grid, base, kept = (ctypes.POINTER(kind) for kind in (Grid, Base, KeptPointers))
    types = {
        "dense": [grid, a, a, n, n, n, a, a, a, n],
        "forward": [grid, a, a, n, n, n, *[a] * 4],
        "backward": [grid, a, a, a, n, n, n, a, a, a, base, kept, a, a, a],
        "second": [grid, a, a, a, n, n, n, *[a] * 5, base, kept, *[a] * 6, n],
        "keep": [grid, *[a] * 4, n, n, n, a, kept],
    }
    for name, real in product(types, "fd"):
        getattr(library, f"kansciml_{name}_{real}_").argtypes = types[name]
    return library


def find(source: Path, load: Callable[[Path], ctypes.CDLL]) -> tuple[ctypes.CDLL | None, str]:
    """The library of a source, and the instruction set that it runs with; or None, and why."""
    if os.environ.get("KANSCIML_NO_CPP", "") not in ("", "0"):
        return None, "C++ kernels switched off by KANSCIML_NO_CPP"
    path = library_path(source)
    if not path.exists():
        how = "install a C++ compiler and reinstall, or run kansciml/layers/_native/build.py"
        return None, f"C++ kernels not built: {how}"
    try:
        library = load(path)
        return library, f"C++ kernels, {_SETS[library.kansciml_isa()]}"
    except (OSError, AttributeError) as error:
        return None, f"C++ kernels cannot be loaded ({error}): run python -m kansciml.layers._native.build again"


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str]:
    library, told = find(SPLINE, load)
    return library, told if library is None else f"{told}, {'OpenMP' if library.kansciml_openmp() else 'one thread'}"


def available() -> bool:
    """Whether the C++ kernels can run here."""
    return _loaded()[0] is not None


def reason() -> str:
    """One line: why they cannot, or the instruction set they run with."""
    return _loaded()[1]


def grid_of(spec: SplineSpec, cells: Tensor) -> Grid:
    """For the kernels."""
    outside = OUTSIDE.index(spec.outside)
    return Grid(spec.grid, spec.spline_order, spec.uniform, outside, cells.shape[1], torch.get_num_threads())


def pointer(tensor: Tensor | None, offset: int = 0) -> int | None:
    """To an element of a contiguous tensor; None for none."""
    return None if tensor is None else tensor.data_ptr() + offset * tensor.element_size()


def base_of(weight: Tensor, grad: Tensor | None, tangent: Tensor | None = None) -> Base:
    """The base branch for the kernels; a tensor that is None is zero or not wanted."""
    return Base(*map(pointer, (weight, tangent, grad)))


def function(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """A kernel: dense, forward, backward, second or keep."""
    return getattr(_loaded()[0], f"kansciml_{name}_{'f' if dtype == torch.float32 else 'd'}_")
