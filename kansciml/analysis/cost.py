"""Counts what a layer costs: parameters, operations, and elements of memory. No tensors, no torch.

Sizes: I inputs, O outputs, B samples, G grid intervals, S spline order. An element is one number (4 bytes in float32).
`equation_1` is the paper's estimate (Pal & Das 2024, section 3); the functions ``*_layer`` count what an implementation
does, tensor by tensor, and agree with what `kansciml.analysis.memory` measures.

Conventions. One addition, multiplication, comparison or exponential is one floating-point operation (FLOP), so a
multiply-add is two. Memory is above what the call was given: parameters, buffers and the input are not in the peaks.
The step is a forward and a backward pass down to the input's gradient; the caller holds output and cotangent.
"""

from __future__ import annotations

from dataclasses import dataclass

from kansciml._errors import UsageError

SILU_FORWARD, SILU_BACKWARD = 5, 9
"""FLOPs per element: x / (1 + exp(-x)) and g s (1 + x (1 - s)), the sigmoid s counted again."""
RSWAF_POINTS = 8
RSWAF_NORMALISED = 3
"""Inputs from which an RSWAF layer begins with a LayerNorm, unless it is told not to."""
BLOCK_BYTES, BLOCK_ROWS, PART_BYTES, SPLIT_BYTES = 1 << 20, 1024, 1 << 22, 1 << 19
"""Of `SplineKAN` on a CPU, at most: bytes of a block of basis values and samples in it, bytes of the weights that meet
it, and bytes of the products of weights and gradients that are summed to the scales' gradients at a time."""
BLOCK_TEMPORARIES = {"value": 3, "slope": 5, "step or hat": 9}
"""At most so many blocks are alive at once: building splines, splines with slopes, and either at order 1."""
CONV_BLOCK, CONV_TEMPORARIES = 1 << 16, 14
"""Of `KANConv2d`: splines that it evaluates at a time, and at most so many numbers alive for each."""


def _require_sizes(sizes: object) -> None:
    for name, value in vars(sizes).items():
        if value < 1:
            raise UsageError(f"got {name} {value}: expected at least 1")


