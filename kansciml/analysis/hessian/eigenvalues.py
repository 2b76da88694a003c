"""Extreme eigenpairs by thick-restart Lanczos (Wu and Simon 2000) with full reorthogonalisation, twice, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from ..._errors import KansciError, UsageError, unknown_name
from ._krylov.basis_store import BasisStore, check_basis, plan_basis
from ._krylov.orthogonality import project_out
from .symmetric import SymmetricOperator, not_finite

ENDS = ("both", "largest", "smallest")


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenpairs, ordered from the largest eigenvalue down.

    Args:
        values: Rayleigh quotients y^T A y, descending; with both ends the k largest and then the k smallest; fewer
            where an eigenpair serves both ends.
        residuals: true norms |A y - value y| for |y| = 1: an eigenvalue of A lies within that distance.
        vectors: the y, in the operator's dtype; None if not asked for.
        converged: whether the residual is at most tol x the largest |value|.
        k, which: how many were asked for at an end, and at which.
        matvecs: products with A that were needed.
        verified: a search in the orthogonal complement found no further eigenvalue beyond the k-th.
    """

    values: Float64[np.ndarray, " m"]
    residuals: Float64[np.ndarray, " m"]
    vectors: Float[Tensor, "n m"] | None
    converged: Bool[np.ndarray, " m"]
    k: int
    matvecs: int
    which: str
    verified: bool

    @property
    def largest(self) -> Float64[np.ndarray, " found"]:
        """min(k, n) from the largest down; empty if only the smallest were asked for."""
        return self.values[: 0 if self.which == "smallest" else self.k]

    @property
    def smallest(self) -> Float64[np.ndarray, " found"]:
        """min(k, n) from the smallest up; empty if only the largest were asked for."""
        return self.values[::-1][: 0 if self.which == "largest" else self.k]


