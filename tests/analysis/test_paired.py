"""Verdicts over paired seeds: against p-values worked out by hand, and what is left out, refused and corrected."""

import math

import numpy as np
import pytest

from kansciml import UsageError
from kansciml.analysis.paired import DIFFERENCE, REFUTED, SUPPORTED, UNDECIDED, compare, corrected


def by_seed(values):
    return dict(enumerate(values))


def lower(a, b, **options):
    """The claim that a is lower, after correction for itself alone."""
    return corrected([compare(by_seed(a), by_seed(b), **{"below": 1, "text": "a lower", **options})])[0]


def test_lower_is_supported_and_the_converse_refuted():
    a, b = np.arange(1.0, 7.0), np.arange(11.0, 17.0)
    six, other = lower(a, b), lower(b, a)
    assert (six.verdict, six.corrected, six.p_value, six.n_true) == (SUPPORTED, SUPPORTED, 2 / 64, 6) and six.high < 1
    assert six.why == "a lower with 6 of 6 seeds, p = 0.031 <= 0.05"
    assert (other.verdict, other.p_value) == (REFUTED, six.p_value) and other.effect == pytest.approx(1 / six.effect)
    assert (other.low, other.high) == pytest.approx((1 / six.high, 1 / six.low))
    assert compare(by_seed(b), by_seed(a), above=1).verdict == SUPPORTED


def test_five_seeds_decide_nothing_and_say_how_many_do():
    five = lower(np.arange(1.0, 6.0), np.arange(11.0, 16.0))
    assert five.verdict == five.corrected == UNDECIDED and five.p_value == 2 / 32
    assert five.why == "5 paired seeds cannot reach p <= 0.05 (at best 0.062): take 6 seeds"
    assert (five.low, five.high) == (0, math.inf)


def test_pairs_are_made_by_seed_and_what_is_left_out_is_said():
    a = {seed: 1.0 + seed for seed in range(7)}
    b = {seed: 2 * value for seed, value in a.items()}
    shuffled = {seed: b[seed] for seed in (3, 6, 0, 5, 1, 2, 4)}
    assert compare(a, shuffled, below=1).effect == pytest.approx(0.5)
    less = compare(a, {seed: b[seed] for seed in (1, 2, 3, 4, 5, 6)} | {9: 1.0}, below=1)
    assert less.n_pairs == 6 and less.reason.endswith("; seeds 0, 9 left out, of one side alone")
    assert compare(a, {9: 1.0}, below=1).reason == "no seed in common"
    none = corrected([compare(a, {}, below=1)])[0]
    assert none.corrected == UNDECIDED and math.isnan(none.p_value) and none.why == "no runs to pair"


def test_equal_differences_leave_one_ratio():
    found = lower([2.0] * 6, [1.0] * 6)
    assert (found.effect, found.low, found.high) == pytest.approx((2, 2, 2)) and found.verdict == REFUTED


def test_a_run_that_diverged_is_the_worst_and_a_pair_that_diverged_is_left_out():
    a = [1, 2, 3, 4, 5, 6, 7.0]
    found = lower(a, [30, 30, 30, 40, 50, None, math.nan])
    assert found.verdict == SUPPORTED and found.low == 0 and math.isfinite(found.high) and found.high < 1
    both = lower([*a, None], [x * 2 for x in a] + [math.inf])
    assert both.n_pairs == 7 and both.verdict == SUPPORTED and "1 pair left out, as both diverged" in both.reason
    nothing = lower([None, None], [math.inf, None])
    assert nothing.verdict == UNDECIDED and math.isnan(nothing.p_value) and nothing.why == "all 2 pairs diverged"
    everywhere = lower([None] * 6, [1.0] * 6)
    assert everywhere.verdict == REFUTED and (everywhere.effect, everywhere.low, everywhere.high) == (math.inf,) * 3
    assert lower([None, 1.0], [1.0, None]).effect == 1
    nearly = lower([None] * 8 + [2.0], [1.0] * 9)
    assert nearly.low <= nearly.effect <= nearly.high == math.inf


def test_errors_of_zero_are_ratios_too():
    assert lower([0.0] * 6, [0.1] * 6).effect == 0
    same = lower([0.1] * 6, [0.1] * 6)
    assert (same.verdict, same.effect, same.p_value, same.n_true) == (UNDECIDED, 1, 1, 0)


def test_the_unit_of_the_losses_does_not_matter():
    rng = np.random.default_rng(2)
    a, b = 10 ** rng.normal(-6, 1, 8), 10 ** rng.normal(-5, 1, 8)
    assert lower(a, b).p_value == lower(1e3 * a, 1e3 * b).p_value == lower(a**2, b**2).p_value


