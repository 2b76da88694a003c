"""The mixer against its equations written out, for every variant, and what it asks of its sizes."""

import math

import pytest
import torch

from kansciml._errors import UsageError
from kansciml.models.base import VARIANTS
from kansciml.models.registry import build_model, model_config

SMALL = {"image_size": 8, "channels": 2, "classes": 3, "width": 6, "depth": 2, "token_hidden": 5, "channel_hidden": 7}


def written_out(state, x, variant, patch, plain_kan):
    """The forward pass from the state: patches one by one, then blocks with matrix products and SciPy's splines."""
    b, _, size, _ = x.shape
    kernel = state["patch_embed.proj.weight"].flatten(1)
    rows = [
        x[:, :, i : i + patch, j : j + patch].reshape(b, -1) @ kernel.T + state["patch_embed.proj.bias"]
        for i in range(0, size, patch)
        for j in range(0, size, patch)
    ]
    z = torch.stack(rows, 1)  # (B, N, D)

    def norm(z, prefix):
        centred = z - z.mean(-1, keepdim=True)
        z = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return z * state[f"{prefix}.weight"] + state.get(f"{prefix}.bias", 0)

    def mix(z, prefix):
        if variant != "mlp":
            return plain_kan(state, prefix, z, variant)
        z = z @ state[f"{prefix}layers.0.weight"].T + state[f"{prefix}layers.0.bias"]
        z = z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))
        return z @ state[f"{prefix}layers.1.weight"].T + state[f"{prefix}layers.1.bias"]

    for k in range(2):
        z = z + mix(norm(z, f"blocks.{k}.norm1").mT, f"blocks.{k}.tokens.").mT
        z = z + mix(norm(z, f"blocks.{k}.norm2"), f"blocks.{k}.channels.")
    return norm(z, "norm").mean(1) @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_mixer_written_out(variant, fair, plain_kan):
    model = build_model("mixer-nano", variant, fair=fair, **SMALL).double()
    for parameter in model.parameters():  # away from zero biases, unit scales and norms
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    expected = written_out(model.state_dict(), x, variant, 4, plain_kan)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size, channels, patch, tokens", [(28, 1, 4, 49), (8, 1, 2, 16), (32, 3, 4, 64)])
def test_mnist_digits_and_cifar_fit(size, channels, patch, tokens):
    options = {"image_size": size, "channels": channels, "patch": patch, "width": 8, "depth": 1}
    model = build_model("mixer-nano", "kan-spline", **options)
    assert model.patch_embed.tokens == model.config.tokens == tokens
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"got images of shape \(2, 5, 8, 8\)"):
        model(torch.zeros(2, 5, 8, 8))


def test_a_shift_before_rswaf_kans_over_patches_would_have_no_effect():
    """Why the model has none: the layer's own LayerNorm takes away what is added to all patches alike."""
    block = build_model("mixer-nano", "kan-rswaf", **SMALL).double().blocks[0]
    z, shift = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(block.tokens((z + shift).mT), block.tokens(z.mT), rtol=1e-9, atol=1e-9)
    assert (
        block.norm1.bias is None and build_model("mixer-nano", "kan-spline", **SMALL).blocks[0].norm1.bias is not None
    )


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


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch": 5}, "got patch 5 for images of 32 x 32: expected a patch that divides the image"),
        ({"token_hidden": 0}, "got token_hidden 0: expected at least 1"),
        ({"variant": "kan"}, "unknown variant 'kan': expected one of mlp, kan-spline, kan-rswaf"),
        ({"kan_hidden": (4,)}, r"got kan_hidden \(4,\): expected 2 widths \(tokens, channels\)"),
        ({"spline_order": -1}, "got spline_order -1"),
        ({"grid_range": (1.0, -1.0)}, "mixer: got grid_range"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UsageError, match=message):
        build_model("mixer-nano", **{"variant": "kan-spline", **options})


@pytest.mark.parametrize("patch, tokens", [(8, 1), (4, 4)])
def test_the_shift_before_an_rswaf_kan_is_left_out_where_a_layer_norm_would_lose_it(patch, tokens):
    net = build_model("mixer-nano", "kan-rswaf", **{**SMALL, "patch": patch})
    assert net.config.tokens == tokens
    for block in net.blocks:
        assert (block.norm1.bias is None) == (block.tokens.layers[0].layernorm is not None) == (tokens >= 3)