def top_eigenvalues(
    operator: SymmetricOperator,
    k: int = 1,
    *,
    which: str = "both",
    tol: float = 1e-10,
    max_steps: int | None = None,
    seed: int = 0,
    verify: bool = True,
    vectors: bool = True,
    max_basis: int | None = None,
    basis: str = "auto",
    folder: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Eigenpairs:
    """The k largest and k smallest eigenvalues with eigenvectors, both ends from one Krylov space.

    One starting vector finds one copy of each distinct eigenvalue. What is found is therefore locked, and the search
    begun anew from a random vector in the orthogonal complement, until nothing beyond the k-th value is left there: so
    copies come out with their multiplicity, up to clusters tighter than `tol`.

    Args:
        operator: A, n x n.
        k: eigenpairs per end; where k > n, n.
        which: ``"both"``, ``"largest"`` or ``"smallest"``.
        tol: residual allowed, relative to the largest |eigenvalue|; at least 50 eps of the operator's dtype is used.
            The eigenvalue's error is then about residual^2 / gap to the next.
        max_steps: products with A at most, residuals aside; default 1000 + 50 per eigenpair. When they are spent the
            best so far is returned, with `converged` telling.
        seed: of the random vectors.
        verify: search the complement for copies; without, half to two thirds of the products.
        vectors: return the eigenvectors.
        max_basis: vectors kept before a restart; default max(100, 3 m + 40) for m eigenpairs, less if memory is short.
        basis, folder: where they are kept: ``"auto"``, ``"memory"``, ``"host"`` or ``"disk"`` (others mean auto).
        progress: called as ``progress(products, worst relative residual estimate)`` now and then.

    Raises:
        UsageError: bad arguments.
        KansciError: products that are not finite; no room for the basis.
    """
    check_basis(basis, operator.size)
    if which not in ENDS:
        raise unknown_name("end of the spectrum", which, ENDS)
    if k < 1 or not tol > 0 or seed < 0:
        raise UsageError(f"got k = {k}, tol = {tol}, seed = {seed}: expected k >= 1, tol > 0, seed >= 0")
    k = min(k, operator.size)
    wanted = min(operator.size, 2 * k if which == "both" else k)
    if max_basis is not None and max_basis < wanted + 2 and max_basis < operator.size:
        raise UsageError(f"got max_basis = {max_basis}: expected at least {wanted + 2} for {wanted} eigenpairs")
    kind, rows = _room(operator, wanted, max_basis, basis, folder)
    tol = max(tol, 50 * torch.finfo(operator.dtype).eps)
    budget = 1000 + 50 * wanted if max_steps is None else max_steps
    with BasisStore(kind, rows, operator.size, operator.dtype, operator.device, folder) as store:
        search = _Search(operator, store, tol, budget, seed, progress)
        verified = search.run(k if which != "smallest" else 0, k if which != "largest" else 0, verify)
    return search.result(k, which, vectors, verified)


def _room(
    operator: SymmetricOperator, wanted: int, max_basis: int | None, basis: str, folder: Path | None
) -> tuple[str, int]:
    """Kind of the basis store, and its rows: rather restart more often than go to disk."""
    rows = min(operator.size, max_basis or max(100, 3 * wanted + 40))
    if basis in ("memory", "host", "disk"):
        return basis, rows
    fewest = min(rows, 2 * wanted + 10)
    for count in (rows, fewest):
        plan = plan_basis(operator.size, count, operator.dtype, operator.device, folder)
        if plan.kind in ("memory", "host"):
            return plan.kind, count
    if plan.kind == "selective":
        raise KansciError(f"no room for {fewest} vectors ({plan.text()}): free some, or name a folder with more space")
    return plan.kind, fewest


class _Search:
    """What has been found and locked so far, and how to find more."""

    def __init__(
        self,
        operator: SymmetricOperator,
        store: BasisStore,
        tol: float,
        budget: int,
        seed: int,
        progress: Callable[[int, float], None] | None,
    ) -> None:
        self.operator, self.store, self.tol, self.budget, self.seed = operator, store, tol, budget, seed
        self.progress, self.matvecs, self.scale = progress, 0, 0.0
        self.values, self.residuals = np.empty(0), np.empty(0)
        self.vectors = torch.empty((operator.size, 0), dtype=operator.dtype, device=operator.device)

    def run(self, high: int, low: int, verify: bool) -> bool:
        """Lock eigenpairs until the ends asked for are complete, and verified; whether they are."""
        for start in range(2 * self.operator.size + 1):
            missing = min(max(high, low), self.operator.size) - len(self.values)
            if missing <= 0 and not verify:
                return False
            if len(self.values) == self.operator.size:
                return True
            ordered = np.sort(self.values)
            # In the complement only what lies beyond the k-th value counts; before there are k, everything does.
            top, bottom = (-np.inf if high else np.inf), (np.inf if low else -np.inf)
            if 0 < high <= len(ordered):
                top = ordered[-high]
            if 0 < low <= len(ordered):
                bottom = ordered[low - 1]
            most = max(high, low) if start == 0 else max(missing, 1)
            if not self._round(start, min(high, most), min(low, most), top, bottom):
                return self.budget > self.matvecs
            if self.matvecs >= self.budget:
                return False
        return False

    def _start(self, index: int) -> Tensor | None:
        for attempt in range(3):
            rng = np.random.default_rng([self.seed, index, 1, attempt])  # three and more numbers: apart from the probes
            w = torch.from_numpy(rng.standard_normal(self.operator.size)).to(self.operator.device)
            before = float(torch.linalg.vector_norm(w))
            project_out(w, self.vectors)
            norm = float(torch.linalg.vector_norm(w))
            if norm > 1e-8 * before:
                return (w / norm).to(self.operator.dtype)
        return None

    def _round(self, index: int, high: int, low: int, top: float, bottom: float) -> bool:
        """One Krylov space in the complement of what is locked; locks what lies above `top` or below `bottom`.

        Returns whether anything was locked.
        """
        vector, rows = self._start(index), self.store.rows
        if vector is None:
            return False
        room = self.operator.size - len(self.values)
        projected, kept = np.zeros((rows, rows)), 0
        while True:
            for size in range(kept + 1, min(rows, room) + 1):
                self.store.put(size - 1, vector)
                w = self._product(vector)
                coefficients = self.store.remove_from(w, size)
                coefficients += self.store.remove_from(w, size)
                project_out(w, self.vectors)
                projected[size - 1, :size] = projected[:size, size - 1] = coefficients.cpu().numpy()
                beta = float(torch.linalg.vector_norm(w))
                last = size in (rows, room) or self.matvecs >= self.budget
                if size % 5 and not last and beta > 1e-8 * self.scale:
                    vector = (w / beta).to(self.operator.dtype)
                    continue
                ritz, parts = np.linalg.eigh(projected[:size, :size])
                self.scale = max(self.scale, float(np.abs(ritz).max()))
                bounds = beta * np.abs(parts[-1])
                invariant = size == room or beta <= 10 * torch.finfo(self.operator.dtype).eps * self.scale
                ends = self._ends(size, high, low)
                if self.progress is not None:
                    self.progress(self.matvecs, float(bounds[ends].max() / self.scale) if self.scale else 0.0)
                settled = size >= min(high + low, room) and self._settled(ritz, bounds, high, low, top, bottom)
                if invariant or settled or self.matvecs >= self.budget:
                    # Without a k-th value at an end yet, all found there is wanted.
                    slack = self.tol * self.scale
                    new = [i for i in ends if ritz[i] > top + slack or ritz[i] < bottom - slack]
                    self._lock(parts[:, new])
                    return bool(new)
                vector = (w / beta).to(self.operator.dtype)
            kept = min(rows - 2, max(high + low + 2, (rows + high + low) // 3))
            keep = self._keep(size, kept, high, low)
            self.store.rotate(torch.from_numpy(parts[:, keep]).to(self.operator.device))
            projected[:] = 0
            projected[range(kept), range(kept)] = ritz[keep]

    def _product(self, vector: Tensor) -> Tensor:
        w = self.operator.matvec(vector).to(torch.float64, copy=True)
        self.matvecs += 1
        if not torch.isfinite(w).all():
            raise not_finite(self.matvecs)
        project_out(w, self.vectors)
        return w

    @staticmethod
    def _ends(size: int, high: int, low: int) -> list[int]:
        return sorted({*range(min(low, size)), *range(max(size - high, 0), size)})

    def _keep(self, size: int, kept: int, high: int, low: int) -> list[int]:
        """Indices of the Ritz values kept at a restart: more at an end of which more are wanted."""
        above = round(kept * high / (high + low))
        return self._ends(size, above, kept - above)

    def _settled(self, ritz, bounds, high: int, low: int, top: float, bottom: float) -> bool:
        def done(value: float, bound: float, distance: float) -> bool:
            # A value that stays well inside the k-th need not converge further.
            return bound <= max(0.5 * self.tol * self.scale, 0.1 * distance if np.isfinite(distance) else 0)

        up = all(done(ritz[-i], bounds[-i], top - ritz[-i]) for i in range(1, min(high, len(ritz)) + 1))
        return up and all(done(ritz[i], bounds[i], ritz[i] - bottom) for i in range(min(low, len(ritz))))

    def _lock(self, parts: np.ndarray) -> None:
        """Form Ritz vectors, make them orthonormal, and measure their true residuals."""
        if parts.shape[1] == 0:
            return
        found = self.store.combine(torch.from_numpy(np.ascontiguousarray(parts)).to(self.operator.device))
        for column in found.T:
            project_out(column, self.vectors)
            y = (column / torch.linalg.vector_norm(column)).to(self.operator.dtype)
            image = self.operator.matvec(y).to(torch.float64)
            wide = y.to(torch.float64)
            value = float(wide @ image) / float(wide @ wide)
            residual = float(torch.linalg.vector_norm(image - value * wide) / torch.linalg.vector_norm(wide))
            self.values = np.append(self.values, value)
            self.residuals = np.append(self.residuals, residual)
            self.vectors = torch.cat([self.vectors, y[:, None]], dim=1)
        self.scale = max(self.scale, float(np.abs(self.values).max()))

    def result(self, k: int, which: str, vectors: bool, verified: bool) -> Eigenpairs:
        order = np.argsort(-self.values, kind="stable")
        above = order[: 0 if which == "smallest" else k]
        below = order[len(order) - (0 if which == "largest" else min(k, len(order))) :]
        chosen = [*above, *(i for i in below if i not in above)]
        residuals = self.residuals[chosen]
        kept = self.vectors[:, torch.tensor(chosen, dtype=torch.int64, device=self.vectors.device)] if vectors else None
        converged = residuals <= self.tol * self.scale
        products = self.matvecs + len(self.values)
        return Eigenpairs(self.values[chosen], residuals, kept, converged, k, products, which, verified)
