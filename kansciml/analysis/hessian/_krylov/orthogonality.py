"""Makes new Lanczos vectors orthogonal to those before: by a stored basis, by converged Ritz vectors, or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .basis_store import BasisStore

if TYPE_CHECKING:
    from ..lanczos import Recurrence

ROWS = 1 << 14  # of a block of vectors in float64: little memory beside a vector of millions
NARROW_SHARE = 1e-3
"""Largest share of a float32 operator's new vector along the basis that is taken out in float32: its rounding is 1e-10.

Only rounding errors of the product before and of the stored vectors lie there, unless the space is nearly invariant.
What is left, some 1e-7, changes T's moments by its square (Simon 1984: up to sqrt(eps) T is exact to eps); one more
rounding of the products to float32 changes the density by more.
"""
TOGETHER = 3
"""New float32 vectors that are made orthogonal to the basis at once."""
WAIT_LOSS = 2e-5
"""Largest estimate of a vector's parts along the basis with which it may be multiplied.

Rounding errors of a product, eps of the matrix's scale, grow by the scale over beta at each step that waits.
"""


def row_blocks(size: int) -> list[slice]:
    """Parts of a vector: what is done to one at a time needs no float64 copy of the whole."""
    return [slice(first, first + ROWS) for first in range(0, size, ROWS)]


def eigen(diagonal: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (m,), ascending, and eigenvectors (m, m) of a symmetric tridiagonal matrix."""
    if len(diagonal) == 0:
        return np.empty(0), np.empty((0, 0))
    return eigh_tridiagonal(diagonal, off)


def project_out(w: Tensor, vectors: Tensor) -> None:
    """Take out of a float64 `w` (n,), in place and twice, its parts along orthonormal columns `vectors` (n, r)."""
    blocks = row_blocks(len(w))
    for _ in range(2):
        coefficients = torch.zeros(vectors.shape[1], dtype=torch.float64, device=w.device)
        for rows in blocks:
            coefficients += vectors[rows].to(torch.float64).T @ w[rows]
        for rows in blocks:
            w[rows] -= vectors[rows].to(torch.float64) @ coefficients


class Bare:
    """Keeps nothing: the bare recurrence."""

    store: BasisStore | None = None

    def add(self, vector: Tensor) -> Tensor:
        """A new basis vector; returns it, where it is kept."""
        return vector

    def remove(self, w: Tensor, vector: Tensor, previous: Tensor | None, step: int) -> float:
        """Make `w` orthogonal, in place, to what is kept, after `step` steps; returns the norm of what is left."""
        return float(torch.linalg.vector_norm(w))

    def grown(self) -> bool:
        """Whether more is kept now, so that the new vector must be made orthogonal again."""
        return False

    def close(self) -> None:
        """Give back what was kept."""


class Full(Bare):
    """All vectors before. With a float32 basis on a processor up to `TOGETHER` new ones are made orthogonal at a time.

    All but the last of them have been multiplied by then. That changes T by the square of what was lost (`WAIT_LOSS`),
    and saves reading the basis for each, which is all the time it takes.
    """

    store: BasisStore

    def __init__(self, store: BasisStore, on_device: bool, run: Recurrence) -> None:
        self.store, self.run, self.count = store, run, 0
        self.waiting, self.lost = 0, 0.0  # newest rows that are not orthogonal yet, and an estimate of how far
        self.on_device = on_device or store.narrow

    def add(self, vector: Tensor) -> Tensor:
        self.store.put(self.count, vector)
        self.count += 1
        return self.store.get(self.count - 1) if self.on_device else vector

    def remove(self, w: Tensor, vector: Tensor, previous: Tensor | None, step: int) -> float:
        norm = float(torch.linalg.vector_norm(w))
        if self.store.narrow:
            if self._may_wait(norm):
                self.waiting += 1
                return norm
            taken = self._remove_narrowly(w)
            if taken <= NARROW_SHARE * norm:
                return float(torch.linalg.vector_norm(w))
        # What one pass leaves along the basis is eps of what it took away.
        if self.store.remove_from(w, self.count).norm() > torch.linalg.vector_norm(w):
            self.store.remove_from(w, self.count)
        return float(torch.linalg.vector_norm(w))

    def _may_wait(self, norm: float) -> bool:
        """Whether the new vector of this norm, before it is divided by it, need not be made orthogonal yet."""
        if self.waiting + 1 >= TOGETHER or self.count == self.store.rows or not 0 < self.run.scale < math.inf:
            return False
        lost = (self.lost if self.waiting else torch.finfo(self.store.dtype).eps) * self.run.scale
        if lost > WAIT_LOSS * norm:
            return False
        self.lost = lost / norm
        return True

    def _remove_narrowly(self, w: Tensor) -> float:
        """Norm of what was taken out of `w`; the rows that wait are made orthogonal too."""
        old, self.waiting = self.count - self.waiting, 0
        rows = [self.store.get(row) for row in range(old, self.count)]
        taken, *of_rows = self.store.remove_narrowly(old, w, *rows).norm(dim=1).tolist()
        for row, lost in zip(rows, of_rows):  # among each other they are orthogonal by the recurrence itself
            if lost > NARROW_SHARE:
                wide = row.to(torch.float64)
                self.store.remove_from(wide, old)
                row.copy_(wide.div_(torch.linalg.vector_norm(wide)))
        return taken

    def close(self) -> None:
        self.store.close()


