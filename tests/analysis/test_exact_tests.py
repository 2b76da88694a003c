"""Exact tests: against all sign patterns by brute force, SciPy, textbook intervals, and simulated truth."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kansciml import UsageError
from kansciml.analysis.exact_tests import (
    estimate,
    holm,
    interval,
    rank_correlation,
    seeds_needed,
    signed_rank,
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
        assert signed_rank(d).p_value == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-12)


def test_p_is_that_of_all_sign_patterns_with_ties_zeros_and_infinities():
    rng = np.random.default_rng(0)
    for _ in range(60):
        d = rng.integers(-3, 5, rng.integers(1, 10)).astype(float)
        d[rng.random(len(d)) < 0.2] = rng.choice([math.inf, -math.inf])
        assert signed_rank(d).p_value == pytest.approx(brute_force_p(d), rel=1e-12), d
    assert signed_rank([0.0, 0.0]) == (1, 0)


def test_p_is_that_of_scipys_exact_permutation_test():
    d = np.array([0.3, 0.3, -0.1, 0.8, 0.0, 1.2, -0.3, 0.5])

    def statistic(d, axis):
        return np.sum(np.sign(d) * stats.rankdata(np.abs(d), axis=axis), axis=axis)

    found = stats.permutation_test((d,), statistic, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert signed_rank(d).p_value == pytest.approx(found.pvalue, rel=1e-12)


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


@pytest.mark.parametrize("n", [6, 8, 12])
def test_the_error_rate_is_at_most_alpha_and_the_interval_covers(n):
    """Log ratios symmetric about log 2, with heavy tails: no test at log 2 rejects more often than it may."""
    rng = np.random.default_rng(n)
    centre, trials, wrong, missed = math.log(2), 300, 0, 0
    for _ in range(trials):
        d = centre + rng.standard_t(1.5, n)
        wrong += signed_rank(d - centre).p_value <= 0.05
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


def test_the_side_is_that_of_the_ranks_not_of_the_estimate():
    d = [0.0] * 8 + [1, 2, 3, 4, 5, 6]
    assert estimate(d) == 0 or signed_rank(d).side == 1
    assert signed_rank(d).side == -signed_rank(-np.array(d)).side == 1 and signed_rank([1, -1]).side == 0


class TestRankCorrelation:
    def test_without_ties_it_is_kendalls_with_an_exact_p(self):
        """Of 5! orders two are as far from independence as the perfect ones."""
        perfect = rank_correlation([1, 2, 3, 4, 5], [1, 4, 9, 16, 25])
        assert (perfect.tau, perfect.high, perfect.n) == (1, 1, 5) and perfect.p_value == pytest.approx(2 / 120)
        assert perfect.low < rank_correlation([1, 2, 3, 4, 5], [1, 4, 9, 25, 16]).tau < 1
        reverse = rank_correlation([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
        assert (reverse.tau, reverse.low, reverse.high) == pytest.approx((-1, -1, -perfect.low))

    def test_with_ties_the_p_is_that_of_permutations(self):
        x, y = [1, 1, 2, 2, 3, 3], [1, 2, 2, 3, 3, 4]
        orders = np.array([stats.kendalltau(one, y).statistic for one in set(itertools.permutations(x))])
        found = rank_correlation(x, y)
        exact = np.mean(np.abs(orders) >= found.tau - 1e-12)
        assert found.p_value == pytest.approx(exact, abs=0.01) and found == rank_correlation(x, y)

    def test_the_interval_covers(self):
        """Normal pairs with correlation r: tau is 2 / pi arcsin r."""
        rng, tau, held = np.random.default_rng(5), 2 / math.pi * math.asin(0.6), 0
        for _ in range(200):
            x = rng.normal(size=24)
            found = rank_correlation(x, 0.6 * x + 0.8 * rng.normal(size=24))
            held += found.low <= tau <= found.high
        assert held >= 182

    @pytest.mark.parametrize("x, y", [([1, 2], [1, 2]), ([1] * 5, [1, 2, 3, 4, 5]), ([1, 2, 3, 4, math.inf], range(5))])
    def test_what_cannot_be_correlated_is_refused(self, x, y):
        with pytest.raises(UsageError, match="at least 5|all equal"):
            rank_correlation(x, y)
