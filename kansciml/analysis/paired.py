"""Verdicts over seeds, the same for every experiment: two models compared seed by seed, and a family of claims.

Usage::

    kan, mlp = {0: 2e-6, 1: 3e-6, ...}, {0: 1e-6, 1: None, ...}    # seed -> loss; None, NaN, inf: diverged
    lower = compare(kan, mlp, above=1)                    # claim: KAN / MLP, the ratio of losses, is above 1
    points = compare(acc_kan, acc_mlp, below=0, scale=DIFFERENCE)         # claim: KAN - MLP is below 0
    for one in corrected([lower, points, ...]):                           # Holm over all of these
        one.effect, one.low, one.high, one.p_value, one.verdict, one.adjusted_p, one.corrected, one.why

Two runs with one seed share data, order and, where they can, first weights, so they are compared within the seed: by
d_i = log(a_i / b_i) of losses, or a_i - b_i of accuracies and counts. The test is Wilcoxon's signed-rank test in its
exact form (`kansciml.analysis.exact_tests`): a run that diverged has a rank (the worst) but no ratio, and ratios of
losses spread over decades. The effect (Hodges-Lehmann) and its interval come from the same test by inversion: the
interval holds every effect that the test does not reject. With n pairs no p-value is below 2 / 2^n: fewer than 6 seeds
decide nothing at 0.05, and after Holm's correction over m claims it takes `seeds_needed`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kansciml._errors import UsageError, check_name
from kansciml.analysis.exact_tests import ALPHA, estimate, holm, interval, seeds_needed, shifted, signed_rank

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
RATIO, DIFFERENCE = "ratio", "difference"
RECOMMENDED_SEEDS = 12
"""Seeds that decide a claim of a family of up to 102."""


@dataclass(frozen=True)
class Comparison:
    """Outcome of a claim that the effect, a / b or a - b, lies on one side of a number, or between two.

    Args:
        verdict: ``"supported"``, ``"refuted"`` or ``"undecided"``, of this claim by itself.
        effect: Hodges-Lehmann estimate; NaN without pairs. low, high: its interval of 1 - alpha, infinite (of a ratio,
            0 and infinite) where there are too few pairs.
        p_value: exact two-sided p-value of the signed-rank test; NaN without pairs. Of a claim with two ends: at the
            end that the effect lies beyond or, within, the larger one of both.
        n_pairs, n_true: pairs of seeds, and those in which the effect is as claimed.
        reason: why, in one line, of this claim by itself.
        adjusted_p, corrected: p-value and verdict after Holm's correction. family: over how many claims. needed: least
            number of seeds that can decide one of so many.
    """

    verdict: str
    effect: float
    low: float
    high: float
    p_value: float
    n_pairs: int
    n_true: int
    reason: str
    adjusted_p: float = math.nan
    corrected: str = UNDECIDED
    family: int = 1
    needed: int = seeds_needed()

    @property
    def why(self) -> str:
        """The reason with what the correction changes, and how many seeds it takes where there are too few."""
        if math.isnan(self.p_value):
            return self.reason
        told = f"; {self.adjusted_p:.2g} after Holm's correction" * (self.verdict != self.corrected)
        many = f"to decide one claim of {self.family} takes {self.needed} seeds" if self.family > 1 else ""
        few = f": take {self.needed} seeds" if not many else f"; {many}"
        return self.reason + told + few * (self.n_pairs < self.needed)


def compare(
    a: Mapping[int, float | None],
    b: Mapping[int, float | None],
    *,
    above: float | None = None,
    below: float | None = None,
    scale: str = RATIO,
    text: str = "so",
    alpha: float = ALPHA,
) -> Comparison:
    """The claim that the effect of a over b is above, or below, a number, or above one and below another.

    Supported, or refuted, if the exact two-sided signed-rank test rejects at level `alpha` that the effect is that
    number; undecided otherwise. Of two ends both have to be rejected from within, or one from beyond.

    Args:
        a, b: by seed: losses of at least 0 for a ratio, where None, NaN and infinity mean that the run diverged, which
            is worse than any loss; any numbers for a difference, a diverged run infinite on the side that is worse. A
            pair of which both diverged says nothing and is left out, and so are seeds of one side alone.
        above, below: ends of the claim; at least one.
        scale: ``"ratio"``, a / b, or ``"difference"``, a - b.
        text: what is claimed, for the reason: ``"KAN lower"`` gives ``"KAN lower with 5 of 6 seeds, p = ..."``.
        alpha: largest p-value that decides, between 0 and 1.

    Raises:
        UsageError: no end or one that cannot be, a negative loss, NaN in a difference, `alpha` out of range.
    """
    check_alpha(alpha)
    check_name("scale", scale, (RATIO, DIFFERENCE))
    ends = [None if end is None else _to_scale(end, scale) for end in (above, below)]
    if ends == [None, None] or (None not in ends and not ends[0] < ends[1]):  # type: ignore[operator]
        raise UsageError(f"got a claim of an effect above {above} and below {below}: expected one end, or two in order")
    seeds = sorted(a.keys() & b.keys())
    first, second = (np.array([_value(side[seed], scale) for seed in seeds], dtype=np.float64) for side in (a, b))
    both = np.isinf(first) & (first == second)
    d = shifted(_differences(first[~both], second[~both], scale), 0.0)
    lost = _left_out(a, b, int(both.sum()))
    n = len(d)
    if n == 0:
        reason = f"all {len(seeds)} pairs diverged" if seeds else "no seed in common" if a and b else "no runs to pair"
        return Comparison(UNDECIDED, math.nan, math.nan, math.nan, math.nan, 0, 0, reason)
    sides = {"above": 1, "below": -1}
    tests = [(sides[name], signed_rank(shifted(d, end))) for name, end in zip(sides, ends) if end is not None]
    beyond = [test for side, test in tests if test.side != side]
    p_value = beyond[0].p_value if beyond else max(test.p_value for _, test in tests)
    true = np.all([np.sign(shifted(d, end)) == sides[name] for name, end in zip(sides, ends) if end is not None], 0)
    decided = UNDECIDED if p_value > alpha else REFUTED if beyond else SUPPORTED
    least = 2.0 ** (1 - n)
    reason = (
        f"{text} with {int(true.sum())} of {n} seeds, p = {p_value:.2g} {'<=' if p_value <= alpha else '>'} {alpha:g}"
    )
    if least > alpha:
        reason = f"{n} paired seed{'s' * (n > 1)} cannot reach p <= {alpha:g} (at best {least:.2g})"
    low, high = interval(d, alpha)
    effect, low, high = (_from_scale(value, scale) for value in (estimate(d), low, high))
    return Comparison(
        decided, effect, low, high, p_value, n, int(true.sum()), reason + lost, p_value, decided, 1, seeds_needed(alpha)
    )


def corrected(family: Sequence[Comparison], alpha: float = ALPHA) -> list[Comparison]:
    """The comparisons with p-values and verdicts after Holm's correction over all that have a p-value."""
    adjusted = holm([one.p_value for one in family])
    m = sum(not math.isnan(p) for p in adjusted)
    needed = seeds_needed(alpha, m)
    verdicts = [one.verdict if p <= alpha else UNDECIDED for one, p in zip(family, adjusted)]
    return [
        one if math.isnan(p) else replace(one, adjusted_p=p, corrected=verdict, family=m, needed=needed)
        for one, p, verdict in zip(family, adjusted, verdicts)
    ]


