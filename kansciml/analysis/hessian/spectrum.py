"""Spectral density, counts and masses of a symmetric operator by stochastic Lanczos quadrature (SLQ).

For a random vector z of independent signs, E[z^T f(A) z] = tr f(A) for every f; m Lanczos steps from z give the Gauss
rule of z^T f(A) z, exact for polynomials of degree up to 2 m - 1 (Bai, Fahey and Golub 1996; Ubaru, Chen and Saad 2017;
Ghorbani, Krishnan and Xiao 2019 for Hessians). Several probes give a mean and its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..._errors import KansciError, UsageError
from ._probes import Estimate, Settings, agreed, check_counts, over_probes, run_probes
from ._quadrature import gauss, mass_bounds
from .eigenvalues import top_eigenvalues
from .symmetric import SymmetricOperator

OUTLIER_RESIDUAL, OUTLIER_SIZE = 1e-7, 1e-4  # of a deflated eigenpair, relative to the largest |eigenvalue|
RESOLVED = 1e-6  # share of the largest |eigenvalue| below which an eigenvalue counts as zero


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of an n x n matrix as `probes` quadrature rules, and r eigenvalues known by themselves.

    Args:
        alpha, beta: (probes, steps) Lanczos coefficients; beta's last entry used is the norm that leads on.
        lengths: (probes,) steps made; fewer than `steps` if the Krylov space was exhausted.
        size: n. seed: of the probes.
        locked: (r,) deflated eigenvalues, counted exactly; the probes see the other n - r only.
        resolution: relative size of rounding errors, 10 eps of the operator's dtype.
        fingerprint: of the operator.
    """

    alpha: np.ndarray
    beta: np.ndarray
    lengths: np.ndarray
    size: int
    seed: int
    locked: np.ndarray
    resolution: float
    fingerprint: str

    @cached_property
    def _rules(self) -> tuple[np.ndarray, np.ndarray]:
        rules = [gauss(*row) for row in zip(self.alpha, self.beta, self.lengths)]
        return np.array([nodes for nodes, _ in rules]), np.array([weights for _, weights in rules])

    @property
    def nodes(self) -> np.ndarray:
        """(probes, steps) Ritz values, ascending in each row."""
        return self._rules[0]

    @property
    def weights(self) -> np.ndarray:
        """(probes, steps) weights >= 0, each row summing to 1; zero beyond `lengths`."""
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

    def sum_of(self, function: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """tr f(A) = sum over all n eigenvalues of f, for a smooth elementwise f; for steps use `count_above`."""
        samples = self._sums(function(self.nodes)[..., None], function(self.locked)[..., None])[:, 0]
        mean, error = over_probes(samples)
        return Estimate(float(mean), float(error), self.probes)

    def moment(self, p: int) -> Estimate:
        """tr(A^p) / n: the quadrature is exact for p < 2 steps.

        Raises:
            UsageError: p below 0.
        """
        if p < 0:
            raise UsageError(f"got moment {p}: expected an integer of at least 0")
        return _scaled(self.sum_of(lambda values: values**p), 1 / self.size)

    def trace(self) -> Estimate:
        """tr A, from the same probes; `trace` (XTrace) needs fewer products for the same error."""
        return self.sum_of(lambda values: values)

    def density(self, at: Sequence[float], width: float | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Density of eigenvalues, convolved with a Gaussian: phi(t) = 1/n sum_i N(t; lambda_i, width^2).

        Args:
            at: (points,) where; the unit is that of the eigenvalues, and the density integrates to 1.
            width: standard deviation > 0 of the Gaussian, one or (points,).

        Returns:
            Mean and standard error, each (points,).

        Raises:
            UsageError: a width that is not positive.
        """
        at = np.asarray(at, dtype=np.float64)
        width = np.broadcast_to(np.asarray(width, dtype=np.float64), at.shape)
        if not np.all(width > 0):
            raise UsageError(f"got a width of {width.min():g}: expected a positive standard deviation")

        def bumps(values: np.ndarray) -> np.ndarray:
            return np.exp(-0.5 * ((at - values[..., None]) / width) ** 2) / (width * math.sqrt(2 * math.pi))

        columns = [self._sums(*map(bumps, (nodes[None], self.locked)), row) for row, nodes in enumerate(self.nodes)]
        return over_probes(np.concatenate(columns) / self.size)

    def histogram(self, edges: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Share of the eigenvalues in each bin (edges[i], edges[i + 1]].

        Args:
            edges: (bins + 1,) ascending, infinite ones allowed; see `symlog_edges`.

        Returns:
            Share and standard error (with the quadrature's part, see `count_above`), each (bins,); with -inf and inf as
            outer edges the shares sum to 1.

        Raises:
            UsageError: edges that do not ascend.
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
        middle: where steps are too few to resolve the threshold it says so. Near many equal eigenvalues that part is
        reached; amid a dense bulk it is rather too large, and `Estimate.sampling_error` is without it. An
        eigenvalue of high multiplicity at the threshold itself (0, of a singular Hessian) widens the bounds whatever
        the steps: pick a threshold beside it.
        """
        lower, upper = self._counts_below(np.array([threshold], dtype=np.float64))
        mean, error = over_probes((lower[:, 0] + upper[:, 0]) / 2)
        bounds = self.size - upper.mean(), self.size - lower.mean()
        error = math.hypot(error, (bounds[1] - bounds[0]) / 2)
        return Estimate(self.size - float(mean), float(error), self.probes, *map(float, bounds))

    def mass_above(self, threshold: float) -> Estimate:
        """Share of the eigenvalues that are > threshold: `count_above` / n."""
        return _scaled(self.count_above(threshold), 1 / self.size)

    def negative_mass(self, threshold: float | None = None) -> Estimate:
        """Share of the eigenvalues that are <= -threshold; default threshold: 1e-6 of the largest |eigenvalue|.

        Zero is no default: many eigenvalues of a network's Hessian are zero up to rounding.
        """
        if threshold is None:
            threshold = RESOLVED * max(map(abs, self.extremes))
            if threshold == 0:
                return Estimate(0.0, 0.0 if self.probes > 1 else math.nan, self.probes)
        above = self.mass_above(-threshold)
        return Estimate(1 - above.value, above.standard_error, above.probes, 1 - above.upper, 1 - above.lower)

    def negative_share(self) -> Estimate:
        """sum of |lambda| over lambda < 0, as a share of that over all eigenvalues; 0 for the zero matrix.

        A ratio of two means: the standard error is that of its linearisation.
        """
        zero = np.zeros(1)
        parts = [
            self._sums(f(self.nodes)[..., None], f(self.locked)[..., None])[:, 0]
            for f in (lambda values: np.maximum(-values, zero), np.abs)
        ]
        whole = parts[1].mean()
        ratio = parts[0].mean() / whole if whole > 0 else 0.0
        _, error = over_probes((parts[0] - ratio * parts[1]) / (whole if whole > 0 else 1.0))
        return Estimate(float(ratio), float(error), self.probes)

    def _sums(self, at_nodes: np.ndarray, at_locked: np.ndarray, row: int | None = None) -> np.ndarray:
        """Per probe, the sum over n eigenvalues: (probes, steps, m) and (r, m) -> (probes, m)."""
        weights = self.weights if row is None else self.weights[row : row + 1]
        return at_locked.sum(0) + (self.size - len(self.locked)) * np.einsum("ps,psm->pm", weights, at_nodes)

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
        """The inverse of `to_arrays`; other names in `arrays` are ignored.

        Raises:
            KansciError: an array is missing.
        """
        missing = [name for name in cls.__dataclass_fields__ if name not in arrays]
        if missing:
            raise KansciError(f"not a saved spectrum: {', '.join(missing)} missing: expected the arrays of to_arrays()")
        values = {name: np.asarray(arrays[name]) for name in cls.__dataclass_fields__}
        scalars = {"size": int, "seed": int, "resolution": float, "fingerprint": str}
        return cls(**{name: scalars.get(name, np.asarray)(value[()]) for name, value in values.items()})


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

    Deterministic: probe i depends on (seed, i) alone, so that results are the same whether probes are run at once,
    split over the processes of torchrun, or resumed, and more probes extend a saved run.

    Args:
        operator: A, n x n. steps: Lanczos steps per probe. probes: random vectors of signs.
        basis, folder: where the Lanczos basis goes, see `lanczos`.
        deflate: up to so many outlying eigenpairs at either end are found first, by one more Lanczos run, counted
            exactly, and taken out of the probes. A few outliers otherwise dominate the variance, and the few probes
            that happen to meet them make means and standard errors skew. Used are those that have converged after
            `steps` steps to a residual of 1e-7 of the largest |eigenvalue| (50 eps if that is more) and are at least
            1e-4 of it; the error made is of the order of the squared residual. The probes' norms in the complement are
            normalised, a bias of less than 2 r / (n - r)^2 relatively. Costs steps + 2 deflate products and r <= 2
            deflate vectors of memory; 0 for plain quadrature.
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
    settings = Settings(operator.fingerprint, operator.size, steps, seed, deflate)
    alpha, beta, lengths = run_probes(
        operator, settings, probes, basis=basis, folder=folder, locked=locked, checkpoint=checkpoint, progress=progress
    )
    resolution = 10 * torch.finfo(operator.dtype).eps
    return Spectrum(alpha, beta, lengths, operator.size, seed, values, resolution, settings.fingerprint)


def _outliers(
    operator: SymmetricOperator, count: int, steps: int, seed: int, basis: str, folder: Path | None
) -> tuple[np.ndarray, torch.Tensor | None]:
    """Up to `count` outlying eigenvalues at either end (r,), and their eigenvectors (n, r)."""
    if count == 0:
        return np.empty(0), None
    pairs = top_eigenvalues(
        operator, count, tol=OUTLIER_RESIDUAL, max_steps=steps, seed=seed, verify=False, basis=basis, folder=folder
    )
    sizes = np.abs(pairs.values)
    usable = pairs.converged & (sizes >= OUTLIER_SIZE * sizes.max()) & (sizes > 0)
    chosen = np.flatnonzero(usable)
    vectors = pairs.vectors[:, torch.from_numpy(chosen).to(pairs.vectors.device)]
    return agreed(operator, pairs.values[chosen], vectors)


def count_above(
    operator: SymmetricOperator, threshold: float | Sequence[float], **settings: object
) -> Estimate | list[Estimate]:
    """Estimated number of eigenvalues > threshold, or one for each of several thresholds, from the same probes.

    Args:
        operator: A. threshold: one or several. settings: as for `spectral_density`; outlying eigenvalues
            count exactly. See `Spectrum.count_above` for what the bounds mean.
    """
    spectrum = spectral_density(operator, **settings)
    if np.ndim(threshold) == 0:
        return spectrum.count_above(float(threshold))
    return [spectrum.count_above(float(one)) for one in threshold]


def symlog_edges(low: float, high: float, smallest: float, per_decade: int = 4) -> np.ndarray:
    """Bin edges that are logarithmic on both sides of zero and cover [low, high].

    One bin (-smallest, smallest] lies in the middle; outwards, `per_decade` bins a decade until beyond low and high.

    Raises:
        UsageError: smallest <= 0, low > high, or fewer than one bin per decade.
    """
    if not (smallest > 0 and low <= high and per_decade >= 1 and math.isfinite(high - low)):
        raise UsageError(
            f"got symlog edges for [{low:g}, {high:g}] from {smallest:g}: expected low <= high, smallest > 0"
        )

    def side(extent: float) -> np.ndarray:
        count = math.floor(per_decade * math.log10(extent / smallest)) + 1 if extent >= smallest else 0
        return smallest * 10 ** (np.arange(count + 1) / per_decade)

    return np.concatenate([-side(-low)[::-1], side(high)])


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    numbers = (estimate.value, estimate.standard_error, estimate.lower, estimate.upper)
    value, error, lower, upper = (factor * number for number in numbers)
    return Estimate(value, error, estimate.probes, lower, upper)
