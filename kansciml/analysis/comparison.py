"""Compares two sets of losses by exact rank tests over seeds, so that a verdict never rests on one lucky run.

Runs of the same model with different seeds end at losses that differ by orders of magnitude and are far from normally
distributed, so losses are compared by rank (the same for loss and log10 loss), and a run that diverged counts as worse
than every finite loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from kansciml._errors import UsageError

ALPHA = 0.05
SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"


@dataclass(frozen=True)
class Comparison:
    """Outcome of a claim about the losses of two models.

    Args:
        verdict: ``"supported"``, ``"refuted"`` or ``"undecided"``.
        p_value: exact two-sided p-value of the Mann-Whitney U test; NaN if a side has no runs.
        median_log10_ratio: median log10 loss of a minus that of b; negative if a is lower; NaN if undefined.
        effect: Cliff's delta, P(a > b) - P(a < b), from -1 (every a lower) to 1.
        n_a, n_b: numbers of runs.
        reason: why, in one line.
    """

    verdict: str
    p_value: float
    median_log10_ratio: float
    effect: float
    n_a: int
    n_b: int
    reason: str

    @property
    def median_ratio(self) -> float:
        """Median loss of b over that of a: above 1 if a is lower, infinite if b's median diverged, NaN if both did."""
        with np.errstate(over="ignore"):
            return float(np.power(10.0, -self.median_log10_ratio))


@dataclass(frozen=True)
class RankTest:
    """The exact two-sided Mann-Whitney U test of two sets of numbers; `effect`: Cliff's delta, P(a > b) - P(a < b)."""

    p_value: float
    effect: float
    decided: bool
    reason: str


def compare_ranks(a: np.ndarray, b: np.ndarray, alpha: float, what: str) -> RankTest:
    """Whether one of two sets of `what` (such as ``"runs"``) is larger than the other."""
    p_value = mann_whitney_p(a, b)
    effect = float(np.mean(a[:, None] > b) - np.mean(a[:, None] < b))
    smallest = 2 / math.comb(len(a) + len(b), len(a))
    if smallest > alpha:
        reason = f"{len(a)} against {len(b)} {what} cannot reach p <= {alpha:g} (at best {smallest:.2g}): add seeds"
        return RankTest(p_value, effect, False, reason)
    if p_value > alpha:
        return RankTest(p_value, effect, False, f"the seeds overlap: p = {p_value:.2g} > {alpha:g}")
    return RankTest(p_value, effect, True, f"p = {p_value:.2g} <= {alpha:g}")


def compare_losses(a: Sequence[float], b: Sequence[float], alpha: float = ALPHA) -> Comparison:
    """The claim "a converges to a lower loss than b".

    Supported if the exact two-sided Mann-Whitney U test rejects equality at level `alpha` and a is the lower side,
    refuted if it rejects and b is; undecided otherwise. At `alpha` = 0.05 at least 4 runs a side are needed (complete
    separation: p = 2 / C(8, 4) = 0.029; 3 against 5: 0.036).

    Args:
        a, b: losses >= 0, one per seed, of length n_a and n_b; infinite or NaN means diverged.
        alpha: largest p-value that decides, between 0 and 1.

    Raises:
        UsageError: a negative loss, or `alpha` out of range.
    """
    first, second = losses_of("a", a), losses_of("b", b)
    check_alpha(alpha)
    n_a, n_b = len(first), len(second)
    if min(n_a, n_b) == 0:
        side = "either side" if n_a == n_b else "one side"
        return Comparison(UNDECIDED, math.nan, math.nan, math.nan, n_a, n_b, f"no runs on {side}")
    medians = _median_log10(first), _median_log10(second)
    ratio = medians[0] - medians[1] if any(map(math.isfinite, medians)) else math.nan
    test = compare_ranks(first, second, alpha, "runs")
    verdict = UNDECIDED if not test.decided else SUPPORTED if test.effect < 0 else REFUTED
    return Comparison(verdict, test.p_value, ratio, test.effect, n_a, n_b, test.reason)


def compare_by_factor(a: Sequence[float], b: Sequence[float], factor: float, alpha: float = ALPHA) -> Comparison:
    """The claim "b's loss is at least `factor` times a's".

    Supported if b's median is at least `factor` times a's and a is significantly lower (`compare_losses`); refuted if
    b / `factor` is significantly lower than a; undecided otherwise. The p-value is that of the comparison that
    decided, and for an undecided claim that of a against b.

    Raises:
        UsageError: as for `compare_losses`, or `factor` below 1.
    """
    if not factor >= 1:
        raise UsageError(f"got factor {factor}: expected a number of at least 1, such as 10")
    plain = compare_losses(a, b, alpha)
    large = plain.median_log10_ratio <= -math.log10(factor)
    if plain.verdict == SUPPORTED and large:
        return plain
    divided = compare_losses([loss / factor for loss in b], a, alpha)
    if divided.verdict == SUPPORTED:
        reason = f"less than {factor:g} times: {divided.reason}"
        verdict, p_value = REFUTED, divided.p_value
    elif plain.verdict == SUPPORTED:
        verdict, p_value = UNDECIDED, plain.p_value
        reason = f"higher ({plain.reason}), but its median is not {factor:g} times as high"
    else:
        verdict, p_value, reason = UNDECIDED, plain.p_value, plain.reason
    return Comparison(verdict, p_value, plain.median_log10_ratio, plain.effect, plain.n_a, plain.n_b, reason)


def mann_whitney_p(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided p-value of the Mann-Whitney U test, conditional on ties.

    All C(n_a + n_b, n_a) ways to hand out the pooled midranks are counted, and the share returned whose rank sum is at
    least as far from its mean as the observed one. Without ties this is SciPy's ``method="exact"``, which is not
    defined with ties (several diverged runs are tied). Takes about a second for 100 against 100.

    Args:
        a, b: (n_a,), (n_b,), at least one number each; infinite ones are allowed, NaN is not.
    """
    pooled = np.concatenate([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
    n_a, ranks = np.size(a), doubled_midranks(pooled)
    largest = int(np.sort(ranks)[-n_a:].sum())
    ways = np.zeros((n_a + 1, largest + 1))  # ways[k, s]: k of the ranks seen so far sum to s
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : largest + 1 - rank].copy()
    mean = n_a * (len(pooled) + 1)  # of the doubled rank sum
    observed = abs(int(ranks[:n_a].sum()) - mean)
    counts = ways[n_a]
    return float(counts[np.abs(np.arange(largest + 1) - mean) >= observed].sum() / counts.sum())


def doubled_midranks(values: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Twice the midranks, which are integers: values below, plus values below or equal, plus one."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1


def losses_of(name: str, losses: Sequence[float | None] | np.ndarray) -> Float64[np.ndarray, " n"]:
    """Losses as numbers to rank: NaN and None, which mean that a run diverged, as infinity.

    Raises:
        UsageError: a negative one.
    """
    found = np.array([math.inf if loss is None else loss for loss in losses], dtype=np.float64)
    if np.any(found < 0):
        raise UsageError(f"got a negative loss {found[found < 0][0]:g} of {name}: expected losses of at least 0")
    return np.where(np.isnan(found), math.inf, found)


def check_alpha(alpha: float) -> None:
    """Refuses a significance level that is none."""
    if not 0 < alpha < 1:
        raise UsageError(f"got alpha {alpha}: expected a number between 0 and 1, such as 0.05")


def _median_log10(losses: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(np.median(np.log10(losses)))
