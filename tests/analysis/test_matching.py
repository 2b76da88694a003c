"""Matched KANs: sizes by counting by hand, by brute force over widths, and what cannot be matched."""

from dataclasses import dataclass

import pytest

from kansciml import KAN, UsageError
from kansciml.analysis.matching import kan_size, matched, matched_hidden, mixing_size, mlp_size, pass_flops
from kansciml.models.registry import find


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


def test_operations_of_both_passes_by_hand():
    forward, backward = pass_flops("mlp", (6, 20, 4))
    assert forward == mlp_size(Slot("one", (6, 20, 4), rows=1), "flops")
    # products for both gradients, one addition for each bias, and 9 for every SiLU between the layers
    assert backward == 4 * (6 * 20 + 20 * 4) + 20 + 4 + 9 * 20
    forward, backward = pass_flops("kan", (6, 3, 4), 7, 2)
    assert forward == kan_size((6, 3, 4), 1, "spline", "flops", 7, 2) < backward


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


@pytest.mark.parametrize("by", ["params", "flops"])
def test_a_direct_slot_keeps_its_size_and_the_others_make_up_for_it(by):
    """As an operator's lift, a single KAN layer: brute force over the one hidden width that is left."""
    lift, projection = Slot("lift", (3, 32), rows=49, count=1), Slot("projection", (32, 128, 1), rows=49, count=1)
    (found,) = matched_hidden([lift, projection], "spline", by, direct=("lift",))
    wanted = mlp_size(lift, by) + mlp_size(projection, by)

    def size(hidden):
        return kan_size((3, 32), 49, "spline", by) + kan_size((32, hidden, 1), 49, "spline", by)

    assert found == min(range(1, 200), key=lambda hidden: abs(size(hidden) - wanted))
    assert matched_hidden([projection], "spline", by) > (found,)


def test_a_direct_slot_too_large_for_the_others_is_no_match():
    lift, projection = Slot("lift", (3, 32), count=1), Slot("projection", (4, 8, 1), count=1)
    with pytest.raises(UsageError, match="no hidden width gives spline KANs as many parameters"):
        matched_hidden([lift, projection], "spline", "params", direct=("lift",))


@pytest.mark.parametrize("variant", ["kan-spline", "kan-rswaf"])
@pytest.mark.parametrize("by, key", [("params", "trainable"), ("flops", None)])
def test_operators_are_matched_in_lift_and_projection(variant, by, key):
    family, preset = find("fno-wt", kind="operator")
    mlp = family.config(preset, width=16, modes=(4, 4), resolution=29)
    kan = matched(family.config(preset, variant, width=16, modes=(4, 4), resolution=29), by)
    if key:
        counts = [family.count(config).trainable for config in (mlp, kan)]
        rest = counts[0] - (3 * 16 + 16 + 16 * 128 + 128 + 128 + 1)  # what both have in common
        assert counts[1] - rest == pytest.approx(counts[0] - rest, rel=0.1)
    else:
        by_hand = 29**2 * (2 * 3 * 16 + 16 + 2 * 16 * 128 + 128 + 5 * 128 + 2 * 128 + 1)
        assert mixing_size(mlp, "flops") == by_hand and mixing_size(kan, "flops") == pytest.approx(by_hand, rel=0.1)
    assert len(kan.kan_hidden) == 1 and kan.projection == mlp.projection


def test_flops_without_a_formula_are_none():
    family, preset = find("fno-wt", kind="operator")
    assert mixing_size(family.config(preset, "kan-rswaf", grid=5), "flops") is None
    assert mixing_size(family.config(preset, "kan-spline", spline_order=0), "flops") is None


@pytest.mark.parametrize("by", ["params", "flops"])
def test_rswaf_layers_are_counted_with_the_layer_norm_that_they_have(by):
    with_norm = {"params": 2, "flops": 10 * 8}[by]  # per input
    for widths, normed in (((1, 2, 4), 0), ((2, 3, 4), 3), ((3, 4, 1), 7)):
        plain = kan_size(widths, 10, "rswaf", by, grid=8, normalised=False)
        assert kan_size(widths, 10, "rswaf", by, grid=8) == plain + with_norm * normed
        if by == "params":
            assert kan_size(widths, 10, "rswaf", by, grid=8) == sum(
                p.numel() for p in KAN(widths, "rswaf").parameters()
            )


def test_the_lift_of_an_operator_is_counted_without_one():
    model, preset = find("fno-wt", kind=None)
    config = model.config(preset, "kan-rswaf")
    lift, projection = config.slots()
    widths = config.kan_widths()
    flops = kan_size(widths[0], lift.rows, "rswaf", "flops", grid=8, normalised=False)
    assert mixing_size(config, "flops") == flops + kan_size(widths[1], projection.rows, "rswaf", "flops", grid=8)
