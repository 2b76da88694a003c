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

from kansciml.layers._kernels.activations import activate, slope, times_slope
from kansciml.layers._kernels.basis import evaluate
from kansciml.layers.bspline import SplineSpec

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
        self.memory: Tensor | None = None
        self.buffers: tuple[Tensor, ...] = ()

    def _views(self, x: Tensor) -> tuple[Tensor, ...]:
        """Buffers for blocks like this: of one piece, which an allocator keeps at hand, unlike several."""
        count = 2 + self.derivatives + (self.derivatives > 0 or self.spec.spline_order > 3)
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
        # of two terms without derivatives, the last power of t takes its place
        power, t, *found = self.buffers if top or order > 3 else (self.buffers[0], *self.buffers)
        root = factorial(order) ** (-1 / order)  # so that t ** S carries 1 / S!
        low, per = cells.unsqueeze(2).unbind()
        per = per * root
        first = 0.5 * (1 - order) * root
        centres = torch.arange(first, first + (self.size - 0.5) * root, root, dtype=x.dtype, device=x.device)
        outer = centres.unsqueeze(1), (x - low).mul_(per).unsqueeze(1)
        torch.sub(0.5 * (order + 1) * root, torch.sub(*outer, out=t).abs_(), out=t).relu_()
        for j in range(order // 2 + 1):
            into = [power] * len(found) if j else found
            if j:
                t.sub_(root).relu_()
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
        if self.buffer is None:  # the first part is the largest
            self.buffer = torch.empty_like(weight, memory_format=torch.contiguous_format)
        part = self.buffer[: len(weight)]
        return torch.mul(weight, self.scale[column].unsqueeze(1), out=part).flatten(0, 1)


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


def split_scale(spline_weight: Tensor, spline_scale: Tensor, gspline: Tensor, gscale: Tensor) -> None:
    """From the gradient of the scaled weights in gspline, those of both factors: in place, and to gscale."""
    at_a_time = max(1, SPLIT_BYTES // (gspline[0].numel() * gspline.element_size()))
    products = torch.empty_like(gspline[:at_a_time], memory_format=torch.contiguous_format)
    for i in range(0, len(gspline), at_a_time):
        part = slice(i, i + at_a_time)
        grad = gspline[part]
        gscale[part] = torch.mul(grad, spline_weight[part], out=products[: len(grad)]).sum(1)
        grad.mul_(spline_scale[part].unsqueeze(1))


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
        gscale = None if w.scale is None else fresh(w.scale)
    if need_x:
        gx = torch.zeros_like(x)
    if w.base is not None:
        if need_weights:
            gbase = activation(spec.activation, x, kept).to(dtype).t() @ gy
        if need_x:
            gx = sloped(spec.activation, (gy @ w.base.t()).to(x.dtype), x, kept)
    weight_of = Scaler(w.spline, w.scale)
    for block, product in evaluated(given, int(need_x), kept):
        row, column, (values, *slopes), per = block
        cotangent = gy[row]
        if gspline is not None:
            grad = gspline[column].view(-1, gy.shape[1])
            add_product(grad, values.to(dtype).flatten(0, 1), cotangent, first=row.start == 0)
            if w.scale is not None and gscale is not None and row.stop == len(x):
                split_scale(w.spline[column], w.scale[column], gspline[column], gscale[column])
        if gx is not None:
            of_basis = product(weight_of(column), cotangent.t(), values)
            gx[row, column].add_(of_basis.mul_(slopes[0]).sum(1).mul_(per).t().contiguous())  # two quick passes
    return Parts(gx, gbase, None if gspline is None else gspline.to(dtype), gscale)