class Selective(Bare):
    """Ritz vectors that have converged, each taken out of all later vectors."""

    def __init__(self, run: Recurrence) -> None:
        self.run = run
        self.first: list[Tensor] = []  # the basis vector to run again from
        self.vectors: list[tuple[int, Tensor]] = []  # step from which it is taken out, unit vector
        self.parts = np.zeros((0, 0))  # (steps, kept): the same vectors in the Lanczos basis

    def add(self, vector: Tensor) -> Tensor:
        self.first = self.first or [vector]
        return vector

    def remove(self, w: Tensor, vector: Tensor, previous: Tensor | None, step: int) -> float:
        near = [vector] if previous is None else [vector, previous]
        for _ in range(2):
            for kept in [*near, *(ritz for since, ritz in self.vectors if since <= step)]:
                kept = kept.to(torch.float64)
                w -= kept * (kept @ w)
        return float(torch.linalg.vector_norm(w))

    def grown(self) -> bool:
        run, eps = self.run, torch.finfo(self.run.operator.dtype).eps
        size = len(run.alpha)
        _, vectors = eigen(np.array(run.alpha), np.array(run.beta[:-1]))
        bounds = run.beta[-1] * np.abs(vectors[-1])  # residual norms of the Ritz pairs
        known = np.zeros((size, self.parts.shape[1]))
        known[: len(self.parts)] = self.parts
        fresh = 1 - np.square(known.T @ vectors).sum(0) > 1e-3
        # Semiorthogonality (to sqrt eps) keeps T exact to eps (Simon 1984). A pair is waited for until it would be
        # lost; then all that are half-way there are taken along, since running again from the start is what costs.
        if not np.any(fresh & (bounds < eps**0.5 * run.scale)):
            return False
        new = vectors[:, fresh & (bounds < eps**0.25 * run.scale)]
        new, sizes, _ = np.linalg.svd(new - known @ (known.T @ new), full_matrices=False)
        new = new[:, sizes > 1e-3**0.5]  # what is left may have fewer dimensions than columns
        new -= known @ (known.T @ new)
        self.parts = np.concatenate([known, new], axis=1)
        for column in self._form(new).T:
            for _, kept in self.vectors:
                column = column - kept.to(torch.float64) * (kept.to(torch.float64) @ column)
            self.vectors.append((size, (column / torch.linalg.vector_norm(column)).to(run.operator.dtype)))
        return True

    def _form(self, parts: np.ndarray) -> Tensor:
        """Run again from the start, step by step as before, and sum the basis vectors: (steps, m) -> (n, m)."""
        run = self.run
        wanted = torch.from_numpy(parts).to(run.operator.device)
        out = torch.zeros((run.operator.size, parts.shape[1]), dtype=torch.float64, device=run.operator.device)
        previous, vector, beta = None, self.first[0], 0.0
        for step in range(len(parts)):
            out += vector.to(torch.float64)[:, None] * wanted[step]
            if step + 1 == len(parts):
                break
            w, _ = run.product(vector, previous, beta, run.alpha[step])
            self.remove(w, vector, previous, step)
            # The vectors kept after this very step were taken out once more, see `Recurrence.forward`.
            if any(since == step + 1 for since, _ in self.vectors):
                self.remove(w, vector, previous, step + 1)
            beta = run.beta[step]
            previous, vector = vector, w.div_(beta).to(run.operator.dtype)
        return out
