"""Spectral density, counts and masses of a symmetric operator by stochastic Lanczos quadrature (SLQ).

For a random vector z of independent signs, E[z^T f(A) z] = tr f(A) for every f; m Lanczos steps from z give the Gauss
rule of z^T f(A) z, exact for polynomials of degree up to 2 m - 1 (Bai, Fahey and Golub 1996; Ubaru, Chen and Saad 2017;
Ghorbani, Krishnan and Xiao 2019 for Hessians). Several probes give a mean and its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor

from ..._errors import KansciError, UsageError
from ._krylov.quadrature import gauss, mass_bounds
from ._probes import Estimate, check_counts, over_probes, run_probes
from ._sharing import Sharing
from .eigenvalues import top_eigenvalues
from .symmetric import SymmetricOperator

OUTLIER_RESIDUAL, OUTLIER_SIZE = 1e-7, 1e-4  # of a deflated eigenpair, relative to the largest |eigenvalue|
RESOLVED = 1e-6  # share of the largest |eigenvalue| below which an eigenvalue counts as zero


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of an n x n matrix as `probes` quadrature rules, and r eigenvalues known by themselves.

    Args:
        alpha, beta: Lanczos coefficients; beta's last entry used is the norm that leads on.
        lengths: steps made; fewer than `steps` if the Krylov space was exhausted.
        size: n. seed: of the probes.
        locked: deflated eigenvalues, counted exactly; the probes see the other n - r only.
        resolution: relative size of rounding errors, 10 eps of the operator's dtype.
        fingerprint: of the operator.
    """

    alpha: Float64[np.ndarray, "probes steps"]
    beta: Float64[np.ndarray, "probes steps"]
    lengths: Int64[np.ndarray, " probes"]
    size: int
    seed: int
    locked: Float64[np.ndarray, " r"]
    resolution: float
    fingerprint: str

    @cached_property
    def _rules(self) -> tuple[np.ndarray, np.ndarray]:
        rules = [gauss(*row) for row in zip(self.alpha, self.beta, self.lengths)]
        return np.array([nodes for nodes, _ in rules]), np.array([weights for _, weights in rules])

    @property
    def nodes(self) -> Float64[np.ndarray, "probes steps"]:
        """Ritz values, ascending in each row."""
        return self._rules[0]

    @property
    def weights(self) -> Float64[np.ndarray, "probes steps"]:
        """Weights >= 0, each row summing to 1; zero beyond `lengths`."""
        return self._rules[1]

    @property
    def probes(self) -> int:
        """Number of probes."""
        return len(self.alpha)

    @property
    def extremes(self) -> tuple[float, float]:
        """Smallest and largest Ritz value or deflated eigenvalue: inside the true extremes."""
        found = np.concatenate([self.locked, self.nodes[self.weights > 0]])
        return float(found.min()), float(found.max())

    def sums(self, *functions: Callable[[np.ndarray], np.ndarray]) -> Float64[np.ndarray, "probes functions"]:
        """Per probe, the sum of each elementwise function over all n eigenvalues."""
        rest = self.size - len(self.locked)
        columns = [f(self.locked).sum() + rest * (self.weights * f(self.nodes)).sum(1) for f in functions]
        return np.stack(columns, axis=1)

    def estimate(self, combine: Callable[..., float], *functions: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """``combine(*sums)``, with its standard error by leaving out one probe at a time (the jackknife)."""
        samples, count = self.sums(*functions), self.probes
        value = float(combine(*samples.mean(0)))
        if count == 1:
            return Estimate(value, math.nan, 1)
        varied = np.array([combine(*row) for row in (samples.sum(0) - samples) / (count - 1)])
        return Estimate(value, float(np.sqrt((count - 1) / count * ((varied - varied.mean()) ** 2).sum())), count)

    def sum_of(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A) = sum over all n eigenvalues of f, for a smooth elementwise f; for steps use `count_above`."""
        return Estimate.over(self.sums(function)[:, 0])

    def moment(self, p: int) -> Estimate:
        """tr(A^p) / n, for which the quadrature is exact if p < 2 steps; a UsageError for p below 0."""
        if p < 0:
            raise UsageError(f"got moment {p}: expected an integer of at least 0")
        return self.sum_of(lambda values: values**p).scaled(1 / self.size)

    def trace(self) -> Estimate:
        """tr A, from the same probes; `trace` (XTrace) needs fewer products for the same error."""
        return self.sum_of(lambda values: values)

    def density(
        self, at: ArrayLike, width: ArrayLike
    ) -> tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
        """Density of eigenvalues, convolved with a Gaussian: phi(t) = 1/n sum_i N(t; lambda_i, width^2).

        Args:
            at: (points,) where, in the unit of the eigenvalues.
            width: standard deviation of the Gaussian, one or (points,); a UsageError unless > 0.

        Returns:
            Mean and standard error.
        """
        at = np.asarray(at, dtype=np.float64)
        width = np.broadcast_to(np.asarray(width, dtype=np.float64), at.shape)
        if not np.all(width > 0):
            raise UsageError(f"got a width of {width.min():g}: expected a positive standard deviation")

        def bump(t: float, w: float) -> Callable[[np.ndarray], np.ndarray]:
            return lambda values: np.exp(-0.5 * ((t - values) / w) ** 2) / (w * math.sqrt(2 * math.pi))

        return over_probes(self.sums(*map(bump, at, width)) / self.size)

    def histogram(self, edges: ArrayLike) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, " bins"]]:
        """Share of the eigenvalues in each bin (edges[i], edges[i + 1]].

        Args:
            edges: (bins + 1,), infinite ones allowed; a UsageError unless they ascend. See `symlog_edges`.

        Returns:
            Share and standard error (with the quadrature's part, see `count_above`).
        """
        edges = np.asarray(edges, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
            raise UsageError("got bin edges that do not ascend: expected at least two, in ascending order")
        lower, upper = self._counts_below(edges)
        mean, error = over_probes(np.diff((lower + upper) / 2, axis=1) / self.size)
        half = (upper - lower).mean(0) / (2 * self.size)
        return mean, np.hypot(error, np.hypot(half[1:], half[:-1]))

    def count_above(self, threshold: float) -> Estimate:
        """How many of the n eigenvalues are > threshold.

        A quadrature knows a step function only within bounds: of each probe the middle between the Gauss-Radau bounds
        with a node at the threshold is taken, and `Estimate.lower` and `upper` are the means of the bounds. The
        standard error is that over the probes and, added in quadrature, (upper - lower) / 2, the largest error of the
        middle; amid a dense bulk that is rather too large, and `Estimate.sampling_error` is without it. An eigenvalue
        of high multiplicity at the threshold itself (0, of a singular Hessian) widens the bounds whatever the steps:
        pick a threshold beside it.
        """
        lower, upper = self._counts_below(np.array([threshold], dtype=np.float64))
        found = Estimate.over((lower[:, 0] + upper[:, 0]) / 2).below(self.size)
        bounds = self.size - float(upper.mean()), self.size - float(lower.mean())
        error = math.hypot(found.standard_error, (bounds[1] - bounds[0]) / 2)
        return Estimate(found.value, error, self.probes, *bounds)

    def mass_above(self, threshold: float) -> Estimate:
        """Share of the eigenvalues that are > threshold: `count_above` / n."""
        return self.count_above(threshold).scaled(1 / self.size)

    def negative_mass(self, threshold: float | None = None) -> Estimate:
        """Share of the eigenvalues that are <= -threshold; default threshold: 1e-6 of the largest |eigenvalue|.

        Zero is no default: many eigenvalues of a network's Hessian are zero up to rounding.
        """
        if threshold is None:
            threshold = RESOLVED * max(map(abs, self.extremes))
            if threshold == 0:
                return Estimate(0.0, 0.0 if self.probes > 1 else math.nan, self.probes)
        return self.mass_above(-threshold).below(1)

    def negative_share(self) -> Estimate:
        """sum of |lambda| over lambda < 0, as a share of that over all eigenvalues; 0 for the zero matrix."""
        return self.estimate(share, lambda values: np.maximum(-values, 0), np.abs)

    def _counts_below(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per probe, bounds on the number of eigenvalues <= each threshold: two of (probes, thresholds)."""
        rows = zip(self.alpha, self.beta, self.lengths)
        bounds = np.array([mass_bounds(*row, thresholds, self.resolution) for row in rows])
        slack = self.resolution * max(np.abs(self.locked), default=0.0)
        known = (self.locked[:, None] <= thresholds + slack).sum(0)
        lower, upper = known + (self.size - len(self.locked)) * bounds.transpose(1, 0, 2)
        return lower, upper

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields as arrays without objects, for an npz file."""
        return {name: np.asarray(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Spectrum:
        """The inverse of `to_arrays`; other names are ignored. A KansciError if an array is missing."""
        missing = [name for name in cls.__dataclass_fields__ if name not in arrays]
        if missing:
            raise KansciError(f"not a saved spectrum: {', '.join(missing)} missing: expected the arrays of to_arrays()")
        found: dict[str, Any] = {name: np.asarray(arrays[name])[()] for name in cls.__dataclass_fields__}
        for name, kind in {"size": int, "seed": int, "resolution": float, "fingerprint": str}.items():
            found[name] = kind(found[name])
        return cls(**found)


def share(part: float, whole: float) -> float:
    """part / whole; 0 of nothing."""
    return part / whole if whole > 0 else 0.0


def spectral_density(
    operator: SymmetricOperator,
    *,
    steps: int = 100,
    probes: int = 10,
    seed: int = 0,
    basis: str = "auto",
    folder: Path | None = None,
    deflate: int = 10,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spectrum:
    """Estimate the spectrum by stochastic Lanczos quadrature: steps x probes products with the matrix.

    Probe i depends on (seed, i) alone: results are the same whether probes are run at once, split over the processes of
    torchrun, or resumed, and more probes extend a saved run.

    Args:
        operator: A, n x n.
        steps, probes: Lanczos steps per probe; random vectors of signs.
        basis, folder: where the Lanczos basis goes, see `lanczos`.
        deflate: up to so many outlying eigenpairs at either end are found first, by one more Lanczos run, counted
            exactly, and taken out of the probes, whose means and errors a few outliers would make skew. Used are those
            that have converged after `steps` steps to a residual of 1e-7 of the largest |eigenvalue| (50 eps if that
            is more) and are at least 1e-4 of it. The probes' norms in the complement are normalised, a bias of less
            than 2 r / (n - r)^2 relatively. Costs steps + 2 deflate products and r <= 2 deflate vectors of memory; 0
            for plain quadrature.
        checkpoint: npz file (no pickles), written whole after each probe; resumed from if fingerprint, size, steps,
            seed and deflate agree. Deflated eigenpairs are found anew.
        progress: called as ``progress(done, probes)`` after each round of probes.

    Raises:
        UsageError: bad arguments, or a checkpoint of another operator or settings.
        KansciError: no room for the basis, an unreadable checkpoint, or products that are not finite.
    """
    check_counts(seed, steps=steps, probes=probes)
    if deflate < 0:
        raise UsageError(f"got deflate = {deflate}: expected at least 0")
    values, locked = _outliers(operator, deflate, steps, seed, basis, folder)
    fingerprint = operator.fingerprint
    alpha, beta, lengths = run_probes(
        operator, steps=steps, probes=probes, seed=seed, deflate=deflate, basis=basis, folder=folder, locked=locked,
        checkpoint=checkpoint, progress=progress, fingerprint=fingerprint,
    )  # fmt: skip
    resolution = 10 * torch.finfo(operator.dtype).eps
    return Spectrum(alpha, beta, lengths, operator.size, seed, values, resolution, fingerprint)


def _outliers(
    operator: SymmetricOperator, count: int, steps: int, seed: int, basis: str, folder: Path | None
) -> tuple[np.ndarray, Tensor | None]:
    """Up to `count` outlying eigenvalues at either end (r,), and their eigenvectors (n, r)."""
    if count == 0:
        return np.empty(0), None
    pairs = top_eigenvalues(
        operator, count, tol=OUTLIER_RESIDUAL, max_steps=steps, seed=seed, verify=False, basis=basis, folder=folder
    )
    assert pairs.vectors is not None  # they were asked for
    sizes = np.abs(pairs.values)
    usable = pairs.converged & (sizes >= OUTLIER_SIZE * sizes.max()) & (sizes > 0)
    chosen = np.flatnonzero(usable)
    vectors = pairs.vectors[:, torch.from_numpy(chosen).to(pairs.vectors.device)]
    return Sharing(operator).agreed(pairs.values[chosen], vectors)


def count_above(operator: SymmetricOperator, threshold: ArrayLike, **settings: Any) -> Estimate | list[Estimate]:
    """Estimated number of eigenvalues > threshold, or one for each of several thresholds, from the same probes.

    `settings` are those of `spectral_density`. See `Spectrum.count_above` for what the bounds mean.
    """
    spectrum = spectral_density(operator, **settings)
    counts = [spectrum.count_above(float(one)) for one in np.ravel(threshold)]
    return counts[0] if np.ndim(threshold) == 0 else counts


def symlog_edges(low: float, high: float, smallest: float, per_decade: int = 4) -> np.ndarray:
    """Bin edges that are logarithmic on both sides of zero and cover [low, high].

    One bin (-smallest, smallest] lies in the middle; outwards, `per_decade` bins a decade until beyond low and high.
    A UsageError if smallest <= 0, low > high, or per_decade < 1.
    """
    if not (smallest > 0 and low <= high and per_decade >= 1 and math.isfinite(high - low)):
        raise UsageError(
            f"got symlog edges for [{low:g}, {high:g}] from {smallest:g}: expected low <= high, smallest > 0"
        )

    def side(extent: float) -> np.ndarray:
        count = math.floor(per_decade * math.log10(extent / smallest)) + 1 if extent >= smallest else 0
        return smallest * 10 ** (np.arange(count + 1) / per_decade)

    return np.concatenate([-side(-low)[::-1], side(high)])
