"""Compares two models seed by seed: exact tests and intervals for ratios of paired losses.

Two runs with one seed share data, order and, where they can, first weights, so their losses are compared within the
seed, as d_i = log(a_i / b_i). The test is Wilcoxon's signed-rank test in its exact form (all 2^n patterns of signs on
the ranks of |d_i|): a run that diverged has a rank (the worst) but no ratio, and ratios of losses spread over decades.
The estimate (Hodges-Lehmann) and the interval come from the same test by inversion: the interval holds every ratio that
the test does not reject. With n pairs no p-value is below 2 / 2^n: fewer than 6 seeds decide nothing at 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from kansciml._errors import UsageError
from kansciml.analysis.comparison import ALPHA, UNDECIDED, check_alpha, doubled_midranks, losses_of


@dataclass(frozen=True)
class PairedComparison:
    """Outcome of a comparison of two models over seeds.

    Args:
        verdict: ``"A better"`` or ``"B better"`` by the models' names, or ``"undecided"``.
        ratio: Hodges-Lehmann estimate of a's loss over b's: below 1 if a is better; NaN without pairs.
        low, high: interval of that ratio with confidence of at least 1 - alpha; 0 and infinity if too few pairs.
        p_value: exact two-sided p-value of the signed-rank test; NaN without pairs.
        least_p: the smallest that this number of pairs could have given.
        n_pairs, n_lower: pairs compared, and those in which a is the lower one.
        reason: why, in one line.
    """

    verdict: str
    ratio: float
    low: float
    high: float
    p_value: float
    least_p: float
    n_pairs: int
    n_lower: int
    reason: str


def seeds_needed(alpha: float = ALPHA, comparisons: int = 1) -> int:
    """Least number of pairs with which one of so many comparisons can be decided after Holm's correction.

    The smallest n with comparisons * 2 / 2^n <= alpha: 6 for one comparison at 0.05, 11 for 20.
    """
    return max(1, math.ceil(1 + math.log2(max(comparisons, 1) / alpha) - 1e-12))


def compare_pairs(
    a: Sequence[float | None],
    b: Sequence[float | None],
    names: tuple[str, str] = ("a", "b"),
    alpha: float = ALPHA,
) -> PairedComparison:
    """Whether the first of two models has the lower losses, or the second, over seeds.

    Args:
        a, b: losses >= 0, (n,) each, in the same order of seeds; infinite, NaN or None means that the run diverged,
            which is worse than any loss. A pair of which both diverged says nothing and is left out.
        names: of the models, for the verdict.
        alpha: largest p-value that decides, between 0 and 1.

    Raises:
        UsageError: different numbers of losses, a negative one, or `alpha` out of range.
    """
    if len(a) != len(b):
        raise UsageError(f"got {len(a)} losses of {names[0]} and {len(b)} of {names[1]}: expected one pair per seed")
    check_alpha(alpha)
    first, second = losses_of(names[0], a), losses_of(names[1], b)
    kept = np.isfinite(first) | np.isfinite(second)
    lost = int(len(kept) - kept.sum())
    left_out = f"; {lost} of {len(kept)} pairs left out, as both diverged" if lost else ""
    differences = log_ratios(first[kept], second[kept])
    n = len(differences)
    if n == 0:
        reason = "both diverged with every seed" if lost else "no pairs"
        return PairedComparison(UNDECIDED, math.nan, 0.0, math.inf, math.nan, 1.0, 0, 0, reason)
    p_value, least = signed_rank_p(differences), 2.0 ** (1 - np.count_nonzero(differences))
    low, high = interval(differences, alpha)
    n_lower = int((differences < 0).sum())
    verdict = UNDECIDED
    if least > alpha:
        reason = (
            f"{n} pairs cannot reach p <= {alpha:g} (at best {min(least, 1):.2g}): take {seeds_needed(alpha)} seeds"
        )
        if np.count_nonzero(differences) < n:
            reason = f"too few of the {n} pairs differ to reach p <= {alpha:g}: add seeds"
    elif p_value > alpha:
        reason = f"the seeds disagree: {names[0]} lower in {n_lower} of {n}, p = {p_value:.2g} > {alpha:g}"
    else:
        centre = estimate(differences)
        lower = centre < 0 if centre else n_lower > n / 2
        verdict = f"{names[0] if lower else names[1]} better"
        reason = f"{names[0]} lower in {n_lower} of {n}, p = {p_value:.2g} <= {alpha:g}"
    ratio, low, high = (_exp(value) for value in (estimate(differences), low, high))
    return PairedComparison(verdict, ratio, low, high, p_value, min(least, 1.0), n, n_lower, reason + left_out)


def log_ratios(a: Float64[np.ndarray, " n"], b: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """log(a / b): infinite where one of the two is infinite, or zero; 0 where both are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(a) - np.log(b)
    return np.where(a == b, 0.0, found)


def signed_rank_p(differences: ArrayLike) -> float:
    """Exact two-sided p-value of Wilcoxon's signed-rank test that differences are symmetric about zero.

    All sign patterns are counted, with midranks where |d_i| are tied. Zeros take part in the ranking and have no sign
    (Pratt 1959). Infinite differences have the highest ranks; NaN is not allowed. Without ties and zeros this is
    SciPy's ``wilcoxon(method="exact")``; time grows as n^3.
    """
    d = np.asarray(differences, dtype=np.float64)
    ranks, positive = doubled_midranks(np.abs(d))[d != 0], d[d != 0] > 0
    if len(ranks) == 0:
        return 1.0
    counts = _patterns(tuple(sorted(ranks.tolist())))
    total = int(ranks.sum())
    distance = abs(2 * int(ranks[positive].sum()) - total)
    at_least = np.abs(2 * np.arange(total + 1) - total) >= distance
    return min(1.0, float(counts[at_least].sum()))


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


def walsh_averages(differences: ArrayLike) -> Float64[np.ndarray, " pairs"]:
    """Means of all pairs, each with itself too, sorted: n (n + 1) / 2; pairs of +inf and -inf are left out."""
    d = np.asarray(differences, dtype=np.float64)
    i, j = np.triu_indices(len(d))
    with np.errstate(invalid="ignore"):
        found = d[i] / 2 + d[j] / 2
    return np.sort(found[~np.isnan(found)])


def estimate(differences: ArrayLike) -> float:
    """Hodges-Lehmann estimate of the centre of symmetry: the median of the Walsh averages."""
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
    if lowest.any() and signed_rank_p(np.where(lowest, 0.0, math.inf)) > alpha:
        return -math.inf
    if len(points) == 0:
        return -math.inf if signed_rank_p(d) > alpha else math.inf
    if signed_rank_p(d - (points[0] - 1.0 - abs(points[0]))) > alpha:
        return -math.inf
    for place, point in enumerate(points):
        if signed_rank_p(_shifted(d, point, points)) > alpha:
            return float(point)
        after = points[place + 1] if place + 1 < len(points) else point + 1.0 + abs(point)
        if signed_rank_p(d - _between(point, after)) > alpha:
            return float(point)
    return math.inf  # so many differences are infinite that no finite centre is left


def _shifted(d: np.ndarray, point: float, points: np.ndarray) -> np.ndarray:
    """d - point, with what differs by rounding alone made equal, so that ties are seen."""
    shifted = d - point
    grain = 1e-12 * max(1.0, abs(point), float(np.abs(points).max()))
    finite = np.isfinite(shifted)
    shifted[finite] = np.round(shifted[finite] / grain) * grain
    return shifted


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


def _between(low: float, high: float) -> float:
    return low / 2 + high / 2


def _exp(value: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(value))