def test_differences_of_accuracies_are_in_their_unit_and_tied_where_they_are_equal():
    """Multiples of 1/1000: nine differences of .02 and one of -.02 are tied, whatever their rounding."""
    a = [0.83, 0.81, 0.79, 0.85, 0.82, 0.8, 0.86, 0.9, 0.7, 0.6]
    b = [x + 0.02 for x in a[:-1]] + [0.58]
    found = compare(by_seed(a), by_seed(b), below=0, scale=DIFFERENCE)
    assert found.p_value == pytest.approx(2 * 11 / 1024)  # of 2^10 patterns those with at most one of the other sign
    assert found.effect == pytest.approx(-0.02) and found.verdict == SUPPORTED and found.n_true == 9
    lost = compare(by_seed([-math.inf, *a]), by_seed([0.5, *b]), below=0, scale=DIFFERENCE)
    assert (lost.n_pairs, lost.n_true, lost.verdict) == (11, 10, SUPPORTED)  # a diverged a is the worst


class TestEnds:
    @pytest.mark.parametrize(
        "factor, verdict, p_value",
        [(2, SUPPORTED, 2 / 256), (4.95, UNDECIDED, None), (10, REFUTED, 2 / 256), (100, REFUTED, 2 / 256)],
    )
    def test_a_factor_is_one_end(self, factor, verdict, p_value):
        """Losses 4.6 to 5.3 times as high."""
        a = {seed: 1.0 + seed for seed in range(8)}
        b = {seed: value * (4.6 + 0.1 * seed) for seed, value in a.items()}
        found = compare(b, a, above=factor)
        assert found.verdict == verdict and (p_value is None or found.p_value == p_value)
        assert (found.low > factor) == (verdict == SUPPORTED) and (found.high < factor) == (verdict == REFUTED)

    @pytest.mark.parametrize(
        "shift, verdict", [(11, SUPPORTED), (9, REFUTED), (13, REFUTED), (10, UNDECIDED), (0, REFUTED), (12, UNDECIDED)]
    )
    def test_a_margin_has_two_that_must_both_be_rejected(self, shift, verdict):
        noise = 0.1 * np.random.default_rng(0).permutation(np.arange(-4.5, 5))
        a = by_seed(80 + shift + noise)
        found = compare(a, dict.fromkeys(a, 80.0), above=10, below=12, scale=DIFFERENCE)
        assert found.verdict == verdict
        assert found.n_true == {11: 10, 10: 5, 12: 5}.get(shift, 0)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({}, "expected one end"),
            ({"above": 2, "below": 1}, "expected one end, or two in order"),
            ({"below": 0}, "got 0 for the end of a ratio"),
            ({"above": math.inf, "scale": DIFFERENCE}, "got inf for the end of a difference: expected a finite number"),
            ({"below": 1, "alpha": 1.0}, "got alpha 1.0: expected a number between 0 and 1"),
            ({"below": 1, "scale": "odds"}, "odds"),
        ],
    )
    def test_impossible_claims_are_refused(self, options, message):
        with pytest.raises(UsageError, match=message):
            compare({0: 1.0}, {0: 2.0}, **options)


def test_impossible_values_are_refused():
    with pytest.raises(UsageError, match="got a negative loss -1"):
        compare({0: -1.0}, {0: 1.0}, below=1)
    with pytest.raises(UsageError, match="got None in a difference"):
        compare({0: None}, {0: 1.0}, below=1, scale=DIFFERENCE)


def test_after_the_correction_only_what_stands_in_the_family_is_decided():
    a = by_seed(np.arange(1.0, 13.0))
    strong, weak = compare(a, {s: 9 * x for s, x in a.items()}, below=1), lower([1.0] * 6, [2.0] * 6)
    open_ = compare(a, {s: x * (0.5 if s % 2 else 2) for s, x in a.items()}, below=1)
    untested = compare(a, {}, below=1)
    found = corrected([weak, strong, open_, untested])
    assert [one.verdict for one in found] == [SUPPORTED, SUPPORTED, UNDECIDED, UNDECIDED]
    assert [one.corrected for one in found] == [UNDECIDED, SUPPORTED, UNDECIDED, UNDECIDED]
    assert found[1].adjusted_p == 3 * 2 / 4096 and found[1].family == 3
    assert found[0].adjusted_p == 2 * weak.p_value
    assert found[0].why.endswith("; 0.062 after Holm's correction; to decide one claim of 3 takes 7 seeds")
    assert found[3] == untested and corrected(found) == found


def test_false_verdicts_stay_below_alpha():
    rng = np.random.default_rng(1)
    losses = 10 ** rng.normal(-5, 2, size=(200, 2, 8))
    decided = sum(lower(a, b).verdict != UNDECIDED for a, b in losses)
    assert 0 < decided <= 18
