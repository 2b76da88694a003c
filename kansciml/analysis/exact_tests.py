"""Exact tests and intervals on few numbers: signed ranks of differences, Holm's correction, rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from kansciml._errors import UsageError

ALPHA = 0.05
_RESAMPLES = 9999
MOST_PERMUTED = 50
"""Pairs with ties up to which they are permuted."""
_GRAIN = 1e-12
"""Share of the largest difference below which two are told apart by rounding alone: they count as tied."""


class SignedRank(NamedTuple):
    """Outcome of Wilcoxon's signed-rank test; `side`: 1 if the positive differences have the larger ranks, -1 or 0."""

    p_value: float
    side: int


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Exact two-sided signed-rank test that differences (n,) are symmetric about zero (Wilcoxon 1945).

    All sign patterns are counted, with midranks where |d_i| are tied. Zeros take part in the ranking and have no sign
    (Pratt 1959). Infinite differences have the highest ranks; NaN is not allowed. Without ties and zeros this is
    SciPy's ``wilcoxon(method="exact")``; time grows as n^3.
    """
    d = np.asarray(differences, dtype=np.float64)
    ranks, positive = _doubled_midranks(np.abs(d))[d != 0], d[d != 0] > 0
    if len(ranks) == 0:
        return SignedRank(1.0, 0)
    counts = _patterns(tuple(sorted(ranks.tolist())))
    total = int(ranks.sum())
    distance = 2 * int(ranks[positive].sum()) - total
    at_least = np.abs(2 * np.arange(total + 1) - total) >= abs(distance)
    return SignedRank(min(1.0, float(counts[at_least].sum())), int(np.sign(distance)))


@lru_cache(maxsize=256)
def _patterns(ranks: tuple[int, ...]) -> np.ndarray:
    """Share of the 2^n sign patterns whose positive ranks sum to s, for s = 0 ... sum(ranks)."""
    shares = np.zeros(sum(ranks) + 1)
    shares[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(shares)
        shifted[rank:] = shares[: len(shares) - rank]
        shares = (shares + shifted) / 2
    return shares


def _doubled_midranks(values: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Twice the midranks, which are integers: values below, plus values below or equal, plus one."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1


def walsh_averages(differences: ArrayLike) -> Float64[np.ndarray, " pairs"]:
    """Means of all pairs, each with itself too, sorted: n (n + 1) / 2; pairs of +inf and -inf are left out."""
    d = np.asarray(differences, dtype=np.float64)
    i, j = np.triu_indices(len(d))
    with np.errstate(invalid="ignore"):
        found = d[i] / 2 + d[j] / 2
    return np.sort(found[~np.isnan(found)])


def estimate(differences: ArrayLike) -> float:
    """Hodges-Lehmann estimate of the centre of symmetry: the median of the Walsh averages (1963)."""
    averages = walsh_averages(differences)
    middle = averages[(len(averages) - 1) // 2], averages[len(averages) // 2]
    if middle[0] == middle[1]:
        return float(middle[0])
    if np.isneginf(middle[0]) and np.isposinf(middle[1]):
        return 0.0  # as many infinite on one side as on the other
    return float(_between(*middle))


def interval(differences: ArrayLike, alpha: float = ALPHA) -> tuple[float, float]:
    """The centres of symmetry that the signed-rank test does not reject: the least and the largest of them.

    The p-value changes at Walsh averages alone, so it is taken at each and between each two, from outside in. Covers
    the centre with a probability of at least 1 - alpha. Infinite where no centre can be rejected on that side.
    """
    d = np.asarray(differences, dtype=np.float64)
    points = np.unique(walsh_averages(d))
    points = points[np.isfinite(points)]
    return _end(d, points, alpha), -_end(-d, -points[::-1], alpha)


def _end(d: np.ndarray, points: np.ndarray, alpha: float) -> float:
    """The lower end: `points` ascending, the finite Walsh averages."""
    lowest = np.isneginf(d)
    if lowest.any() and signed_rank(np.where(lowest, 0.0, math.inf)).p_value > alpha:
        return -math.inf
    if len(points) == 0:
        return -math.inf if signed_rank(d).p_value > alpha else math.inf
    if signed_rank(d - (points[0] - 1.0 - abs(points[0]))).p_value > alpha:
        return -math.inf
    for place, point in enumerate(points):
        if signed_rank(shifted(d, point)).p_value > alpha:
            return float(point)
        after = points[place + 1] if place + 1 < len(points) else point + 1.0 + abs(point)
        if signed_rank(d - _between(point, after)).p_value > alpha:
            return float(point)
    return math.inf  # so many differences are infinite that no finite centre is left


def shifted(differences: Float64[np.ndarray, " n"], centre: float) -> Float64[np.ndarray, " n"]:
    """differences - centre, with what differs by rounding alone made equal, so that ties are seen."""
    found = differences - centre
    finite = np.isfinite(found)
    grain = _GRAIN * max(abs(centre), float(np.abs(differences[finite]).max(initial=0.0)))
    if grain:
        found[finite] = np.round(found[finite] / grain) * grain
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's method (1979), so that all that are at most alpha may be believed together.

    The k-th smallest of m is multiplied by m - k + 1 and raised to the one before it. NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, math.nan)
    order = [int(i) for i in np.argsort(p, kind="stable") if not math.isnan(p[i])]
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, float(p[index]) * (len(order) - place)))
        adjusted[index] = largest
    return adjusted.tolist()


def seeds_needed(alpha: float = ALPHA, comparisons: int = 1) -> int:
    """Least number of pairs with which one of so many comparisons can be decided after Holm's correction.

    The smallest n with comparisons * 2 / 2^n <= alpha: 6 for one comparison at 0.05, 11 for 20, 12 for 51 to 102.
    """
    return max(1, math.ceil(1 + math.log2(max(comparisons, 1) / alpha) - 1e-12))


class RankCorrelation(NamedTuple):
    """Kendall's tau-b of n pairs, an interval of 1 - alpha, and the two-sided p-value of independence."""

    tau: float
    low: float
    high: float
    p_value: float
    n: int


