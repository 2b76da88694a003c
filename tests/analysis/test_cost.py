"""Counted costs: the paper's numbers, and what is measured of real layers, to the element."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kansciml import KANConv2d, UsageError
from kansciml.analysis.cost import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    CONV_BLOCK,
    PART_BYTES,
    SPLIT_BYTES,
    ConvSizes,
    Sizes,
    conv_parameters,
    equation_1,
    equation_2,
    kan_conv_layer,
    linear_layer,
    rswaf_layer,
    spline_layer,
    textbook_layer,
)
from kansciml.analysis.memory import measure_fake, training_step
from kansciml.layers._kernels import plain
from kansciml.layers.images import kan_conv
from kansciml.layers.spline_kan import SplineKAN
from kansciml.layers.textbook_kan import TextbookKAN

SIZES = [
    Sizes(64, 64, 128),
    Sizes(4, 6, 32),
    Sizes(64, 64, 1),
    Sizes(1, 1000, 100),
    Sizes(100, 1, 100),
    Sizes(1, 1, 1000, 5, 1),
    Sizes(1, 1, 1000, 1, 2),
    Sizes(50, 50, 3, 2, 1),
    Sizes(30, 30, 10, 3, 4),
    Sizes(256, 256, 16, 10, 2),
    Sizes(3, 5, 700, 1, 1),
]


class PlainRSWAF(nn.Module):
    """RSWAF in autograd's own operations, 8 frozen points."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.norm = nn.LayerNorm(n_in)
        self.weight = nn.Parameter(torch.zeros(n_out, n_in * 8))
        self.register_buffer("points", torch.linspace(-1, 1, 8))

    def forward(self, x):
        phi = 1 - torch.tanh((self.norm(x).unsqueeze(-1) - self.points) * 2.0) ** 2
        return F.linear(phi.flatten(1), self.weight)


def measured(make, sizes):
    """(kept, forward peak, step peak) in elements."""
    layers = []

    def build(step):
        layers[:] = [make()]
        x = torch.empty(sizes.batch, sizes.inputs, requires_grad=True)
        return training_step(layers[0], x) if step else lambda: layers[0](x)

    def buffers():
        return list(layers[0].buffers())

    forward = measure_fake(lambda: build(False), buffers=buffers)
    step = measure_fake(lambda: build(True), buffers=buffers)
    return forward.saved_bytes / 4, forward.peak_bytes / 4, step.peak_bytes / 4


def counted(cost):
    return cost.saved, cost.forward_peak, cost.step_peak


def test_equation_2_at_the_papers_setting():
    sizes = Sizes(64, 64, 128, 5, 3)
    terms = equation_1(sizes)
    # I (1+G+S) B, I (G+S-1) B - O B, and the parameters
    assert (terms.forward, terms.backward, terms.parameters) == (73_728, 49_152, 36_800)
    assert terms.total == equation_2(sizes) == 159_680


def test_the_misprint_of_equation_1():
    sizes = Sizes(64, 128, 128, 5, 3)
    assert equation_1(sizes).parameters == 73_664
    assert equation_1(sizes, corrected=True).parameters == 73_600
    for size in SIZES:
        difference = textbook_layer(size).parameters - linear_layer(size).parameters
        assert equation_1(size, corrected=True).parameters == difference
        assert equation_1(size).total - equation_1(size, corrected=True).total == size.outputs - size.inputs
        assert equation_1(size).total == equation_2(size)


def test_parameters_are_those_of_the_layers():
    for sizes in SIZES:
        i, o, spline = sizes.inputs, sizes.outputs, (sizes.grid, sizes.spline_order)
        for made, cost in (
            (nn.Linear(i, o), linear_layer(sizes)),
            (TextbookKAN(i, o, *spline), textbook_layer(sizes)),
            (SplineKAN(i, o, *spline), spline_layer(sizes)),
            (PlainRSWAF(i, o), rswaf_layer(sizes)),
        ):
            assert sum(p.numel() for p in made.parameters()) == cost.parameters
            constants = [*made.buffers(), *([made.cells] if isinstance(made, SplineKAN) else [])]
            assert sum(constant.numel() for constant in constants) == cost.buffers


