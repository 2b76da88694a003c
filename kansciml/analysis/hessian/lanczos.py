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

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..._errors import UsageError
from ._krylov.basis_store import BasisStore, check_basis, plan_basis
from ._krylov.orthogonality import Bare, Full, Selective, eigen, project_out, row_blocks
from .symmetric import SymmetricOperator, not_finite


@dataclass(frozen=True)
class Tridiagonal:
    """What m steps of Lanczos found.

    Args:
        alpha: diagonal of T.
        beta: its off-diagonal, and last the norm that leads out of the space: zero if the space is invariant, and T's
            eigenvalues then eigenvalues of A.
        basis: the m vectors, if asked for; the caller closes it.
        matvecs: products with A that were needed.
        kind: how orthogonality was kept.
    """

    alpha: Float64[np.ndarray, " m"]
    beta: Float64[np.ndarray, " m"]
    basis: BasisStore | None
    matvecs: int
    kind: str

    @property
    def exhausted(self) -> bool:
        """The space is invariant: no further step was possible."""
        return len(self.beta) == 0 or self.beta[-1] == 0

    def ritz(self) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, "m m"]]:
        """Eigenvalues, ascending, and eigenvectors of T."""
        return eigen(self.alpha, self.beta[:-1])


def lanczos(
    operator: SymmetricOperator,
    start: Float[Tensor, " n"],
    steps: int,
    *,
    basis: str = "auto",
    folder: Path | None = None,
    locked: Float[Tensor, "n r"] | None = None,
    keep_basis: bool = False,
) -> Tridiagonal:
    """Run up to `steps` steps from `start`; fewer if the Krylov space is exhausted before.

    Alpha, beta and their dot products are float64 whatever the operator's dtype; the basis is kept in the operator's.
    On a processor a float32 basis is made orthogonal in float32, to some 1e-6, and in float64 where that is not enough.
    The recurrence stops where beta is at most 10 eps (of the operator's dtype) of the largest |alpha| + beta so far:
    beyond is rounding error only. A little above, further steps add nodes of weight near eps^2, which change nothing.

    Args:
        operator: A, n x n.
        start: not zero; need not be normalised.
        steps: at least 1; at most n less the number of `locked` vectors are made.
        basis: ``"auto"`` (`plan_basis`), ``"memory"``, ``"host"``, ``"disk"``, ``"selective"`` or ``"none"``.
        folder: of the temporary file of a basis on disk.
        locked: orthonormal eigenvectors; the recurrence runs in their orthogonal complement.
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
    run = Recurrence(operator, locked)
    steps = min(steps, run.room)
    kind = basis
    if kind == "auto":
        kind = plan_basis(operator.size, max(steps, 1), operator.dtype, operator.device, folder).kind
    if keep_basis and kind in ("selective", "none"):
        raise UsageError(f"got basis {kind!r} with keep_basis: expected one that is stored (memory, host or disk)")
    if steps == 0:
        return Tridiagonal(np.empty(0), np.empty(0), None, 0, kind)
    if kind == "selective":
        run.keeper = Selective(run)
    elif kind != "none":
        store = BasisStore(kind, steps, operator.size, operator.dtype, operator.device, folder)
        run.keeper = Full(store, kind == "memory", run)
    try:
        run.forward(start, steps)
    except BaseException:
        run.keeper.close()
        raise
    kept = run.keeper.store if keep_basis and run.alpha else None
    if kept is None:
        run.keeper.close()
    return Tridiagonal(np.array(run.alpha), np.array(run.beta), kept, run.matvecs, kind)


class Recurrence:
    """The three-term recurrence with one operator, and what it has found so far."""

    def __init__(self, operator: SymmetricOperator, locked: Tensor | None) -> None:
        self.operator, self.matvecs, self.scale = operator, 0, 0.0
        self.keeper = Bare()
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.locked = None if locked is None or locked.shape[1] == 0 else locked.to(operator.device)

    @property
    def room(self) -> int:
        """Dimensions beside the locked vectors."""
        return self.operator.size - (0 if self.locked is None else self.locked.shape[1])

    def _first(self, start: Tensor) -> Tensor | None:
        """The first basis vector; None if nothing of `start` is left outside the locked vectors."""
        before = sum(float(start[rows].to(torch.float64).square().sum()) for rows in row_blocks(len(start))) ** 0.5
        if not 0 < before < float("inf"):
            raise UsageError(f"got a start vector of norm {before}: expected a finite vector that is not zero")
        w, norm = start.to(self.operator.device), before
        if self.locked is not None:
            w = w.to(torch.float64, copy=True)
            project_out(w, self.locked)
            norm = float(torch.linalg.vector_norm(w))
            if norm <= 100 * torch.finfo(torch.float64).eps * before:
                return None
        first = torch.empty(len(w), dtype=self.operator.dtype, device=w.device)
        for rows in row_blocks(len(w)):
            first[rows] = w[rows].to(torch.float64) / norm
        return first

    def product(
        self, vector: Tensor, previous: Tensor | None, beta: float, alpha: float | None
    ) -> tuple[Tensor, float]:
        """A v - alpha v - beta u in float64, and alpha = v^T A v."""
        product = self.operator.matvec(vector)
        self.matvecs += 1
        w = torch.empty(len(product), dtype=torch.float64, device=product.device)
        along = 0.0
        for rows in row_blocks(len(w)):  # in one pass over memory
            block = product[rows].to(torch.float64, copy=True)
            if previous is not None:
                block.sub_(previous[rows].to(torch.float64), alpha=beta)
            if alpha is None:
                along += float(vector[rows].to(torch.float64) @ block)
            w[rows] = block
        if alpha is None:
            alpha = along
            if not np.isfinite(alpha):
                raise not_finite(len(self.alpha) + 1)
        for rows in row_blocks(len(w)):
            w[rows].sub_(vector[rows].to(torch.float64), alpha=alpha)
        if self.locked is not None:
            project_out(w, self.locked)
        return w, alpha

    def forward(self, start: Tensor, steps: int) -> None:
        """Up to `steps` steps; none if nothing of `start` is left outside the locked vectors."""
        eps, room = torch.finfo(self.operator.dtype).eps, self.room
        previous, beta, vector = None, 0.0, self._first(start)
        if vector is None:
            return
        for step in range(steps):
            vector = self.keeper.add(vector)
            w, alpha = self.product(vector, previous, beta, None)
            next_beta = self.keeper.remove(w, vector, previous, step)
            self.alpha.append(alpha)
            self.scale = max(self.scale, abs(alpha) + beta + next_beta)
            self.beta.append(next_beta)
            if step + 1 < steps and self.keeper.grown():
                self.beta[-1] = self.keeper.remove(w, vector, previous, step + 1)
            beta = self.beta[-1]
            if beta <= 10 * eps * self.scale or step + 1 == room:
                self.beta[-1] = 0.0
                return
            previous, vector = vector, w.div_(beta).to(self.operator.dtype)
            del w  # not beside the next product
