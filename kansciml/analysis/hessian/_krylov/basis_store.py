"""Stores the vectors of a Lanczos basis: on the operator's device, in the host's memory, or in a file.

Rows are worked on in blocks of columns of a fixed size, and every dot product is summed in float64 (of float32 rows,
where that is enough, over the blocks: `BasisStore.remove_narrowly`); the same blocks are used wherever the rows live,
so that a basis on disk gives the same bits as one in memory.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from kansciml._errors import KansciError, UsageError, unknown_name
from kansciml.analysis.hessian._product.plan import available_memory

KINDS = ("auto", "memory", "host", "disk", "selective", "none")
BLOCK_BYTES = 1 << 22  # of float64 work space per block: more would be fresh memory at each use, and four times slower
NARROW_COLUMNS = 16384
"""Columns whose dot products are summed in float32 before they go into a float64 sum."""
MEMORY_SHARE, DISK_SHARE = 0.5, 0.8  # of what is free: the rest is left to the module, its graph, and others


@dataclass(frozen=True)
class BasisPlan:
    """Where a basis goes: ``"memory"`` (the operator's device), ``"host"``, ``"disk"`` or ``"selective"``; and why: the
    bytes it needs, and those free on the device, the host, in the folder.
    """

    kind: str
    needed: int
    memory: int
    host: int
    disk: int

    def text(self) -> str:
        """One line for a person."""
        free = f"free: {self.memory / 1e9:.3g} GB memory, {self.host / 1e9:.3g} GB host, {self.disk / 1e9:.3g} GB disk"
        return f"basis of {self.needed / 1e9:.3g} GB: {self.kind} ({free})"


def plan_basis(
    size: int, rows: int, dtype: torch.dtype, device: torch.device | str = "cpu", folder: Path | None = None
) -> BasisPlan:
    """Pick a place for `rows` vectors of length `size`: the first that fits of device, host, disk; else selective.

    Half of the free memory (`available_memory`) and 80 % of the free disk may be used: of `folder`, or (default) the
    system's folder for temporary files.
    """
    needed = size * rows * dtype.itemsize
    host = available_memory(torch.device("cpu"))
    memory = host if torch.device(device).type == "cpu" else available_memory(torch.device(device))
    try:
        disk = shutil.disk_usage(folder or tempfile.gettempdir()).free
    except OSError:
        disk = 0
    if needed <= MEMORY_SHARE * memory:
        kind = "memory"
    elif needed <= MEMORY_SHARE * host:
        kind = "host"
    else:
        kind = "disk" if needed <= DISK_SHARE * disk else "selective"
    return BasisPlan(kind, needed, memory, host, disk)


class BasisStore:
    """`rows` vectors of length `size`; a context manager that gives memory and file back in any case.

    The temporary file in `folder` has no name on systems that allow that, so that not even a killed process leaves it
    behind.

    Raises:
        KansciError: the file cannot be made, or the disk is too full for it.
    """

    def __init__(
        self,
        kind: str,
        rows: int,
        size: int,
        dtype: torch.dtype,
        device: torch.device | str,
        folder: Path | None = None,
    ) -> None:
        if kind not in ("memory", "host", "disk"):
            raise unknown_name("basis", kind, KINDS)
        self.rows, self.size, self.dtype, self.device = rows, size, dtype, torch.device(device)
        self._file: IO[bytes] | None = None
        if kind == "disk":
            self._rows = self._map_file(folder)
        else:
            self._rows = torch.empty((rows, size), dtype=dtype, device="cpu" if kind == "host" else self.device)
        self._columns = max(64, BLOCK_BYTES // (8 * rows) // 64 * 64)  # multiples of 64: rows start on cache lines

    def _map_file(self, folder: Path | None) -> Tensor:
        # Space is claimed before mapping: writing to a mapped hole on a full disk ends the process with SIGBUS.
        length = self.rows * self.size * self.dtype.itemsize
        place = Path(folder or tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=place, prefix="kansciml-basis-")
            _claim(self._file, length)
        except OSError as error:
            self.close()
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "free some space there, name another folder, or ask for fewer steps" if full else "name a folder"
            raise KansciError(
                f"cannot keep a Lanczos basis of {length / 1e9:.3g} GB in {place}: {error.strerror or error}: {remedy}"
            ) from error
        numpy_dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        mapped: np.ndarray = np.memmap(self._file, numpy_dtype, "r+", shape=(self.rows, self.size))
        return torch.from_numpy(mapped)

    def put(self, row: int, vector: Tensor) -> None:
        """Write one vector (n,)."""
        self._rows[row].copy_(vector)

    def get(self, row: int) -> Tensor:
        """One vector (n,), on the operator's device."""
        return self._rows[row].to(self.device)

    def _blocks(self, count: int) -> Iterator[tuple[slice, Tensor]]:
        for columns in _slices(self.size, self._columns):
            yield columns, self._rows[:count, columns].to(self.device).to(torch.float64)

    def remove_from(self, vector: Tensor, count: int) -> Tensor:
        """One pass of classical Gram-Schmidt: takes out of a float64 `vector`, in place, its parts along `count` rows.

        Returns the coefficients (count,), float64.
        """
        coefficients = torch.zeros(count, dtype=torch.float64, device=self.device)
        for columns, block in self._blocks(count):
            coefficients += block @ vector[columns]
        for columns, block in self._blocks(count):
            vector[columns] -= block.T @ coefficients
        return coefficients

    @property
    def narrow(self) -> bool:
        """Whether `remove_narrowly` can be used: rows of float32 that a processor reads from where they live."""
        return self.dtype == torch.float32 and self.device.type == "cpu"

    def remove_narrowly(self, count: int, *vectors: Tensor) -> Tensor:
        """`remove_from` in the rows' float32, for several vectors at once: the rows are read twice, as for one.

        Dot products are summed in float32 over `NARROW_COLUMNS` columns and in float64 beyond, which leaves some
        1e-7 of a vector along a row; what is taken out is rounded to float32, hence eps of it is left.

        The vectors, float64 or float32, are changed in place; later rows may be among them. Returns the coefficients
        (len(vectors), count), float64.
        """
        rows = self._rows[:count]
        coefficients = torch.zeros(len(vectors), count, dtype=torch.float64)
        for columns in _slices(self.size, NARROW_COLUMNS):
            parts = torch.stack([vector[columns].to(torch.float32) for vector in vectors])
            coefficients += _times(parts, rows[:, columns].T)
        factors = coefficients.to(torch.float32)
        for columns in _slices(self.size, NARROW_COLUMNS):
            for vector, part in zip(vectors, _times(factors, rows[:, columns])):
                vector[columns] -= part
        return coefficients

    def combine(self, coefficients: Tensor) -> Tensor:
        """Sums of the first rows: coefficients (count, m) -> (n, m), float64."""
        out = torch.empty((self.size, coefficients.shape[1]), dtype=torch.float64, device=self.device)
        for columns, block in self._blocks(coefficients.shape[0]):
            out[columns] = block.T @ coefficients
        return out

    def rotate(self, coefficients: Tensor) -> None:
        """Replace the first m rows by `combine`'s vectors, in place."""
        for columns, block in self._blocks(coefficients.shape[0]):
            self._rows[: coefficients.shape[1], columns] = (coefficients.T @ block).to(self._rows)

    def close(self) -> None:
        """Give memory and file back; twice does no harm."""
        self._rows = torch.empty(0)
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> BasisStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _times(few: Tensor, matrix: Tensor) -> Tensor:
    """few @ matrix, (m, k) times (k, n): by a product with one vector where m is 1, which is the faster routine."""
    return few @ matrix if len(few) > 1 else (matrix.T @ few[0]).unsqueeze(0)


def _slices(size: int, width: int) -> list[slice]:
    return [slice(first, min(first + width, size)) for first in range(0, size, width)]


def _claim(file: IO[bytes], length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, max(length, 1))
        return
    zeros = bytes(1 << 20)
    for first in range(0, length, len(zeros)):
        file.write(zeros[: length - first])
    file.flush()


def check_basis(kind: str, operator_size: int) -> None:
    """Refuses a `basis` that does not exist, and an operator of nothing."""
    if kind not in KINDS:
        raise unknown_name("basis", kind, KINDS)
    if operator_size < 1:
        raise UsageError("got an operator of size 0: expected at least one parameter")