@dataclass(frozen=True)
class Sizes:
    """Sizes of one layer, each at least 1; else a UsageError."""

    inputs: int
    outputs: int
    batch: int
    grid: int = 5
    spline_order: int = 3

    def __post_init__(self) -> None:
        _require_sizes(self)

    @property
    def products(self) -> tuple[int, int, int]:
        """B I, B O, and I O: elements of input, output and a weight matrix."""
        return self.batch * self.inputs, self.batch * self.outputs, self.inputs * self.outputs


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Args:
        parameters, buffers: learnable numbers, and constants beside them.
        forward_flops, backward_flops: operations of one pass each.
        saved: elements kept for the backward pass, the input included and parameters apart.
        forward_peak: most elements alive at once in the forward pass.
        step_peak: most elements alive at once in a forward and backward pass, gradients included.
    """

    parameters: int
    buffers: int
    forward_flops: int
    backward_flops: int
    saved: int
    forward_peak: int
    step_peak: int

    @property
    def footprint(self) -> int:
        """Parameters, buffers and the peak of a step: all the layer needs to be trained without an optimiser."""
        return self.parameters + self.buffers + self.step_peak


@dataclass(frozen=True)
class Equation:
    """The terms of Equation (1), in elements that a KAN layer needs beyond a fully connected one: forward
    I (1 + G + S) B, backward I (G + S - 1) B - O B, and parameters as printed, or corrected."""

    forward: int
    backward: int
    parameters: int

    @property
    def total(self) -> int:
        """Their sum."""
        return self.forward + self.backward + self.parameters


def equation_1(sizes: Sizes, corrected: bool = False) -> Equation:
    """Equation (1) of the paper, as printed or corrected.

    A fully connected layer has O (I + 1) parameters. The paper says so in its text, but subtracts I (O + 1) in the
    equation, which is off by O - I: the corrected difference is I O (2 + G + S) - O (I + 1) = I O (1 + G + S) - O.
    """
    i, o, b, size = sizes.inputs, sizes.outputs, sizes.batch, sizes.grid + sizes.spline_order
    linear = o * (i + 1) if corrected else i * (o + 1)
    return Equation(i * (1 + size) * b, i * (size - 1) * b - o * b, i * o * (2 + size) - linear)


def equation_2(sizes: Sizes) -> int:
    """Equation (2) of the paper as printed, I [2 (G + S) B + (G + S + 1) O - 1] - O B: the total of Equation (1)."""
    i, o, b, size = sizes.inputs, sizes.outputs, sizes.batch, sizes.grid + sizes.spline_order
    return i * (2 * size * b + (size + 1) * o - 1) - o * b


def linear_layer(sizes: Sizes) -> LayerCost:
    """Fully connected layer with bias, then SiLU: it keeps its input and what goes into the SiLU."""
    o, b = sizes.outputs, sizes.batch
    bi, bo, weights = sizes.products
    return LayerCost(
        parameters=weights + o,
        buffers=0,
        forward_flops=2 * b * weights + bo + SILU_FORWARD * bo,
        backward_flops=4 * b * weights + bo + SILU_BACKWARD * bo,
        saved=bi + bo,
        forward_peak=2 * bo,
        # y, its cotangent, SiLU's input and its gradient; later the three gradients take the place of SiLU's input
        step_peak=max(4 * bo, 3 * bo + bi + weights + o),
    )


def textbook_layer(sizes: Sizes) -> LayerCost:
    """B-spline KAN layer by the Cox-de Boor recursion on whole tensors, one scale per edge: `TextbookKAN`.

    Level k of the recursion has P_k = G + 2S - k splines. Autograd keeps the indicator (P_0), and from level 2 on both
    factors of both products, the two fractions (P_k each) and the level below (P_{k-1}); of level 1 only the
    denominators are left, since the indicator has no gradient.
    """
    i, b, order = sizes.inputs, sizes.batch, sizes.spline_order
    bi, bo, weights = sizes.products
    splines = [sizes.grid + 2 * order - k for k in range(order + 1)]
    size = splines[order]
    kept = [splines[0]]  # per input and sample, up to level k
    for k in range(1, order + 1):
        kept.append(kept[-1] + (2 * splines[k] + splines[k - 1] if k > 1 else 0))
    denominators = [2 * i * sum(splines[1 : k + 1]) for k in range(order + 1)]
    scaled = weights * size
    # at level k: the SiLU, what is kept, level 1's fractions (variables hold them), two products and their sum
    level_peaks = [
        bi * (1 + kept[k] + (2 * splines[1] if k == 1 else 0) + 3 * splines[k]) + denominators[k]
        for k in range(1, order + 1)
    ]
    recursion = bi * (1 + kept[order]) + denominators[order]
    forward_peak = max(
        max(level_peaks) + scaled + bo,
        recursion + bi * size + scaled + 3 * bo,  # base and spline parts, and their sum
    )
    step_peak = max(
        forward_peak,
        recursion + 2 * bi * size + 2 * scaled + 2 * bo,  # gradients of the splines and of the scaled weight
        # second product of the last level: its factors' gradients, beside those of the first, one of them padded
        recursion + bi * ((3 * size + splines[order - 1]) if order > 1 else 0) + scaled + 2 * bo,
        3 * scaled + 2 * weights + 2 * bo + bi,  # the scaled weight's gradient becomes two
    )
    basis_flops = 2 * splines[0] + sum(7 * p for p in splines[1:])
    slope_flops = sum(11 * p for p in splines[1:])
    return LayerCost(
        parameters=weights * (2 + size),
        buffers=i * (sizes.grid + 2 * order + 1),
        forward_flops=bi * (SILU_FORWARD + basis_flops) + 2 * b * weights * (1 + size) + scaled + bo,
        backward_flops=bi * (SILU_BACKWARD + slope_flops) + 4 * b * weights * (1 + size) + 3 * scaled,
        saved=recursion + bi * (1 + size) + scaled,
        forward_peak=forward_peak,
        step_peak=step_peak,
    )


def basis_forward(grid: int, order: int) -> int:
    """FLOPs of all G + S B-splines at one input, each by the truncated powers of its closed form."""
    return (grid + order) * (3 + (order // 2 + 1) * (order + 3))


def spline_layer(sizes: Sizes, element_bytes: int = 4) -> LayerCost:
    """`SplineKAN` on a CPU in plain PyTorch, one scale per edge: it keeps its input alone and rebuilds the splines.

    The splines are built in blocks that stay in cache, so the peaks hold a few blocks and not I (G + S) B elements; how
    many (`BLOCK_TEMPORARIES`) is a bound, so these peaks are "at most".
    """
    i, o, b, order = sizes.inputs, sizes.outputs, sizes.batch, sizes.spline_order
    size = sizes.grid + order
    bi, bo, weights = sizes.products
    scaled = weights * size
    rows = min(BLOCK_ROWS, b)
    per_input = size * element_bytes
    inputs = min(i, max(1, min(BLOCK_BYTES // (rows * per_input), PART_BYTES // (o * per_input))))
    block = inputs * rows * size
    part = inputs * size * o  # scaled weights of one block
    splits = min(inputs, max(1, SPLIT_BYTES // (o * per_input)))
    values, slopes = ("value", "slope") if order > 1 else ("step or hat",) * 2
    terms = order // 2 + 1  # truncated powers of the closed form
    basis_flops = basis_forward(sizes.grid, order)
    slope_flops = basis_flops + size * (2 + 2 * terms + 3)
    forward_peak = bo + max(bi + bo, part + BLOCK_TEMPORARIES[values] * block + rows * i)
    return LayerCost(
        parameters=weights * (2 + size),
        buffers=i * (sizes.grid + 2 * order + 1) + 2 * i,  # knots, and what is read of them: the grid's ends and steps
        forward_flops=bi * (SILU_FORWARD + basis_flops) + 2 * b * weights * (1 + size) + scaled + bo,
        backward_flops=bi * (SILU_BACKWARD + slope_flops) + 4 * b * weights * (1 + size) + 4 * scaled,
        saved=bi,
        forward_peak=forward_peak,
        step_peak=max(
            forward_peak,
            # y, its cotangent, gradients; then the base branch, or a block of splines and weights, with sums of some
            2 * bo
            + 2 * weights
            + scaled
            + bi
            + max(bi, part + BLOCK_TEMPORARIES[slopes] * block + 2 * rows * i + splits * o),
        ),
    )


def rswaf_layer(sizes: Sizes, layer_norm: bool = True) -> LayerCost:
    """RSWAF layer in plain autograd operations: LayerNorm, phi = 1 - tanh((x - g) / h)^2 at 8 points, one weight each.

    No base branch and no bias. The 8 grid points are frozen and count as buffers; the paper's table counts them as
    parameters. Kept: the input with its mean and scale per sample, the tanh, and phi. G and S play no part.
    Without `layer_norm` the input is not kept; `RSWAFKAN` has one from `RSWAF_NORMALISED` inputs on.
    """
    i, b, points, normed = sizes.inputs, sizes.batch, RSWAF_POINTS, int(layer_norm)
    bi, bo, edges = sizes.products
    weights = edges * points
    statistics = 2 * b * normed
    forward_peak = max(3 * points * bi, 2 * points * bi + bo) + statistics
    return LayerCost(
        parameters=weights + 2 * i * normed,
        buffers=points,
        forward_flops=bi * (8 * normed + 5 * points) + 2 * b * weights,
        backward_flops=bi * (12 * normed + 5 * points) + 4 * b * weights,
        saved=bi * (normed + 2 * points) + statistics,
        forward_peak=forward_peak,
        step_peak=max(
            forward_peak,
            5 * points * bi + weights + 2 * bo + statistics,  # autograd's power rule makes three of the five
        ),
    )


@dataclass(frozen=True)
class ConvSizes:
    """Sizes of one convolution, each at least 1; else a UsageError.

    Args:
        inputs, outputs: channels C and O, multiples of `groups`. taps: rows times columns of the kernel.
        pixels, positions: of one image, with its padding, and of one output. batch, grid, spline_order: B, G, S.
    """

    inputs: int
    outputs: int
    taps: int
    pixels: int
    positions: int
    batch: int = 1
    groups: int = 1
    grid: int = 5
    spline_order: int = 3

    def __post_init__(self) -> None:
        _require_sizes(self)

    @property
    def edges(self) -> int:
        """C (O / groups) taps: weights of an ordinary convolution, functions of a KAN's."""
        return self.inputs * (self.outputs // self.groups) * self.taps


def conv_parameters(sizes: ConvSizes) -> int:
    """Of an ordinary convolution, with one bias per output: `torch.nn.Conv2d`."""
    return sizes.edges + sizes.outputs


def kan_conv_layer(sizes: ConvSizes) -> LayerCost:
    """`KANConv2d`, one scale per edge, no bias: splines and SiLU once per pixel, then a convolution over these maps.

    It keeps padded input, maps, and the filters made of the weights. Peaks are "at most": they hold the temporaries of
    a block, and what PyTorch's convolution takes for itself is not in them.
    """
    size, edges, n = sizes.grid + sizes.spline_order, sizes.edges, sizes.batch * sizes.inputs * sizes.pixels
    outputs, maps = sizes.batch * sizes.outputs * sizes.positions, (1 + size) * n
    terms = sizes.spline_order // 2 + 1
    basis_flops = size * (3 + terms * (sizes.spline_order + 3))
    slope_flops = basis_flops + size * (2 + 2 * terms + 3)
    products = 2 * sizes.batch * sizes.positions * edges * (1 + size)
    filters, block = (1 + size) * edges, CONV_TEMPORARIES * min(CONV_BLOCK + sizes.inputs * size, size * n)
    saved = n + maps + filters
    return LayerCost(
        parameters=edges * (2 + size),
        buffers=sizes.inputs * (sizes.grid + 2 * sizes.spline_order + 3),
        forward_flops=n * (SILU_FORWARD + basis_flops) + products + edges * size,
        backward_flops=n * (SILU_BACKWARD + slope_flops) + 2 * maps + 2 * products + 4 * edges * size,
        saved=saved,
        forward_peak=saved + max(n + block, outputs + size * edges),
        # the cotangents of the maps; then a block of slopes, or the gradients of the weights
        step_peak=saved + n + 2 * maps + max(block, 2 * outputs + 3 * filters),
    )
