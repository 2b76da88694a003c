"""Matched KANs: sizes by counting by hand, by brute force over widths, and what cannot be matched."""

from dataclasses import dataclass

import pytest

from kansciml._errors import UsageError
from kansciml.analysis.matching import kan_size, matched_hidden, mlp_size


@dataclass(frozen=True)
class Slot:
    name: str
    widths: tuple[int, ...]
    rows: int = 10
    count: int = 3
    lost: int = 0


def test_sizes_by_hand():
    slot = Slot("one", (6, 20, 4), rows=10, lost=18)
    assert mlp_size(slot, "params") == 6 * 20 + 20 + 20 * 4 + 4 + 18
    # multiply-adds, biases, and 5 for every SiLU between the layers
    assert mlp_size(slot, "flops") == 10 * (2 * 6 * 20 + 20 + 5 * 20 + 2 * 20 * 4 + 4)
    assert kan_size((6, 3, 4), 10, "spline", "params") == (6 * 3 + 3 * 4) * 10
    assert kan_size((6, 3, 4), 10, "spline", "params", grid=7, spline_order=2, bias=True) == (6 * 3 + 3 * 4) * 11 + 7
    assert kan_size((6, 3, 4), 10, "rswaf", "params", grid=8) == (6 * 3 + 3 * 4) * 8 + 2 * (6 + 3)
    rswaf = 10 * (6 * (8 + 5 * 8) + 2 * 6 * 3 * 8 + 3 * (8 + 5 * 8) + 2 * 3 * 4 * 8)
    assert kan_size((6, 3, 4), 10, "rswaf", "flops", grid=8) == rswaf


@pytest.mark.parametrize("by", ["params", "flops"])
@pytest.mark.parametrize("layer, grid", [("spline", 5), ("rswaf", 8)])
def test_one_slot_gets_the_nearest_width(layer, grid, by):
    slot = Slot("one", (40, 300, 24))
    wanted = mlp_size(slot, by)
    nearest = min(range(1, 300), key=lambda h: abs(kan_size((40, h, 24), 10, layer, by, grid=grid) - wanted))
    assert matched_hidden([slot], layer, by, grid=grid) == (nearest,)


def test_what_rounding_leaves_the_finer_slot_makes_up_for():
    """The sum is off by at most half a step of the finest slot."""
    coarse, fine = Slot("coarse", (128, 64, 128)), Slot("fine", (16, 512, 16))
    for order in ([coarse, fine], [fine, coarse]):
        hidden = matched_hidden(order, "spline", "params")
        found = sum(kan_size((s.widths[0], h, s.widths[-1]), 10, "spline", "params") for s, h in zip(order, hidden))
        assert abs(found - sum(mlp_size(slot, "params") for slot in order)) <= 2 * 16 * 10 / 2
    assert matched_hidden([coarse, fine], "spline", "params") == hidden[::-1]


def test_parameters_that_the_kan_form_drops_are_given_back():
    slot = Slot("one", (50, 200, 50))
    richer = Slot("one", (50, 200, 50), lost=1000 * 2)
    steps = matched_hidden([richer], "spline", "params")[0] - matched_hidden([slot], "spline", "params")[0]
    assert steps == 2  # 1,000 parameters a hidden feature


def test_no_match_is_told():
    with pytest.raises(UsageError, match="no hidden width gives spline KANs as many parameters"):
        matched_hidden([Slot("one", (40, 3, 40))], "spline", "params")
    with pytest.raises(UsageError, match="as many operations"):
        matched_hidden([Slot("one", (40, 10))], "spline", "flops")


@pytest.mark.parametrize(
    "layer, by, options, message",
    [
        ("spline", "memory", {}, "unknown measure to match 'memory': expected one of params, flops"),
        ("fourier", "params", {}, "unknown KAN layer 'fourier'"),
        ("spline", "params", {"spline_order": 0}, "got spline_order 0: expected at least 1"),
        ("rswaf", "params", {"grid": 4}, "got 4 RSWAF grid points: expected 8"),
    ],
)
def test_mistakes_are_told(layer, by, options, message):
    with pytest.raises(UsageError, match=message):
        matched_hidden([Slot("one", (40, 300, 24))], layer, by, **options)
