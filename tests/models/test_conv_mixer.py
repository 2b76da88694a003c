"""ConvMixer against its equations written out, where its KANs go, and that they work on views of the images."""

import pytest
import torch
from support.written_out import gelu, linear, mixing, patches

from kansciml import KANConv2d, UsageError
from kansciml.models.conv_mixer import PLACEMENTS, OverChannels
from kansciml.models.registry import build_model

SMALL = {"image_size": 8, "channels": 2, "classes": 3, "width": 6, "depth": 2, "kernel": 3}
KANS = [(v, p) for v in ("kan-spline", "kan-rswaf") for p in PLACEMENTS if (v, p) != ("kan-rswaf", "grouped")]
CASES = [("mlp", "append"), *KANS]


def batch_norm(state, prefix, z):
    """In training: by the statistics of the batch."""
    centred = z - z.mean((0, 2, 3), keepdim=True)
    z = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    return z * state[f"{prefix}.weight"][:, None, None] + state[f"{prefix}.bias"][:, None, None]


def depthwise(state, prefix, z):
    """A convolution of 3 x 3 points as shifted sums."""
    size, wide = z.shape[-1], torch.nn.functional.pad(z, (1, 1, 1, 1))
    if f"{prefix}.base_weight" in state:  # of functions whose splines are off
        weight, wide = state[f"{prefix}.base_weight"].reshape(-1, 1, 3, 3), wide / (1 + torch.exp(-wide))
        total = torch.zeros_like(z)
    else:
        weight, total = state[f"{prefix}.weight"], state[f"{prefix}.bias"][:, None, None].expand_as(z).clone()
    for i in range(3):
        for j in range(3):
            total += weight[:, 0, i, j, None, None] * wide[:, :, i : i + size, j : j + size]
    return total


def written_out(state, x, variant, placement):
    z = patches(state, "stem.0", x, 2).mT.unflatten(2, (4, 4))
    z = batch_norm(state, "stem.2", gelu(z))
    on_channels = variant != "mlp" and placement in ("append", "replace")
    for k in range(2):
        p = f"blocks.{k}"
        z = z + batch_norm(state, f"{p}.norm1", gelu(depthwise(state, f"{p}.depthwise", z)))
        at = 0
        if not on_channels or placement == "append":
            weight, bias = state[f"{p}.pointwise.0.weight"][:, :, 0, 0], state[f"{p}.pointwise.0.bias"]
            z, at = torch.einsum("bixy,oi->boxy", z, weight) + bias[:, None, None], 1
        if on_channels:
            z = mixing(state, f"{p}.pointwise.{at}.inner.", z.movedim(1, -1), variant).movedim(-1, 1)
        z = batch_norm(state, f"{p}.norm2", gelu(z))
    z = z.mean((2, 3))
    on_head = variant != "mlp" and placement == "head"
    return mixing(state, "head.", z, variant) if on_head else linear(state, "head", z)


@pytest.mark.parametrize("variant, placement", CASES)
def test_it_is_the_conv_mixer_written_out(variant, placement):
    model = build_model("conv-mixer-128-4", variant, placement=placement, **SMALL).double()
    for parameter in model.parameters():  # away from zero biases, unit scales and norms
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    for module in model.modules():
        if isinstance(module, KANConv2d):
            torch.nn.init.zeros_(module.spline_scale)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    expected = written_out(model.state_dict(), x, variant, placement)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("placement", ["append", "replace"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kans_over_channels_get_and_give_views(placement, memory_format):
    """No KAN copies its input, and its output goes on channels-last, whatever the layout of the images."""
    model = build_model("conv-mixer-128-4", "kan-spline", placement=placement, **SMALL)
    seen = []
    for module in model.modules():
        if isinstance(module, OverChannels):
            module.register_forward_hook(lambda module, inputs, y: seen.append((inputs[0], y)))
            module.inner.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].is_contiguous()))
    model(torch.randn(2, 2, 8, 8).contiguous(memory_format=memory_format)).sum().backward()
    assert seen[0::2] == [True, True]
    for x, y in seen[1::2]:
        assert x.is_contiguous(memory_format=torch.channels_last) and y.is_contiguous(memory_format=torch.channels_last)


def test_depthwise_kans_have_no_hidden_layer_and_splines_alone():
    for variant, options in (("kan-rswaf", {}), ("kan-spline", {"kan_hidden": (3,)})):
        with pytest.raises(UsageError, match="with placement grouped: expected none, and kan-spline"):
            build_model("conv-mixer-128-4", variant, placement="grouped", **options)


def test_over_channels_is_the_module_at_every_pixel():
    inner = torch.nn.Linear(3, 5)
    x = torch.randn(2, 3, 4, 6)
    y = OverChannels(inner)(x)
    assert y.shape == (2, 5, 4, 6)
    torch.testing.assert_close(y[1, :, 2, 5], inner(x[1, :, 2, 5]))
