"""The Lanczos recurrence in float64: A V = V T + beta_m v_{m+1} e_m^T with a tridiagonal T and orthonormal V.

Without reorthogonalisation the vectors lose their orthogonality as soon as an eigenvalue of T has converged, and T
grows ghost copies of it (Paige 1976). Three ways to keep it:

* the full basis, on the device, in the host's memory or in a file: every new vector is made orthogonal to all before
  it, and once more if that took away more than it left; twice is enough (Daniel, Gragg, Kaufman and Stewart 1976;
  Giraud, Langou, Rozloznik, van den Eshof 2005);
* ``"selective"`` (Parlett and Scott 1979): only the directions of converged Ritz vectors, in which alone orthogonality
  is lost, are kept and taken out. The basis is not stored: when a Ritz pair converges, the recurrence is run again from
  the start to form its vector. Memory: as many vectors as pairs converge, plus three; price: matrix products again;
* ``"none"``: the bare recurrence, to show the ghosts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from ..._errors import KansciError, UsageError
from ._basis_store import BasisStore, check_basis, plan_basis
from .symmetric import SymmetricOperator

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


@dataclass(frozen=True)
class Tridiagonal:
    """What m steps of Lanczos found.

    Args:
        alpha: (m,) diagonal of T. beta: (m,) its off-diagonal, and last the norm that leads out of the space: zero if
            the space is invariant, and T's eigenvalues then eigenvalues of A.
        basis: the m vectors, if asked for; the caller closes it.
        matvecs: products with A that were needed.
        kind: how orthogonality was kept.
    """

    alpha: np.ndarray
    beta: np.ndarray
    basis: BasisStore | None
    matvecs: int
    kind: str

    @property
    def exhausted(self) -> bool:
        """The space is invariant: no further step was possible."""
        return len(self.beta) == 0 or self.beta[-1] == 0

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues (m,), ascending, and eigenvectors (m, m) of T."""
        return eigen(self.alpha, self.beta[:-1])


