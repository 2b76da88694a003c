"""KANConv2d: exactly the spline layer on unfolded patches, derivatives to the third order, grids, and what it keeps."""

from __future__ import annotations

import copy

import pytest
import torch
from support.spline_layers import BACKENDS, as_function, draw_weights, normal
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, vmap
from torch.nn import functional as F

from kansciml import KANConv2d, SplineKAN
from kansciml.analysis.memory import saved_for_backward

SHAPES = [
    {"groups": 1, "kernel_size": 3},
    {"groups": 2, "kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2)},
    {"groups": 4, "kernel_size": 2, "dilation": (2, 1), "padding": 1, "bias": True},
    {"groups": 4, "kernel_size": 3, "stride": 2, "padding": 3, "dilation": 2},
    {"groups": 1, "kernel_size": 1},
]
OPTIONS = [
    {},
    {"grid": 2, "spline_order": 1, "outside": "clamp", "base_activation": None},
    {"grid": 4, "spline_order": 2, "outside": "linear", "base_activation": "gelu", "spline_scale": False},
    {"grid": 3, "spline_order": 0, "grid_range": (-2.0, 1.0)},
]


def conv(n_in=4, n_out=8, even=True, **options):
    layer = draw_weights(KANConv2d(n_in, n_out, dtype=torch.float64, **options))
    if not even:
        widths = 0.2 + normal(*layer.knots.diff(dim=1).shape, seed=3).abs()
        layer.set_knots(torch.cat([torch.zeros(n_in, 1), widths.cumsum(1)], 1).double() * 0.5 - 1.2)
    return layer


def unfolded(layer, x, groups, kernel_size, stride=1, padding=0, dilation=1, bias=False, **options):
    """The same by PyTorch's unfolding and one `SplineKAN` for every group, weights taken over one by one."""
    rows, columns = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    patches = F.unfold(x, (rows, columns), dilation, padding, stride)  # (N, C rows columns, L)
    n_in, n_out, taps = layer.in_channels // groups, layer.out_channels // groups, rows * columns
    found = []
    for group, own in enumerate(patches.chunk(groups, 1)):
        kan = SplineKAN(n_in * taps, n_out, dtype=torch.float64, **options)
        kan.set_knots(layer.knots[group * n_in : (group + 1) * n_in].repeat_interleave(taps, 0))
        with torch.no_grad():
            for c in range(n_in):
                for k in range(taps):
                    for o in range(n_out):
                        place = group * n_in + c, ..., o * taps + k
                        kan.spline_weight[c * taps + k, :, o] = layer.spline_weight[place]
                        for name in ("base_weight", "spline_scale"):
                            if getattr(layer, name) is not None:
                                getattr(kan, name)[c * taps + k, o] = getattr(layer, name)[place]
        found.append(kan(own.transpose(1, 2)).transpose(1, 2))
    y = torch.cat(found, 1)
    y = y if layer.bias is None else y + layer.bias[:, None]
    span = [dilation] * 2 if isinstance(dilation, int) else dilation
    border, step = ([one] * 2 if isinstance(one, int) else one for one in (padding, stride))
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], border, span, (rows, columns), step)
    ]
    return y.reshape(len(x), -1, *sizes)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_the_spline_layer_on_unfolded_patches(shape, options, even):
    layer, x = conv(even=even, **shape, **options), normal(3, 4, 7, 6, seed=1)
    truth = unfolded(layer, x, **shape, **options)
    y = layer(x)
    assert y.shape == truth.shape
    torch.testing.assert_close(y, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options, even", [({}, True), (OPTIONS[1], False)])
def test_the_spline_layers_kernels_give_the_same_over_patches(shape, options, even, backend):
    found = []
    for own in ("auto", backend):
        layer = conv(even=even, backend=own, **shape, **options)
        x, weights = normal(2, 4, 7, 6, seed=1).requires_grad_(), list(layer.parameters())
        y = layer(x)
        found.append((y, *torch.autograd.grad(y, (x, *weights), normal(*y.shape, seed=2))))
        assert layer(x[:0]).shape == (0, *y.shape[1:])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES[1:4])
@pytest.mark.parametrize("options", [{"grid": 2}, {**OPTIONS[2], "grid": 2}])
def test_derivatives_are_differences_of_values_and_of_derivatives(shape, options):
    layer = conv(n_out=4, **shape, **options)
    call, weights = as_function(layer)
    arguments = [t.detach().requires_grad_() for t in (0.9 * normal(1, 4, 4, 3, seed=5), *weights)]
    assert gradcheck(call, arguments, fast_mode=True)
    assert gradgradcheck(call, arguments, fast_mode=True)


@pytest.mark.parametrize("keep", [False, True])
def test_products_with_a_kept_graph_are_those_of_the_composite(keep):
    layer, x = conv(groups=2, kernel_size=2, base_activation="gelu"), normal(2, 4, 4, 4).requires_grad_()
    layer.keep_basis = keep
    weights = [x, *layer.parameters()]
    along = [normal(*t.shape, seed=9) for t in weights]

    def products(y):
        first = torch.autograd.grad(y.square().sum(), weights, create_graph=True)
        return [torch.autograd.grad(first, weights, along, retain_graph=True) for _ in range(3)]

    with torch.autograd.forward_ad.dual_level():  # where the layer is in plain operations
        truth = products(layer(x))[0]
    for found in products(layer(x)):
        torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-11)