def rank_correlation(x: ArrayLike, y: ArrayLike, alpha: float = ALPHA, seed: int = 0) -> RankCorrelation:
    """Whether y grows with x, by rank: Kendall's tau-b, -1 to 1; unchanged by any increasing function of either.

    The p-value is exact (SciPy's ``kendalltau``); with ties it is that of 9,999 random permutations, or of more than 50
    pairs that of the normal approximation with its correction for ties. The interval is
    that of Fisher's transform with the variance 0.437 / (n - 4) (Fieller, Hartley and Pearson 1957), an approximation;
    where all pairs agree, its inner end is taken as if one did not.

    Args:
        x, y: (n,) each, n at least 5, finite and not all equal. seed: of the permutations.

    Raises:
        UsageError: anything else.
    """
    from scipy import stats

    first, second = (np.asarray(side, dtype=np.float64) for side in (x, y))
    n = len(first)
    if first.shape != second.shape or first.ndim != 1 or n < 5:
        raise UsageError(f"got {np.shape(x)} and {np.shape(y)} values: expected at least 5 of each, in pairs")
    for name, side in (("x", first), ("y", second)):
        if not np.isfinite(side).all() or np.ptp(side) == 0:
            raise UsageError(f"got values of {name} that are not finite, or all equal: nothing can be correlated")
    tied = any(len(np.unique(side)) < n for side in (first, second))
    tau, p_value = stats.kendalltau(first, second, method="asymptotic" if tied else "exact")
    if tied and n <= MOST_PERMUTED:
        p_value = _permuted(first, second, np.random.default_rng(seed))
    width = float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt(0.437 / (n - 4))
    tau, most = round(float(tau), 12), 1 - 4 / (n * (n - 1))
    low, high = (math.tanh(math.atanh(min(max(tau, -most), most)) + side * width) for side in (-1, 1))
    return RankCorrelation(tau, low if tau > -1 else -1.0, high if tau < 1 else 1.0, float(p_value), n)


def _permuted(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], rng: np.random.Generator) -> float:
    """Share of random pairings, this one among them, whose pairs agree or disagree by as much; the ties stay."""
    own, other = (np.sign(side[:, None] - side) for side in (x, y))
    observed, count = abs(float((own * other).sum())), 1
    for _ in range(_RESAMPLES):
        places = rng.permutation(len(x))
        count += abs(float((own * other[np.ix_(places, places)]).sum())) >= observed - 0.5
    return count / (_RESAMPLES + 1)


def _between(low: float, high: float) -> float:
    return low / 2 + high / 2
