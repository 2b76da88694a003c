"""Vision transformers: each operation written out, timm's numbers where timm is installed, and the source's options."""

import math

import pytest
import torch
from support.written_out import gelu, layer_norm, linear, patches

from kansciml.layers.attention import Attention
from kansciml.layers.drop_path import DropPath
from kansciml.layers.images.patch_embedding import PatchEmbedding
from kansciml.models.base import VARIANTS
from kansciml.models.registry import build_model, find, model_config

SMALL = {"image_size": 16, "patch": 8, "classes": 5, "width": 12, "depth": 2, "heads": 3}


def attention(state, prefix, x, heads):
    """One head at a time."""
    q, key, v = linear(state, f"{prefix}.qkv", x).chunk(3, -1)
    d, found = x.shape[-1] // heads, []
    for h in range(heads):
        cut = slice(h * d, (h + 1) * d)
        scores = (q[..., cut] @ key[..., cut].mT / math.sqrt(d)).exp()
        found.append(scores / scores.sum(-1, keepdim=True) @ v[..., cut])
    return linear(state, f"{prefix}.proj", torch.cat(found, -1))


def test_it_is_the_transformer_written_out():
    model = build_model("deit-tiny", **SMALL).double().eval()
    for parameter in model.parameters():  # away from zero biases and unit norms
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    x, w = torch.randn(3, 3, 16, 16, dtype=torch.float64), model.state_dict()
    z = torch.cat([w["cls_token"].expand(3, -1, -1), patches(w, "patch_embed.proj", x, 8)], 1) + w["pos_embed"]
    for k in range(2):
        p = f"blocks.{k}"
        z = z + attention(w, f"{p}.attn", layer_norm(w, f"{p}.norm1", z, 1e-6), heads=3)
        z = z + linear(w, f"{p}.mlp.fc2", gelu(linear(w, f"{p}.mlp.fc1", layer_norm(w, f"{p}.norm2", z, 1e-6))))
    expected = linear(w, "head", layer_norm(w, "norm", z[:, 0], 1e-6))
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


def test_layers_refuse_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="got width 10 and 3 heads: expected heads that divide the width"):
        Attention(10, 3)
    with pytest.raises(ValueError, match=r"got image size 8 and patch 3 .* a patch that divides the image"):
        PatchEmbedding(8, 3, 3, 4)
    assert Attention(12, 3, qkv_bias=False).qkv.bias is None and PatchEmbedding(8, 3, 2, 4).tokens == 16


def test_patches_are_contiguous_or_all_layers_after_them_would_be_strided():
    assert PatchEmbedding(8, 3, 2, 4)(torch.zeros(2, 3, 8, 8)).is_contiguous()