def test_third_derivatives_are_differences_of_second_ones():
    layer, x = conv(n_in=1, n_out=1, kernel_size=2, spline_order=4), normal(1, 1, 2, 2)

    def second(at):
        at = at.requires_grad_()
        first = torch.autograd.grad(layer(at).square().sum(), at, create_graph=True)[0]
        return torch.autograd.grad(first.sum(), at, create_graph=True)[0].sum()

    at = x.clone().requires_grad_()
    first = torch.autograd.grad(layer(at).square().sum(), at, create_graph=True)[0]
    third = torch.autograd.grad(torch.autograd.grad(first.sum(), at, create_graph=True)[0].sum(), at)[0]
    step, one = 1e-5, torch.zeros_like(x)
    one[0, 0, 1, 0] = step
    truth = (second(x + one) - second(x - one)) / (2 * step)
    assert third[0, 0, 1, 0].item() == pytest.approx(truth.item(), rel=1e-6)


def test_transforms_and_compiled_calls_see_the_same_values():
    layer, x = conv(groups=4, kernel_size=3, padding=1), normal(3, 4, 5, 5)
    weights = {name: torch.stack([p, 2 * p]) for name, p in layer.named_parameters()}
    many = vmap(lambda own: functional_call(layer, own, (x,)))(weights)
    torch.testing.assert_close(many[0], layer(x))
    first = torch.func.jvp(layer, (x,), (torch.ones_like(x),))[1]
    step = 1e-6
    torch.testing.assert_close(first, (layer(x + step) - layer(x - step)) / (2 * step), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("change", ["update", "extend"])
def test_grids_move_and_are_refined_with_the_function_kept(change):
    layer, x = conv(groups=2, kernel_size=3, padding=1, outside="linear"), 0.4 * normal(16, 4, 6, 6)
    before = layer(x)
    error = layer.update_grid(x) if change == "update" else layer.extend_grid(10, x)
    assert layer.knots.shape == (4, 2 * 3 + 1 + (5 if change == "update" else 10))
    off = (layer(x) - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert off < (0.2 if change == "update" else 1e-6) and error.relative < 0.2


def test_it_keeps_splines_once_per_pixel_and_not_once_per_tap():
    layer = KANConv2d(4, 4, 5, padding=2, groups=4)
    x = torch.randn(2, 4, 40, 40, requires_grad=True)
    padded, outputs = 2 * 4 * 44 * 44, 2 * 4 * 40 * 40
    kept = saved_for_backward(lambda: layer(x), apart=[layer.knots, layer.cells]) / 4
    assert kept == (1 + 9) * padded + 9 * layer.base_weight.numel() < 25 * outputs


def test_weights_are_drawn_as_those_of_the_unfolded_layer():
    layer, alike = KANConv2d(64, 64, 3, groups=4, init="noise"), SplineKAN(16 * 9, 16, init="noise")
    for name in ("base_weight", "spline_scale"):
        own, other = (getattr(one, name).std().item() for one in (layer, alike))
        assert own == pytest.approx(other, rel=0.05)
    again = copy.deepcopy(layer)
    for one in (layer, again):
        one.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(layer.spline_weight, again.spline_weight)


def test_casts_autocast_and_devices_leave_the_grid_alone():
    layer, x = KANConv2d(2, 2, 3, bias=True), torch.randn(1, 2, 5, 5)
    truth = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), truth, rtol=0.05, atol=0.05)
    assert layer.to(torch.bfloat16).knots.dtype == torch.float64
    assert (
        "KANConv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, grid=5"
        in repr(layer)
    )


@pytest.mark.parametrize(
    "options, message",
    [({"groups": 3}, "groups 3: expected multiples"), ({"kernel_size": 0}, "kernel_size 0"),
     ({"padding": -1}, "padding -1"), ({"stride": (1, 2, 3)}, "stride"), ({"backend": "cuda"}, "got backend 'cuda'"),
     ({"grid": 0}, "grid 0")],
)  # fmt: skip
def test_wrong_sizes_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        KANConv2d(4, 4, **{"kernel_size": 3, **options})


@pytest.mark.parametrize(
    "x, message",
    [(torch.zeros(4, 5, 5), "expected .N, 4, H, W"), (torch.zeros(1, 3, 5, 5), "expected .N, 4, H, W"),
     (torch.zeros(1, 4, 2, 5), "got images of 2 x 5: expected at least 3 x 3"),
     (torch.zeros(1, 4, 5, 5, dtype=torch.float64), "got input of torch.float64")],
)  # fmt: skip
def test_wrong_images_are_one_line(x, message):
    with pytest.raises(ValueError, match=message):
        KANConv2d(4, 4, 3)(x)