def check_alpha(alpha: float) -> None:
    """Refuses a significance level that is none."""
    if not 0 < alpha < 1:
        raise UsageError(f"got alpha {alpha}: expected a number between 0 and 1, such as 0.05")


def _value(value: float | None, scale: str) -> float:
    if scale == RATIO:
        value = math.inf if value is None or math.isnan(value) else value
        if value < 0:
            raise UsageError(f"got a negative loss {value:g}: expected losses of at least 0")
    elif value is None or math.isnan(value):
        raise UsageError(f"got {value} in a difference: expected a number, infinite where a run diverged")
    return float(value)


def _differences(a: np.ndarray, b: np.ndarray, scale: str) -> np.ndarray:
    """a - b, or log(a / b): infinite where one of the two is infinite, or zero; 0 where both are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(a) - np.log(b) if scale == RATIO else a - b
    return np.where(a == b, 0.0, found)


def _left_out(a: Mapping[int, float | None], b: Mapping[int, float | None], diverged: int) -> str:
    found = f"; {diverged} {'pair' if diverged == 1 else 'pairs'} left out, as both diverged" if diverged else ""
    alone = sorted(a.keys() ^ b.keys())
    if alone:
        found += f"; seed{'s' * (len(alone) > 1)} {', '.join(map(str, alone))} left out, of one side alone"
    return found


def _to_scale(end: float, scale: str) -> float:
    if (scale == RATIO and not 0 < end < math.inf) or not math.isfinite(end):
        raise UsageError(f"got {end} for the end of a {scale}: expected a finite number{' above 0' * (scale == RATIO)}")
    return math.log(end) if scale == RATIO else end


def _from_scale(value: float, scale: str) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(value)) if scale == RATIO else value
