"""Vision transformers: each operation written out, timm's numbers where timm is installed, and the source's options."""

import math

import pytest
import torch

from kansciml._errors import UsageError
from kansciml.layers.attention import Attention
from kansciml.layers.drop_path import DropPath
from kansciml.layers.patch_embedding import PatchEmbedding
from kansciml.models.base import VARIANTS
from kansciml.models.registry import build_model, find, model_config

SMALL = {"image_size": 16, "patch": 8, "classes": 5, "width": 12, "depth": 2, "heads": 3}


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def written_out(w, x, heads, patch):
    """The forward pass of the MLP variant from its state dict, one head, one patch at a time."""
    b, _, size, _ = x.shape
    kernel = w["patch_embed.proj.weight"].flatten(1)  # (D, C P P)
    rows = [
        x[:, :, i : i + patch, j : j + patch].reshape(b, -1) @ kernel.T + w["patch_embed.proj.bias"]
        for i in range(0, size, patch)
        for j in range(0, size, patch)
    ]
    z = torch.stack([w["cls_token"][0, 0].expand(b, -1), *rows], 1) + w["pos_embed"]
    d = z.shape[-1] // heads
    for k in range(sum(name.endswith("norm1.weight") for name in w)):
        p = {name.removeprefix(f"blocks.{k}."): value for name, value in w.items() if name.startswith(f"blocks.{k}.")}
        n = layer_norm(z, p["norm1.weight"], p["norm1.bias"])
        q, key, v = (n @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]).chunk(3, -1)
        found = []
        for h in range(heads):
            cut = slice(h * d, (h + 1) * d)
            scores = q[..., cut] @ key[..., cut].transpose(1, 2) / math.sqrt(d)
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            found.append(weights @ v[..., cut])
        z = z + torch.cat(found, -1) @ p["attn.proj.weight"].T + p["attn.proj.bias"]
        n = layer_norm(z, p["norm2.weight"], p["norm2.bias"])
        hidden = n @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        z = z + hidden @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
    return layer_norm(z[:, 0], w["norm.weight"], w["norm.bias"]) @ w["head.weight"].T + w["head.bias"]


def test_it_is_the_transformer_written_out():
    model = build_model("deit-tiny", **SMALL).double().eval()
    for parameter in model.parameters():  # away from zero biases and unit norms
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    expected = written_out(model.state_dict(), x, heads=3, patch=8)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_it_is_timms_model(size):
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises the latter
        pytest.skip(f"timm cannot be imported: {error}")
    theirs = timm.create_model(f"deit_{size}_patch16_224", num_classes=100).eval()
    ours = build_model(f"deit-{size}").eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.05)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_and_fair_options(variant):
    """The source's KANs have no query, key and value biases, no own biases and no drop-path; fair ones have all."""
    published, fair = (build_model("deit-tiny", variant, fair=fair, **SMALL) for fair in (False, True))
    mlp = variant == "mlp"
    assert ("blocks.0.attn.qkv.bias" in published.state_dict()) is mlp
    assert "blocks.0.attn.qkv.bias" in fair.state_dict()
    assert [block.drop_path.rate for block in published.blocks] == ([0.0, 0.1] if mlp else [0.0, 0.0])
    assert [block.drop_path.rate for block in fair.blocks] == [0.0, 0.1]
    if not mlp:
        assert published.blocks[0].kan.layers[0].bias is None and fair.blocks[0].kan.layers[1].bias is not None
        assert build_model("deit-tiny", variant, drop_path=0.2, **SMALL).blocks[1].drop_path.rate == 0.2


def test_drop_path_keeps_the_mean_and_leaves_whole_samples_out():
    layer = DropPath(0.25)
    y = layer(torch.ones(4000, 3, 2))
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, (kept / 0.75)[:, None, None].expand_as(y).to(y.dtype))
    assert abs(kept.float().mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    assert torch.equal(layer.eval()(y), y)
    with pytest.raises(ValueError, match="got drop-path rate 1"):
        DropPath(1.0)


def test_the_dead_mlp_of_the_source_is_counted_and_not_built():
    config = model_config("deit-tiny", "kan-spline")
    model, preset = find("deit-tiny")
    assert not any("mlp" in name for name in model.build(model.config(preset, "kan-spline", **SMALL)).state_dict())
    assert config.dead_parameters() == 12 * (192 * 768 + 768 + 768 * 192 + 192)
    assert model_config("deit-tiny").dead_parameters() == 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch": 15}, "got patch 15 for images of 224 x 224"),
        ({"heads": 5}, "got width 192 and 5 heads"),
        ({"depth": 0}, "got depth 0"),
        ({"drop_path": 1.0}, "got drop_path 1.0"),
        ({"kan_hidden": (3, 4)}, "expected 1 widths"),
        ({"size": 3}, "unknown option of deit 'size'"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UsageError, match=message):
        build_model("deit-tiny", "kan-spline", **options)


def test_layers_refuse_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="got width 10 and 3 heads: expected heads that divide the width"):
        Attention(10, 3)
    with pytest.raises(ValueError, match=r"got image size 8 and patch 3 .* a patch that divides the image"):
        PatchEmbedding(8, 3, 3, 4)
    assert Attention(12, 3, qkv_bias=False).qkv.bias is None and PatchEmbedding(8, 3, 2, 4).tokens == 16


def test_patches_are_contiguous_or_all_layers_after_them_would_be_strided():
    assert PatchEmbedding(8, 3, 2, 4)(torch.zeros(2, 3, 8, 8)).is_contiguous()


def test_another_image_size_is_refused_by_the_model():
    with pytest.raises(ValueError, match=r"got images of shape \(1, 3, 8, 8\): expected \(B, 3, 16, 16\)"):
        build_model("deit-tiny", **SMALL)(torch.zeros(1, 3, 8, 8))