def test_rswaf_parameters_are_those_of_table_1():
    """DeiT-Tiny and -Small have 24 KAN layers, 192 -> 192, or 384 -> 192 and back: 14,384,164 - 12,624,100 and
    39,385,060 - 35,860,132 between spline and RSWAF, whose frozen grid the table counts."""

    def difference(i, o):
        sizes = Sizes(i, o, 1)
        rswaf = rswaf_layer(sizes)
        return textbook_layer(sizes).parameters - rswaf.parameters - rswaf.buffers

    assert 24 * difference(192, 192) == 14_384_164 - 12_624_100
    assert 12 * (difference(384, 192) + difference(192, 384)) == 39_385_060 - 35_860_132


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_textbook_memory_is_what_is_measured_to_the_element(sizes):
    make = lambda: TextbookKAN(sizes.inputs, sizes.outputs, sizes.grid, sizes.spline_order)  # noqa: E731
    # knots are buffers, but the denominators made from them are not
    assert counted(textbook_layer(sizes)) == measured(make, sizes)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_linear_and_rswaf_memory_is_what_is_measured(sizes):
    i, o = sizes.inputs, sizes.outputs
    assert counted(linear_layer(sizes)) == measured(lambda: nn.Sequential(nn.Linear(i, o), nn.SiLU()), sizes)
    assert counted(rswaf_layer(sizes)) == measured(lambda: PlainRSWAF(i, o), sizes)


@pytest.mark.parametrize("sizes", [*SIZES, Sizes(256, 256, 2048), Sizes(784, 64, 64)], ids=str)
def test_our_layer_keeps_its_input_alone_and_stays_below_its_bound(sizes):
    make = lambda: SplineKAN(sizes.inputs, sizes.outputs, sizes.grid, sizes.spline_order, backend="torch")  # noqa: E731
    saved, forward, step = measured(make, sizes)
    cost = spline_layer(sizes)
    assert saved == cost.saved == sizes.batch * sizes.inputs
    assert forward <= cost.forward_peak and step <= cost.step_peak <= 1.5 * step


@pytest.mark.parametrize(
    "sizes, side",
    [(ConvSizes(4, 4, 25, 144, 64, 2, 4), 8), (ConvSizes(8, 16, 9, 324, 256, 4), 16),
     (ConvSizes(16, 16, 9, 900, 784, 8, 16, 8, 2), 28), (ConvSizes(8, 8, 1, 400, 400, 2, 2, 3, 1), 20),
     (ConvSizes(32, 64, 25, 400, 256, 1), 16)],
)  # fmt: skip
def test_a_kan_convolution_keeps_its_maps_and_stays_below_its_bound(sizes, side):
    kernel, make = round(sizes.taps**0.5), []

    def build(step):
        conv = KANConv2d(
            sizes.inputs, sizes.outputs, kernel, padding=kernel // 2, groups=sizes.groups, grid=sizes.grid,
            spline_order=sizes.spline_order,
        )  # fmt: skip
        make[:] = [conv]
        x = torch.empty(sizes.batch, sizes.inputs, side, side, requires_grad=True)
        return training_step(conv, x) if step else lambda: conv(x)

    buffers = lambda: [make[0].knots, make[0].cells]  # noqa: E731
    forward, step = (measure_fake(lambda on=on: build(on), buffers=buffers) for on in (False, True))
    cost = kan_conv_layer(sizes)
    assert forward.saved_bytes / 4 == cost.saved
    assert (
        forward.peak_bytes / 4 <= cost.forward_peak and step.peak_bytes / 4 <= cost.step_peak <= 2 * step.peak_bytes / 4
    )
    assert sum(p.numel() for p in make[0].parameters()) == cost.parameters
    assert sum(constant.numel() for constant in buffers()) == cost.buffers
    ordinary = nn.Conv2d(sizes.inputs, sizes.outputs, kernel, groups=sizes.groups)
    assert conv_parameters(sizes) == sum(p.numel() for p in ordinary.parameters())


def test_blocks_are_those_of_the_layer():
    assert CONV_BLOCK == kan_conv.BLOCK
    assert (BLOCK_BYTES, PART_BYTES, SPLIT_BYTES) == (plain.BLOCK_BYTES, plain.PART_BYTES, plain.SPLIT_BYTES)
    assert BLOCK_ROWS == plain.ROWS


def test_the_textbook_layer_keeps_what_peers_were_measured_to_keep():
    """74 numbers per input and sample at G = 5, S = 3 (296 bytes in float32), and 8 per weight."""
    one, two = (textbook_layer(Sizes(10, 10, b)).saved for b in (1, 2))
    assert (two - one) / 10 == 74


def test_operations_of_the_matrix_products_dominate_wide_layers():
    """2 B I O (1 + G + S) forward, twice that backward."""
    sizes = Sizes(2000, 2000, 300)
    products = 2 * 300 * 2000 * 2000 * 9
    for cost in (textbook_layer(sizes), spline_layer(sizes)):
        assert products < cost.forward_flops < 1.2 * products
        assert 2 * products < cost.backward_flops < 2.4 * products


def test_sizes_below_one_are_named():
    with pytest.raises(UsageError, match="got batch 0: expected at least 1"):
        Sizes(1, 1, 0)
