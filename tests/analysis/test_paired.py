"""Paired comparisons: against all sign patterns by brute force, SciPy, textbook intervals, and simulated truth."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kansciml import UsageError
from kansciml.analysis.paired import (
    UNDECIDED,
    compare_pairs,
    estimate,
    holm,
    interval,
    log_ratios,
    seeds_needed,
    signed_rank_p,
    walsh_averages,
)


def brute_force_p(d):
    """Share of all sign patterns of the ranked |d| whose sum is at least as far from zero; zeros keep their rank."""
    d = np.asarray(d, float)
    ranks = stats.rankdata(np.abs(d))[d != 0]
    signs = np.array(list(itertools.product((-1, 1), repeat=len(ranks)))).reshape(2 ** len(ranks), len(ranks))
    sums = np.abs(signs @ ranks)
    return float(np.mean(sums >= abs(float(np.sign(d[d != 0]) @ ranks)) - 1e-9))


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 20])
def test_p_is_scipys_where_nothing_is_tied(n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        d = rng.normal(0.4, 1, n)
        assert signed_rank_p(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-12)


def test_p_is_that_of_all_sign_patterns_with_ties_zeros_and_infinities():
    rng = np.random.default_rng(0)
    for _ in range(60):
        d = rng.integers(-3, 5, rng.integers(1, 10)).astype(float)
        d[rng.random(len(d)) < 0.2] = rng.choice([math.inf, -math.inf])
        assert signed_rank_p(d) == pytest.approx(brute_force_p(d), rel=1e-12), d
    assert signed_rank_p([0.0, 0.0]) == 1


def test_p_is_that_of_scipys_exact_permutation_test():
    d = np.array([0.3, 0.3, -0.1, 0.8, 0.0, 1.2, -0.3, 0.5])

    def statistic(d, axis):
        return np.sum(np.sign(d) * stats.rankdata(np.abs(d), axis=axis), axis=axis)

    found = stats.permutation_test((d,), statistic, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert signed_rank_p(d) == pytest.approx(found.pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [6, 7, 10, 15])
def test_the_interval_is_the_textbooks_walsh_averages(n):
    """Untied: the k-th smallest and largest, k - 1 the largest rank sum with 2 P(W <= k - 1) <= alpha."""
    d = np.random.default_rng(n).normal(1, 1, n)
    sums = np.array([sum(r for r, s in zip(range(1, n + 1), p) if s) for p in itertools.product((0, 1), repeat=n)])
    k = 1 + max(w for w in range(n * (n + 1) // 2) if 2 * np.mean(sums <= w) <= 0.05)
    averages = walsh_averages(d)
    assert interval(d) == pytest.approx((averages[k - 1], averages[-k]), rel=1e-12)
    assert estimate(d) == pytest.approx(np.median(averages), rel=1e-12)
    if n == 6:
        assert interval(d) == pytest.approx((d.min(), d.max()))


def test_the_interval_holds_what_the_test_does_not_reject():
    rng = np.random.default_rng(3)
    for _ in range(25):
        d = np.round(rng.normal(0.5, 1, 8), 1)  # ties
        low, high = interval(d)
        for centre in rng.uniform(low - 1, high + 1, 20):
            kept = brute_force_p(d - centre) > 0.05
            assert low <= centre <= high or not kept
        inside = (low + high) / 2 + 1e-4
        assert brute_force_p(d - inside) > 0.05 or high - low < 1e-3


def test_equal_differences_leave_one_ratio():
    found = compare_pairs([2.0] * 6, [1.0] * 6)
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))
    assert found.p_value == pytest.approx(2 / 64) and found.verdict == "b better"


def test_five_seeds_decide_nothing_and_six_may():
    a, b = np.arange(1.0, 7.0), np.arange(11.0, 17.0)
    five = compare_pairs(a[:5], b[:5], ("KAN", "MLP"))
    assert five.verdict == UNDECIDED and five.p_value == five.least_p == 2 / 32
    assert "5 pairs cannot reach p <= 0.05 (at best 0.062): take 6 seeds" in five.reason
    assert (five.low, five.high) == (0, math.inf)
    six = compare_pairs(a, b, ("KAN", "MLP"))
    assert six.verdict == "KAN better" and six.p_value == 2 / 64 and six.high < 1 and six.n_lower == 6
    other = compare_pairs(b, a, ("KAN", "MLP"))
    assert other.verdict == "MLP better" and other.ratio == pytest.approx(1 / six.ratio)
    assert (other.low, other.high) == pytest.approx((1 / six.high, 1 / six.low))


def test_a_run_that_diverged_is_the_worst_and_a_pair_that_diverged_is_left_out():
    a = [1, 2, 3, 4, 5, 6, 7.0]
    found = compare_pairs(a, [30, 30, 30, 40, 50, None, math.nan])
    assert found.verdict == "a better" and found.low == 0 and math.isfinite(found.high) and found.high < 1
    assert compare_pairs([1, 1, 1, 1, 1, None], [2, 2, 2, 2, 2, 1]).p_value == brute_force_p([-1] * 5 + [math.inf])
    both = compare_pairs([*a, None], [x * 2 for x in a] + [math.inf])
    assert both.n_pairs == 7 and both.verdict == "a better" and "1 of 8 pairs left out" in both.reason
    nothing = compare_pairs([None, None], [math.inf, None])
    assert nothing.verdict == UNDECIDED and math.isnan(nothing.p_value) and "both diverged" in nothing.reason
    everywhere = compare_pairs([None] * 6, [1.0] * 6, ("KAN", "MLP"))
    assert everywhere.verdict == "MLP better"
    assert (everywhere.ratio, everywhere.low, everywhere.high) == (math.inf,) * 3
    assert compare_pairs([None, 1.0], [1.0, None]).ratio == 1
    nearly = compare_pairs([None] * 8 + [2.0], [1.0] * 9)
    assert nearly.low <= nearly.ratio <= nearly.high == math.inf


def test_errors_of_zero_are_ratios_too():
    assert log_ratios(np.array([0, 0, 1, 2.0]), np.array([0, 1, 0, 1.0])) == pytest.approx(
        [0, -math.inf, math.inf, math.log(2)]
    )
    assert compare_pairs([0.0] * 6, [0.1] * 6).ratio == 0
    same = compare_pairs([0.1] * 6, [0.1] * 6)
    assert same.verdict == UNDECIDED and same.ratio == 1 and "too few of the 6 pairs differ" in same.reason


@pytest.mark.parametrize("n", [6, 8, 12])
def test_the_error_rate_is_at_most_alpha_and_the_interval_covers(n):
    """Log ratios symmetric about log 2, with heavy tails: no test at log 2 rejects more often than it may."""
    rng = np.random.default_rng(n)
    centre, trials, wrong, missed = math.log(2), 300, 0, 0
    for _ in range(trials):
        d = centre + rng.standard_t(1.5, n)
        wrong += signed_rank_p(d - centre) <= 0.05
        low, high = interval(d)
        missed += not low <= centre <= high
    assert wrong == missed  # the interval is the test, inverted
    assert 0.01 * trials < wrong <= (0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)) * trials


def test_holm_by_hand_and_the_family_wise_error():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    found = holm([0.02, math.nan, 0.01])
    assert found[0] == 0.02 and math.isnan(found[1]) and found[2] == 0.02
    assert holm([]) == []
    p = np.random.default_rng(0).uniform(size=(4000, 5))
    false = np.mean([min(holm(row)) <= 0.05 for row in p])
    assert false == pytest.approx(0.05, abs=0.012) and np.mean((p <= 0.05).any(axis=1)) > 0.2


def test_seeds_needed_is_the_least_that_can_decide():
    assert seeds_needed() == 6
    for comparisons in (1, 2, 7, 16, 28, 50):
        n = seeds_needed(0.05, comparisons)
        assert comparisons * 2 / 2**n <= 0.05 < comparisons * 2 / 2 ** (n - 1)


@pytest.mark.parametrize(
    "a, b, alpha, message",
    [
        ([1], [1, 2], 0.05, "got 1 losses of a and 2 of b: expected one pair per seed"),
        ([-1], [1], 0.05, "got a negative loss -1 of a"),
        ([1], [1], 1.0, "got alpha 1.0: expected a number between 0 and 1"),
    ],
)
def test_mistakes_are_told(a, b, alpha, message):
    with pytest.raises(UsageError, match=message):
        compare_pairs(a, b, alpha=alpha)
