"""The spline layer's kernels in plain PyTorch: forward and backward without autograd, in blocks that stay in cache.

Nothing but the arguments is needed for the backward pass: the basis is rebuilt, block by block, because writing it once
more costs less than keeping and reading it (a cubic spline is a handful of operations).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import comb, factorial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kansciml.layers._kernels.activations import activate, slope, times_slope
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers.bspline import SplineSpec

_softshrink: Callable[..., Tensor] = F.softshrink  # its stub does not know `out`

ROWS = 1024
"""Samples in a block: enough that packing the weights for a GEMM costs little against the GEMM."""
BLOCK_BYTES = 1 << 20
"""Bytes of one block of the basis, at most."""
PART_BYTES = 1 << 22
"""Bytes of the weights that meet one block, at most: they are scaled just before, and read again from the cache."""
SPLIT_BYTES = 1 << 19
"""Bytes of weights whose scales' gradients are taken at a time: with their gradients in the second-level cache."""


def blocks(spec: SplineSpec, x: Tensor, cells: Tensor, n_out: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Row slice, input slice, x of the block transposed to (i, n) in the dtype to compute in, and the block's cells."""
    n_rows, n_in = x.shape
    size = spec.grid + spec.spline_order
    if x.device.type == "cpu":
        rows = min(ROWS, max(n_rows, 1))
        per_input = size * cells.element_size()
        inputs = max(1, min(BLOCK_BYTES // (rows * per_input), PART_BYTES // (n_out * per_input)))
    else:  # on a device the launches cost more than the memory
        rows = max(1, (1 << 24) // (n_in * size))
        inputs = n_in
    for r in range(0, n_rows, rows):
        row = slice(r, min(r + rows, n_rows))
        transposed = x[row].t().to(cells.dtype).contiguous()
        for i in range(0, n_in, inputs):
            column = slice(i, min(i + inputs, n_in))
            yield row, column, transposed[column], cells[:, column] if spec.uniform else cells[column]


class Weights(NamedTuple):
    """A spline layer's weights but for its bias: (I, O), (I, P, O), (I, O)."""

    base: Tensor | None
    spline: Tensor
    scale: Tensor | None

    @property
    def scaled(self) -> Tensor:
        """The splines' weights with each edge's factor on them."""
        return self.spline if self.scale is None else self.spline * self.scale.unsqueeze(1)


class Given(NamedTuple):
    """What a spline layer's output follows from: x (N, I), and the cells of `evaluate`."""

    spec: SplineSpec
    x: Tensor
    cells: Tensor
    w: Weights


class Parts(NamedTuple):
    """What belongs to x and to each of the weights: gradients, or cotangents of those. None: zero, or not wanted."""

    x: Tensor | None = None
    base: Tensor | None = None
    spline: Tensor | None = None
    scale: Tensor | None = None

    @property
    def vary_splines(self) -> bool:
        """Whether there is one of the splines' weights or of their factors."""
        return self.spline is not None or self.scale is not None


class Filler:
    """Evaluates the splines of block after block into the same buffers: fresh memory would cost more than the sums."""

    def __init__(self, spec: SplineSpec, derivatives: int) -> None:
        self.spec, self.derivatives, self.size = spec, derivatives, spec.grid + spec.spline_order
        smooth = spec.spline_order > max(1, derivatives)  # no steps among the derivatives
        self.in_place = spec.uniform and spec.outside == "zero" and smooth
        self.together = spec.spline_order == 3 and derivatives == 1  # see `_cubic_with_slopes`
        self.memory: Tensor | None = None
        self.buffers: tuple[Tensor, ...] = ()

    def _views(self, x: Tensor) -> tuple[Tensor, ...]:
        """Buffers for blocks like this: of one piece, which an allocator keeps at hand, unlike several."""
        count = 3 if self.together else 2 + self.derivatives + (self.derivatives > 0 or self.spec.spline_order > 3)
        shape = count, x.shape[0], self.size, x.shape[1]
        if self.memory is None:  # the first block is the largest
            self.memory = x.new_empty(shape)
            return self.memory.unbind()
        return self.memory.view(-1)[: shape[0] * shape[1] * shape[2] * shape[3]].view(shape).unbind()

    def __call__(self, x: Tensor, cells: Tensor) -> tuple[list[Tensor], Tensor]:
        """B and derivatives over powers of a factor (i, 1), each (i, P, n), at x (i, n); the factor."""
        if not self.in_place:
            return evaluate(self.spec, x, cells, self.derivatives), x.new_ones(1, 1)
        order, top = self.spec.spline_order, self.derivatives
        if not self.buffers or self.buffers[0].shape[::2] != x.shape:
            self.buffers = self._views(x)
        root = (2 / 3) ** 0.5 if self.together else factorial(order) ** (-1 / order)  # so that t ** S carries 1 / S!
        low, per = cells.unsqueeze(2).unbind()
        per = per * root
        first = 0.5 * (1 - order) * root
        centres = torch.arange(first, first + (self.size - 0.5) * root, root, dtype=x.dtype, device=x.device)
        outer = centres.unsqueeze(1), (x - low).mul_(per).unsqueeze(1)
        if self.together:
            return _cubic_with_slopes(outer, root, self.buffers), per * (order / root)
        # of two terms without derivatives, the last power of t takes its place
        power, t, *found = self.buffers if top or order > 3 else (self.buffers[0], *self.buffers)
        torch.sub(0.5 * (order + 1) * root, torch.sub(*outer, out=t).abs_(), out=t).relu_()
        for j in range(order // 2 + 1):
            into = [power] * len(found) if j else found
            if j:
                _softshrink(t, root, out=t)
            _raise(t, order - top, into[top])
            for k in range(top, -1, -1):
                if k < top:
                    torch.mul(into[k + 1], t, out=into[k])
                if j:
                    found[k].add_(power, alpha=(-1) ** j * comb(order + 1, j))
        if top:
            found[1].mul_(torch.sub(*outer, out=t).sign_())  # each falls on both sides of its centre
            per = per * order
        if top > 1:
            found[2].mul_((order - 1) / order)
        return found, per

    def product(self, a: Tensor, b: Tensor, like: Tensor) -> Tensor:
        """a @ b in the shape of `like`, a block's splines; until the next block or product."""
        if self.buffers and self.buffers[0].dtype == a.dtype:
            return _product_in(self.buffers[0], a, b, like)
        return (a @ b).view(like.shape)


def _cubic_with_slopes(outer: tuple[Tensor, Tensor], root: float, buffers: tuple[Tensor, ...]) -> list[Tensor]:
    """B and, but for a factor, B' by the fewest operations; no terms cancel, save towards the root of B' at d = 0.

    With t = relu(2 - |d|), s = relu(1 - |d|) and m = s^2 - t^2 / 4 <= 0: 6 B = t^3 - 4 s^3 = 4 (s^2 - t m), as s > 0
    only where t = 1 + s, and 6 dB/dd = 12 sign(d) m. Times `root` are d and t, times its square, 2 / 3, are s^2 and m.
    """
    t, values, slopes = buffers
    torch.sub(*outer, out=t).abs_().sub_(2 * root).clamp_(max=0)  # -t: unlike t, all in place
    _softshrink(t, root, out=values).square_()  # s^2
    torch.addcmul(values, t, t, value=-0.25, out=slopes)  # m
    values.addcmul_(t, slopes, value=1 / root)
    return [values, slopes.copysign_(torch.sub(*outer, out=t))]


def _raise(t: Tensor, exponent: int, out: Tensor) -> None:
    """t ** exponent; PyTorch is quick at squares and cubes alone. `out` may be t up to 4."""
    torch.pow(t, exponent if exponent < 4 else 2, out=out)
    if exponent > 3:
        out.square_()
    for _ in range(exponent - 4):
        out.mul_(t)


def _product_in(memory: Tensor, a: Tensor, b: Tensor, _: Tensor) -> Tensor:
    """a @ b in the memory of a block's splines, and in its shape."""
    torch.mm(a, b, out=memory.view(a.shape[0], b.shape[1]))
    return memory


Evaluated = tuple[slice, slice, list[Tensor], Tensor]
"""Rows and inputs of one of `blocks`, its splines with derivatives, and the derivatives' factor (`Filler`)."""
Product = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Kept:
    """What a layer computes from x alone, kept by a graph that serves many products and has the memory for it.

    Args:
        value, slope: act(x) and act'(x), (N, I); None without a base branch.
        blocks: with first derivatives.
    """

    value: Tensor | None
    slope: Tensor | None
    blocks: list[Evaluated]


class Known(NamedTuple):
    """What all products with one gradient's graph share, in memory no larger than x and gy, which it keeps anyway."""

    bend: Tensor | None  # act''(x) (gy base_weight^T) + B'' . (W' gy), (N, I)
    values: Tensor | None  # B^T gy, (I, P, O), where rows are many


def keep(given: Given, known: Known) -> tuple[Known, Kept]:
    """What to keep from now on: what is `known`, and all that `Kept` has."""
    spec, x, found, fill = given.spec, given.x, [], Filler(given.spec, 1)
    for row, column, part, part_cells in blocks(spec, x, given.cells, given.w.spline.shape[-1]):
        basis, per = fill(part, part_cells)
        found.append((row, column, [t.clone() for t in basis], per))
    if spec.activation is None:
        return known, Kept(None, None, found)
    return known, Kept(activate(spec.activation, x), slope(spec.activation, x), found)


def evaluated(given: Given, derivatives: int, kept: Kept | None = None) -> Iterator[tuple[Evaluated, Product]]:
    """`blocks` with the splines and derivatives at them, not to be written to, and `Filler.product`."""
    spec, x, cells, w = given
    if kept is None or derivatives > 1:
        fill = Filler(spec, derivatives)
        for row, column, part, part_cells in blocks(spec, x, cells, w.spline.shape[-1]):
            yield (row, column, *fill(part, part_cells)), fill.product
        return
    largest = max((block[2][0].numel() for block in kept.blocks), default=0)
    memory = torch.empty(largest, dtype=cells.dtype, device=x.device)
    for block in kept.blocks:
        like = block[2][0]
        yield block, partial(_product_in, memory[: like.numel()].view(like.shape))


class Scaler:
    """The scaled weights of some inputs after others, flat (i P, O): in the same buffer, which stays in the cache."""

    def __init__(self, spline_weight: Tensor, spline_scale: Tensor | None) -> None:
        self.weight, self.scale = spline_weight, spline_scale
        self.buffer: Tensor | None = None

    def __call__(self, column: slice) -> Tensor:
        weight = self.weight[column]
        if self.scale is None:
            return weight.flatten(0, 1)
        return torch.mul(weight, self.scale[column].unsqueeze(1), out=self.room(weight)).flatten(0, 1)

    def room(self, weight: Tensor) -> Tensor:
        """Where the scaled weights of these inputs go."""
        if self.buffer is None:  # the first part is the largest
            self.buffer = torch.empty_like(weight, memory_format=torch.contiguous_format)
        return self.buffer[: len(weight)]


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """total += a @ b (= if `first`); a sum over blocks is kept in float32 where the factors are narrower."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if first else 1)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def split_scale(
    spline_weight: Tensor, spline_scale: Tensor, gspline: Tensor, gscale: Tensor, scaled: Tensor | None = None
) -> None:
    """From the gradient of the scaled weights in gspline, those of both factors: in place, and to gscale.

    `scaled`: where the scaled weights go, while their factors are in the cache.
    """
    at_a_time = max(1, SPLIT_BYTES // (gspline[0].numel() * gspline.element_size()))
    layout = torch.contiguous_format
    products = torch.empty_like(gspline[:at_a_time], memory_format=layout) if scaled is None else scaled
    for i in range(0, len(gspline), at_a_time):
        part = slice(i, i + at_a_time)
        grad, weight, scale = gspline[part], spline_weight[part], spline_scale[part].unsqueeze(1)
        into = products[: len(grad)] if scaled is None else scaled[part]
        torch.sum(torch.mul(grad, weight, out=into), 1, out=gscale[part])
        grad.mul_(scale)
        if scaled is not None:
            torch.mul(weight, scale, out=into)


def forward(given: Given) -> Tensor:
    """y (N, O) of a spline KAN layer, in the dtype of the weights."""
    spec, x, cells, w = given
    n_out, dtype = w.spline.shape[-1], w.spline.dtype
    if w.base is None:
        y = x.new_zeros(len(x), n_out, dtype=sum_dtype(dtype))
    else:
        y = (activate(spec.activation, x).to(dtype) @ w.base).to(sum_dtype(dtype))
    fill, weight_of = Filler(spec, 0), Scaler(w.spline, w.scale)
    for row, column, part, part_cells in blocks(spec, x, cells, n_out):
        values = fill(part, part_cells)[0][0].to(dtype)
        add_product(y[row], values.flatten(0, 1).t(), weight_of(column))
    return y.to(dtype)


def activation(name: str | None, x: Tensor, kept: Kept | None) -> Tensor:
    """act(x)."""
    return activate(name, x) if kept is None or kept.value is None else kept.value


def sloped(name: str | None, cotangent: Tensor, x: Tensor, kept: Kept | None, fresh: bool = True) -> Tensor:
    """cotangent * act'(x); a `fresh` cotangent may be overwritten."""
    if kept is None or kept.slope is None:
        return times_slope(name, cotangent, x)
    return cotangent.mul_(kept.slope) if fresh else cotangent * kept.slope


def backward(given: Given, gy: Tensor, need_x: bool, need_weights: bool, kept: Kept | None = None) -> Parts:
    """Gradients of x and the weights, given the output's (N, O). `kept`: of this x, by `keep`."""
    spec, x, _, w = given
    dtype = w.spline.dtype
    gx = gbase = gspline = gscale = None
    if need_weights:
        fresh = torch.empty_like if len(x) else torch.zeros_like  # the first block of rows writes every element
        gspline = fresh(w.spline, dtype=sum_dtype(dtype))
        gscale = None if w.scale is None else fresh(w.scale, dtype=sum_dtype(dtype))
    if need_weights and w.base is not None:
        gbase = activation(spec.activation, x, kept).to(dtype).t() @ gy
    if need_x:
        straight = None if w.base is None else (gy @ w.base.t()).to(x.dtype)
        gx = torch.zeros_like(x) if straight is None else sloped(spec.activation, straight, x, kept)
    weight_of = Scaler(w.spline, w.scale)
    for block, product in evaluated(given, int(need_x), kept):
        row, column, (values, *slopes), per = block
        cotangent, scaled = gy[row], None
        if gspline is not None:
            grad = gspline[column]
            add_product(grad.view(-1, gy.shape[1]), values.to(dtype).flatten(0, 1), cotangent, first=row.start == 0)
            if w.scale is not None and gscale is not None and row.stop == len(x):
                weight = w.spline[column]
                scaled = weight_of.room(weight) if need_x and grad.dtype == dtype else None
                split_scale(weight, w.scale[column], grad, gscale[column], scaled)
        if gx is not None:
            of_basis = product(weight_of(column) if scaled is None else scaled.flatten(0, 1), cotangent.t(), values)
            gx[row, column].add_(of_basis.mul_(slopes[0]).sum(1).mul_(per).t().contiguous())  # two quick passes
    return Parts(gx, gbase, *(None if grad is None else grad.to(dtype) for grad in (gspline, gscale)))
