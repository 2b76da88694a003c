"""The mixer against its equations written out, for every variant, and what it asks of its sizes."""

import pytest
import torch
from support.written_out import layer_norm, linear, mixing, patches

from kansciml.models.base import VARIANTS
from kansciml.models.registry import build_model, model_config

SMALL = {"image_size": 8, "channels": 2, "classes": 3, "width": 6, "depth": 2, "token_hidden": 5, "channel_hidden": 7}


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_mixer_written_out(variant, fair):
    model = build_model("mixer-nano", variant, fair=fair, **SMALL).double()
    for parameter in model.parameters():  # away from zero biases, unit scales and norms
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    x, state = torch.randn(3, 2, 8, 8, dtype=torch.float64), model.state_dict()
    z = patches(state, "patch_embed.proj", x, 4)
    for k in range(2):
        z = z + mixing(state, f"blocks.{k}.tokens.", layer_norm(state, f"blocks.{k}.norm1", z).mT, variant).mT
        z = z + mixing(state, f"blocks.{k}.channels.", layer_norm(state, f"blocks.{k}.norm2", z), variant)
    expected = linear(state, "head", layer_norm(state, "norm", z).mean(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_a_shift_before_rswaf_kans_over_patches_would_have_no_effect():
    """Why the model has none: the layer's own LayerNorm takes away what is added to all patches alike."""
    block = build_model("mixer-nano", "kan-rswaf", **SMALL).double().blocks[0]
    z, shift = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(block.tokens((z + shift).mT), block.tokens(z.mT), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant, patch, tokens", [("kan-rswaf", 8, 1), ("kan-rswaf", 4, 4), ("kan-spline", 4, 4)])
def test_the_shift_is_left_out_where_a_layer_norm_would_lose_it_and_only_there(variant, patch, tokens):
    net = build_model("mixer-nano", variant, **{**SMALL, "patch": patch})
    assert net.config.tokens == net.patch_embed.tokens == tokens
    for block in net.blocks:
        normed = getattr(block.tokens.layers[0], "layernorm", None) is not None
        assert (block.norm1.bias is None) == normed == (variant == "kan-rswaf" and tokens >= 3)


def test_kan_hidden_widths_replace_the_mlps():
    config = model_config("mixer-nano", "kan-spline", kan_hidden=(11, 3))
    assert config.kan_widths() == ((64, 11, 64), (128, 3, 128))
    assert build_model("mixer-nano", "kan-spline", depth=1, kan_hidden=(11, 3)).blocks[0].tokens.widths == (64, 11, 64)
    assert model_config("mixer-nano", "kan-spline").kan_widths() == ((64, 512, 64), (128, 64, 128))


def test_grid_options_reach_the_kans():
    options = {"grid": 7, "spline_order": 2, "grid_range": (-3.0, 3.0)}
    layer = build_model("mixer-nano", "kan-spline", **options, **SMALL).blocks[1].channels.layers[0]
    assert (layer.grid, layer.spline_order) == (7, 2) and layer.grid_range == pytest.approx((-3, 3))
    rswaf = build_model("mixer-nano", "kan-rswaf", grid=6, **SMALL).blocks[1].channels.layers[0]
    assert rswaf.grid == 6


def test_drop_path_rises_with_depth():
    model = build_model("mixer-nano", drop_path=0.2, **{**SMALL, "depth": 3})
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2])
