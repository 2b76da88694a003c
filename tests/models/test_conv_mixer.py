"""ConvMixer against its equations written out, where its KANs go, and that they work on views of the images."""

import math

import pytest
import torch

from kansciml._errors import UsageError
from kansciml.models.conv_mixer import PLACEMENTS, OverChannels
from kansciml.models.registry import build_model

SMALL = {"image_size": 8, "channels": 2, "classes": 3, "width": 6, "depth": 2, "kernel": 3}
CASES = [("mlp", "append"), *((v, p) for v in ("kan-spline", "kan-rswaf") for p in PLACEMENTS)]


def written_out(state, x, variant, placement, plain_kan):
    """The forward pass in training from the state: shifted sums for convolutions, batch statistics for the norms."""

    def batch_norm(z, prefix):
        centred = z - z.mean((0, 2, 3), keepdim=True)
        z = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
        return z * state[f"{prefix}.weight"][:, None, None] + state[f"{prefix}.bias"][:, None, None]

    def gelu(z):
        return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))

    def depthwise(z, prefix):
        weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
        size = z.shape[-1]
        wide = torch.zeros(*z.shape[:2], size + 2, size + 2, dtype=z.dtype)
        wide[:, :, 1:-1, 1:-1] = z
        total = bias[:, None, None].expand_as(z).clone()
        for i in range(3):
            for j in range(3):
                total += weight[:, 0, i, j, None, None] * wide[:, :, i : i + size, j : j + size]
        return total

    def kan(z, prefix):
        return plain_kan(state, prefix, z.movedim(1, -1), variant).movedim(-1, 1)

    patches = x.unfold(2, 2, 2).unfold(3, 2, 2)  # (B, C, n, n, 2, 2)
    z = torch.einsum("bcxyij,dcij->bdxy", patches, state["stem.0.weight"]) + state["stem.0.bias"][:, None, None]
    z = batch_norm(gelu(z), "stem.2")
    on_channels = variant != "mlp" and placement != "head"
    for k in range(2):
        p = f"blocks.{k}"
        z = z + batch_norm(gelu(depthwise(z, f"{p}.depthwise")), f"{p}.norm1")
        kan_at = 0
        if not on_channels or placement == "append":
            weight, bias = state[f"{p}.pointwise.0.weight"][:, :, 0, 0], state[f"{p}.pointwise.0.bias"]
            z = torch.einsum("bixy,oi->boxy", z, weight) + bias[:, None, None]
            kan_at = 1
        if on_channels:
            z = kan(z, f"{p}.pointwise.{kan_at}.inner.")
        z = batch_norm(gelu(z), f"{p}.norm2")
    z = z.mean((2, 3))
    if variant != "mlp" and placement == "head":
        return plain_kan(state, "head.", z, variant)
    return z @ state["head.weight"].T + state["head.bias"]


@pytest.mark.parametrize("variant, placement", CASES)
def test_it_is_the_conv_mixer_written_out(variant, placement, plain_kan):
    model = build_model("conv-mixer-128-4", variant, placement=placement, **SMALL).double()
    for parameter in model.parameters():  # away from zero biases, unit scales and norms
        torch.nn.init.normal_(parameter, 0.1, 0.4)
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    expected = written_out(model.state_dict(), x, variant, placement, plain_kan)
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


def test_over_channels_is_the_module_at_every_pixel():
    inner = torch.nn.Linear(3, 5)
    x = torch.randn(2, 3, 4, 6)
    y = OverChannels(inner)(x)
    assert y.shape == (2, 5, 4, 6)
    torch.testing.assert_close(y[1, :, 2, 5], inner(x[1, :, 2, 5]))


@pytest.mark.parametrize("size, channels, patch", [(28, 1, 2), (8, 1, 1), (32, 3, 4)])
def test_mnist_digits_and_cifar_fit(size, channels, patch):
    options = {"image_size": size, "channels": channels, "patch": patch, "width": 8, "depth": 1}
    model = build_model("conv-mixer-256-8", "kan-spline", **options)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"got images of shape \(2, 5, 8, 8\)"):
        model(torch.zeros(2, 5, 8, 8))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch": 3}, "got patch 3 for images of 32 x 32: expected a patch that divides the image"),
        ({"kernel": 4}, "got kernel 4: expected an odd size"),
        ({"placement": "tail"}, "unknown placement 'tail': expected one of append, replace, head"),
        ({"kan_hidden": (4, 4)}, "expected 1 widths"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(UsageError, match=message):
        build_model("conv-mixer-128-4", "kan-spline", **options)