def eigen(diagonal: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric tridiagonal matrix."""
    if len(diagonal) == 0:
        return np.empty(0), np.empty((0, 0))
    return eigh_tridiagonal(diagonal, off)


def lanczos(
    operator: SymmetricOperator,
    start: Tensor,
    steps: int,
    *,
    basis: str = "auto",
    folder: Path | None = None,
    locked: Tensor | None = None,
    keep_basis: bool = False,
) -> Tridiagonal:
    """Run up to `steps` steps from `start`; fewer if the Krylov space is exhausted before.

    Alpha, beta and their dot products are float64 whatever the operator's dtype; the basis is kept in the operator's.
    On a processor a float32 basis is made orthogonal in float32, to some 1e-6 (`NARROW_SHARE`), up to `TOGETHER` new
    vectors at a time, and in float64 where that is not enough.
    The recurrence stops where beta is at most 10 eps (of the operator's dtype) of the largest |alpha| + beta so far:
    beyond is rounding error only. A little above, further steps add nodes of weight near eps^2, which change nothing.

    Args:
        operator: A. start: (n,), not zero; need not be normalised.
        steps: at least 1; at most n less the number of `locked` vectors are made.
        basis: ``"auto"`` (`plan_basis`), ``"memory"``, ``"host"``, ``"disk"``, ``"selective"`` or ``"none"``.
        folder: of the temporary file of a basis on disk.
        locked: (n, r) orthonormal eigenvectors; the recurrence runs in their orthogonal complement.
        keep_basis: hand out the basis (not with ``"selective"`` and ``"none"``, which have none).

    Raises:
        UsageError: bad arguments.
        KansciError: a product with NaN or infinite entries; no room for the basis.
    """
    check_basis(basis, operator.size)
    if steps < 1:
        raise UsageError(f"got {steps} Lanczos steps: expected at least 1, such as 100")
    if tuple(start.shape) != (operator.size,):
        raise UsageError(f"got a start of shape {tuple(start.shape)}: expected ({operator.size},)")
    count = 0 if locked is None else locked.shape[1]
    steps = min(steps, operator.size - count)
    kind = basis
    if kind == "auto":
        kind = plan_basis(operator.size, max(steps, 1), operator.dtype, operator.device, folder).kind
    if keep_basis and kind in ("selective", "none"):
        raise UsageError(f"got basis {kind!r} with keep_basis: expected one that is stored (memory, host or disk)")
    run = _Recurrence(operator, locked)
    if not run.begin(start) or steps == 0:
        return Tridiagonal(np.empty(0), np.empty(0), None, 0, kind)
    if kind == "selective":
        run.keeper = _Selective(run, run.first)
    elif kind != "none":
        store = BasisStore(kind, steps, operator.size, operator.dtype, operator.device, folder)
        run.keeper = _Full(store, kind == "memory", run)
    try:
        run.forward(steps)
    except BaseException:
        run.keeper.close()
        raise
    store = run.keeper.store if keep_basis else None
    if store is None:
        run.keeper.close()
    return Tridiagonal(np.array(run.alpha), np.array(run.beta), store, run.matvecs, kind)


def _row_blocks(size: int) -> list[slice]:
    return [slice(first, first + ROWS) for first in range(0, size, ROWS)]


def _wide_dot(vector: Tensor, w: Tensor) -> float:
    """<vector, w> in float64, of a float64 `w`, without a float64 copy of the whole vector."""
    return float(sum(vector[rows].to(torch.float64) @ w[rows] for rows in _row_blocks(len(w))))


def _subtract(w: Tensor, factor: float, vector: Tensor) -> None:
    """w -= factor * vector for a float64 `w`, likewise."""
    for rows in _row_blocks(len(w)):
        w[rows].sub_(vector[rows].to(torch.float64), alpha=factor)


def _divided(w: Tensor, norm: float, dtype: torch.dtype) -> Tensor:
    """w / norm, rounded to `dtype`, likewise."""
    out = torch.empty(len(w), dtype=dtype, device=w.device)
    for rows in _row_blocks(len(w)):
        out[rows] = w[rows].to(torch.float64) / norm
    return out


def project_out(w: Tensor, vectors: Tensor) -> None:
    """Take out of a float64 `w` (n,), in place and twice, its parts along orthonormal columns `vectors` (n, r)."""
    blocks = _row_blocks(len(w))  # no float64 copy of all the vectors
    for _ in range(2):
        coefficients = sum(vectors[rows].to(torch.float64).T @ w[rows] for rows in blocks)
        for rows in blocks:
            w[rows] -= vectors[rows].to(torch.float64) @ coefficients


class _Bare:
    """Keeps nothing."""

    store: BasisStore | None = None

    def add(self, vector: Tensor) -> Tensor:
        """A new basis vector; returns it, where it is kept."""
        return vector

    def remove(self, w: Tensor, vector: Tensor, previous: Tensor | None, step: int) -> float:
        """Make `w` orthogonal, in place, to what is kept, after `step` steps; returns the norm of what is left."""
        return float(torch.linalg.vector_norm(w))

    def grown(self, w: Tensor) -> bool:
        """Whether more is kept now, so that `w` must be made orthogonal again."""
        return False

    def close(self) -> None:
        """Give back what was kept."""


class _Full(_Bare):
    """All vectors before. With a float32 basis on a processor up to `TOGETHER` new ones are made orthogonal at a time.

    All but the last of them have been multiplied by then. That changes T by the square of what was lost (`WAIT_LOSS`),
    and saves reading the basis for each, which is all the time it takes.
    """

    def __init__(self, store: BasisStore, on_device: bool, run: _Recurrence) -> None:
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


class _Recurrence:
    def __init__(self, operator: SymmetricOperator, locked: Tensor | None) -> None:
        self.operator, self.keeper, self.matvecs, self.scale = operator, _Bare(), 0, 0.0
        self.first: Tensor | None = None
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.locked = None if locked is None or locked.shape[1] == 0 else locked.to(operator.device)

    def begin(self, start: Tensor) -> bool:
        """Make the first basis vector; False if nothing of `start` is left outside the locked vectors."""
        before = sum(float(start[rows].to(torch.float64).square().sum()) for rows in _row_blocks(len(start))) ** 0.5
        if not 0 < before < float("inf"):
            raise UsageError(f"got a start vector of norm {before}: expected a finite vector that is not zero")
        if self.locked is None:
            self.first = _divided(start.to(self.operator.device), before, self.operator.dtype)
            return True
        w = start.to(self.operator.device, torch.float64, copy=True)
        self.unlock(w)
        norm = float(torch.linalg.vector_norm(w))
        if norm <= 100 * torch.finfo(torch.float64).eps * before:
            return False
        self.first = _divided(w, norm, self.operator.dtype)
        return True

    def unlock(self, w: Tensor) -> None:
        """Take out of `w` its parts along the locked vectors."""
        if self.locked is not None:
            project_out(w, self.locked)

    def product(
        self, vector: Tensor, previous: Tensor | None, beta: float, alpha: float | None
    ) -> tuple[Tensor, float]:
        """A v - alpha v - beta u in float64, and alpha = v^T A v."""
        product = self.operator.matvec(vector)
        self.matvecs += 1
        w = torch.empty(len(product), dtype=torch.float64, device=product.device)
        along = 0.0
        for rows in _row_blocks(len(w)):  # in one pass over memory
            block = product[rows].to(torch.float64, copy=True)
            if previous is not None:
                block.sub_(previous[rows].to(torch.float64), alpha=beta)
            if alpha is None:
                along += float(vector[rows].to(torch.float64) @ block)
            w[rows] = block
        if alpha is None:
            alpha = along
            if not np.isfinite(alpha):
                raise KansciError(
                    f"a product with the matrix has NaN or infinite entries (step {len(self.alpha) + 1}): expected "
                    "finite ones: check that the loss and its first two derivatives are finite"
                )
        _subtract(w, alpha, vector)
        self.unlock(w)
        return w, alpha

    def forward(self, steps: int) -> None:
        """Up to `steps` steps."""
        eps = torch.finfo(self.operator.dtype).eps
        previous, beta, vector, self.first = None, 0.0, self.first, None  # only where it is stored
        room = self.operator.size - (0 if self.locked is None else self.locked.shape[1])
        for step in range(steps):
            vector = self.keeper.add(vector)
            w, alpha = self.product(vector, previous, beta, None)
            next_beta = self.keeper.remove(w, vector, previous, step)
            self.alpha.append(alpha)
            self.scale = max(self.scale, abs(alpha) + beta + next_beta)
            self.beta.append(next_beta)
            if step + 1 < steps and self.keeper.grown(w):
                self.beta[-1] = self.keeper.remove(w, vector, previous, step + 1)
            beta = self.beta[-1]
            if beta <= 10 * eps * self.scale or step + 1 == room:
                self.beta[-1] = 0.0
                return
            previous, vector = vector, w.div_(beta).to(self.operator.dtype)
            del w  # not beside the next product


class _Selective(_Bare):
    """Ritz vectors that have converged, each taken out of all later vectors."""

    def __init__(self, run: _Recurrence, first: Tensor) -> None:
        self.run, self.first = run, first
        self.vectors: list[tuple[int, Tensor]] = []  # step from which it is taken out, unit vector
        self.parts = np.zeros((0, 0))  # (steps, kept): the same vectors in the Lanczos basis

    def remove(self, w: Tensor, vector: Tensor, previous: Tensor | None, step: int) -> float:
        near = [vector] if previous is None else [vector, previous]
        for _ in range(2):
            for kept in [*near, *(ritz for since, ritz in self.vectors if since <= step)]:
                kept = kept.to(torch.float64)
                w -= kept * (kept @ w)
        return float(torch.linalg.vector_norm(w))

    def grown(self, w: Tensor) -> bool:
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
        previous, vector, beta = None, self.first, 0.0
        for step in range(len(parts)):
            out += vector.to(torch.float64)[:, None] * wanted[step]
            if step + 1 == len(parts):
                break
            w, _ = run.product(vector, previous, beta, run.alpha[step])
            self.remove(w, vector, previous, step)
            # The vectors kept after this very step were taken out once more, see `forward`.
            if any(since == step + 1 for since, _ in self.vectors):
                self.remove(w, vector, previous, step + 1)
            beta = run.beta[step]
            previous, vector = vector, w.div_(beta).to(run.operator.dtype)
        return out
