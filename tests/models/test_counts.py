"""Parameter counts: those behind the paper's figures and Table 1, number for number; matched KANs against the MLPs'."""

import pytest
import torch

from kansciml.analysis.matching import matched
from kansciml.models.base import count_parameters
from kansciml.models.registry import available_models, build_model, find

MIXERS = {
    ("mixer-nano", "mlp", ""): 673_418,
    ("mixer-nano", "kan-spline", ""): 6_565_514,
    ("mixer-nano-c512", "mlp", ""): 1_132_170,
    ("mixer-nano-c512", "kan-spline", ""): 11_153_034,
    ("conv-mixer-256-8", "mlp", ""): 594_186,
    ("conv-mixer-256-8", "kan-spline", "replace"): 5_310_730,
    ("conv-mixer-256-8", "kan-spline", "append"): 5_837_066,
    ("conv-mixer-256-8", "kan-spline", "head"): 617_216,
    ("conv-mixer-256-8", "kan-spline", "grouped"): 1_052_938,
    ("conv-mixer-128-4", "mlp", ""): 84_618,
    ("conv-mixer-128-4", "kan-spline", "replace"): 673_930,
    ("conv-mixer-128-4", "kan-spline", "append"): 739_978,
    ("conv-mixer-128-4", "kan-spline", "head"): 96_128,
    ("conv-mixer-128-4", "kan-spline", "grouped"): 199_306,
}
TABLE_1 = {  # active, computed (with the source's dead MLPs)
    ("deit-tiny", "mlp"): (5_543_716, 5_543_716),
    ("deit-small", "mlp"): (21_704_164, 21_704_164),
    ("deit-base", "mlp"): (85_875_556, 85_875_556),
    ("deit-tiny", "kan-spline"): (10_833_700, 14_384_164),
    ("deit-tiny", "kan-rswaf"): (9_073_636, 12_624_100),
    ("deit-small", "kan-spline"): (25_206_244, 39_385_060),
    ("deit-small", "kan-rswaf"): (21_681_316, 35_860_132),
}


@pytest.mark.parametrize("name, variant, placement", MIXERS, ids=lambda value: value or "none")
def test_the_mixers_of_figure_3_and_4(name, variant, placement):
    model, preset = find(name)
    options = {"placement": placement} if placement else {}
    counts = model.count(model.config(preset, variant, **options))
    assert counts.active == counts.trainable == MIXERS[name, variant, placement]


@pytest.mark.parametrize("name, variant", TABLE_1)
def test_the_transformers_of_table_1(name, variant):
    model, preset = find(name)
    config = model.config(preset, variant)
    active, computed = TABLE_1[name, variant]
    counts = model.count(config)
    assert counts.active == active and counts.active + config.dead_parameters() == computed
    assert counts.grid_points == (12 * 2 * 8 if variant == "kan-rswaf" else 0)
    assert abs(computed - model.printed[preset, variant]) < 100_000  # printed in millions, some of them cut off


@pytest.mark.parametrize(
    "name, options, mixing",
    [
        ("mixer-nano", {}, 8 * (2 * 64 * 512 * 8 + 2 * (64 + 512) + 2 * 128 * 64 * 8 + 2 * (128 + 64) - 128)),
        ("conv-mixer-256-8", {"placement": "replace"}, 8 * (256 * 256 * 8 + 2 * 256)),
        ("conv-mixer-128-4", {"placement": "head"}, 128 * 10 * 8 + 2 * 128),
    ],
)
def test_rswaf_mixers_by_hand(name, options, mixing):
    """A layer has 8 I O weights and 2 I numbers of LayerNorm; what else there is, the MLP variant tells.

    The mixer's LayerNorms before RSWAF KANs over patches have no shift, 128 numbers fewer a block.
    """
    model, preset = find(name)
    mlp = {
        "mixer-nano": 8 * (64 * 512 + 512 + 512 * 64 + 64 + 128 * 64 + 64 + 64 * 128 + 128),
        "conv-mixer-256-8": 8 * 256 * 257,
        "conv-mixer-128-4": 129 * 10,
    }
    rest = model.count(model.config(preset)).trainable - mlp[name]
    assert model.count(model.config(preset, "kan-rswaf", **options)).trainable == rest + mixing


@pytest.mark.parametrize("variant", ["mlp", "kan-spline", "kan-rswaf"])
def test_counted_without_memory_is_counted_in_memory(variant):
    model, preset = find("deit-tiny")
    config = model.config(preset, variant, depth=1, fair=True)
    network = model.build(config)
    assert model.count(config) == count_parameters(network)
    # independent of the model's own bookkeeping: every number of the state, but for the knots
    sizes = [v.numel() for name, v in network.state_dict().items() if not name.endswith("knots")]
    assert model.count(config).active == sum(sizes)


MATCHED = [
    (name, variant, fair)
    for name in available_models()
    for variant in ("kan-spline", "kan-rswaf")
    for fair in (False, True)
]


@pytest.mark.parametrize("name, variant, fair", MATCHED)
def test_matched_kans_have_the_mlps_parameters(name, variant, fair):
    """Within 1.5 % of the whole model; ConvMixer-128/4 with splines can only choose between 5 % less and 7 % more."""
    model, preset = find(name)
    options = {"placement": "replace"} if name.startswith("conv") else {}
    config = matched(model.config(preset, variant, fair=fair, **options), "params")
    ratio = model.count(config).active / model.count(model.config(preset)).active
    assert abs(ratio - 1) < (0.06 if (name, variant) == ("conv-mixer-128-4", "kan-spline") else 0.015)


def test_counting_leaves_the_default_device_alone():
    model, preset = find("mixer-nano")
    model.count(model.config(preset, "kan-rswaf"))
    assert torch.get_default_device().type == "cpu"
    assert build_model("mixer-nano", depth=1).head.weight.device.type == "cpu"
