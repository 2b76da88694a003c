"""Verdicts against p-values worked out by hand: of C(n+m, n) equally likely rankings, how many are as extreme."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kansciml import UsageError
from kansciml.analysis.comparison import compare_by_factor, compare_losses, mann_whitney_p


@pytest.mark.parametrize(
    ("a", "b", "favourable", "total"),
    [
        ([1, 2, 3], [4, 5, 6], 2, 20),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2, 70),
        ([1, 2, 3, 5], [4, 6, 7, 8], 4, 70),  # U = 1: one ranking with U = 0, one with U = 1, both ways
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 2, 252),
        ([1, 2, 3, 4, 7], [5, 6, 8, 9, 10], 8, 252),  # U = 2: 1 + 1 + 2, both ways
        ([1, 2, 3], [4, 5, 6, 7, 8], 2, 56),
        ([1, 1], [1, 2], 6, 6),  # midranks 2 2 2 4: every sum is 1 from the mean
        ([1, 2], [3, math.inf, math.inf], 2, 10),  # midranks 1 2 3 4.5 4.5: sums 3 and 9 of 10 are 3 from the mean
        ([math.inf] * 3, [math.inf] * 3, 20, 20),
    ],
)
def test_exact_p_value_by_hand(a, b, favourable, total):
    assert mann_whitney_p(a, b) == pytest.approx(favourable / total, abs=1e-15)
    assert mann_whitney_p(b, a) == pytest.approx(favourable / total, abs=1e-15)


def test_p_value_without_ties_is_scipys():
    rng = np.random.default_rng(0)
    for n, m in ((4, 4), (5, 8), (12, 9), (1, 6)):
        a, b = rng.normal(size=n), rng.normal(0.8, size=m)
        assert mann_whitney_p(a, b) == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue, rel=1e-12)


def test_false_verdicts_stay_below_alpha():
    """Equal distributions: the share of decided comparisons, over all rankings of 5 against 5, is at most 5 %."""
    rng = np.random.default_rng(1)
    losses = 10 ** rng.normal(-5, 2, size=(1000, 2, 5))
    decided = sum(compare_losses(a, b).verdict != "undecided" for a, b in losses)
    assert 0 < decided <= 50


class TestCompareLosses:
    def test_lower_is_supported_and_the_converse_refuted(self):
        low, high = [1e-6, 2e-6, 3e-6, 4e-6], [1e-4, 2e-4, 3e-4, 4e-4]
        claim = compare_losses(low, high)
        assert (claim.verdict, claim.effect, claim.n_a, claim.n_b) == ("supported", -1.0, 4, 4)
        assert claim.p_value == pytest.approx(2 / 70) and claim.median_log10_ratio == pytest.approx(-2.0, abs=0.01)
        converse = compare_losses(high, low)
        assert (converse.verdict, converse.effect, converse.p_value) == ("refuted", 1.0, claim.p_value)

    def test_overlapping_seeds_are_undecided(self):
        claim = compare_losses([1, 2, 3, 5], [4, 6, 7, 8])
        assert claim.verdict == "undecided" and "0.057 > 0.05" in claim.reason

    def test_three_seeds_cannot_decide_and_the_reason_says_so(self):
        claim = compare_losses([1e-9] * 3, [1.0] * 3)
        assert claim.verdict == "undecided" and "3 against 3 runs cannot reach" in claim.reason
        assert compare_losses([1, 2, 3], [4, 5, 6, 7, 8]).verdict == "supported"

    def test_ties_alone_are_undecided(self):
        claim = compare_losses([1.0] * 5, [1.0] * 5)
        assert (claim.verdict, claim.p_value, claim.effect, claim.median_log10_ratio) == ("undecided", 1.0, 0.0, 0.0)

    @pytest.mark.parametrize("diverged", [math.inf, math.nan])
    def test_diverged_runs_rank_worst(self, diverged):
        claim = compare_losses([1.0, 2.0, 3.0, 4.0], [diverged] * 4)
        assert (claim.verdict, claim.effect, claim.median_log10_ratio) == ("supported", -1.0, -math.inf)
        both = compare_losses([diverged] * 4, [diverged] * 4)
        assert both.verdict == "undecided" and math.isnan(both.median_log10_ratio)

    def test_no_runs(self):
        claim = compare_losses([], [1.0])
        assert claim.verdict == "undecided" and math.isnan(claim.p_value) and "no runs on one side" in claim.reason

    def test_scale_of_the_losses_does_not_matter(self):
        rng = np.random.default_rng(2)
        a, b = 10 ** rng.normal(-6, 1, 6), 10 ** rng.normal(-5, 1, 6)
        assert (
            compare_losses(a, b).p_value
            == compare_losses(1e3 * a, 1e3 * b).p_value
            == compare_losses(a**2, b**2).p_value
        )

    def test_bad_input(self):
        with pytest.raises(UsageError, match="negative loss -1 of b"):
            compare_losses([1.0], [2.0, -1.0])
        with pytest.raises(UsageError, match="got alpha 5"):
            compare_losses([1.0], [2.0], alpha=5)


class TestCompareByFactor:
    def test_supported_when_larger_and_significant(self):
        claim = compare_by_factor([1.0, 2.0, 3.0, 4.0, 5.0], [100.0, 200.0, 300.0, 400.0, 500.0], 10)
        assert claim.verdict == "supported" and claim.p_value == pytest.approx(2 / 252)

    def test_refuted_when_significantly_below_the_factor(self):
        """Five times as high is significantly higher, and significantly less than ten times as high."""
        a = [1.0, 1.1, 1.2, 1.3, 1.4]
        claim = compare_by_factor(a, [5 * loss for loss in a], 10)
        assert claim.verdict == "refuted" and "less than 10 times" in claim.reason

    def test_refuted_when_lower(self):
        assert compare_by_factor([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0], 10).verdict == "refuted"

    def test_undecided_when_higher_but_by_how_much_is_unclear(self):
        claim = compare_by_factor([1.0, 2.0, 4.0, 8.0, 16.0], [20.0, 25.0, 30.0, 60.0, 100.0], 10)
        assert claim.verdict == "undecided" and "its median is not 10 times" in claim.reason

    def test_undecided_when_a_large_ratio_is_not_significant(self):
        claim = compare_by_factor([1.0, 1.0, 1.0, 500.0], [2.0, 100.0, 100.0, 100.0], 10)
        assert claim.verdict == "undecided" and claim.median_log10_ratio == pytest.approx(-2.0)

    def test_factor_below_one(self):
        with pytest.raises(UsageError, match=r"got factor 0\.1"):
            compare_by_factor([1.0], [1.0], 0.1)
