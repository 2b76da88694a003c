"""The spline layer's kernels in Triton, for CUDA tensors of float32 or less; loaded when first used.

The same pieces as in C++: how the splines are added to an output, and the gradients of that, along a direction or not.
Forward, backward and double backward passes are made of them. Nothing waits for the device, and no sum depends on the
order in which programs run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from kansciml.layers._kernels import plain, spline_second
from kansciml.layers._kernels._triton import dense, fused, sparse
from kansciml.layers._kernels._triton.library import OPTIONS, cdiv, exact_products, interpreted, runs, tile
from kansciml.layers._kernels.activations import activate
from kansciml.layers._kernels.plain import Given, Known, Parts, Weights
from kansciml.layers._kernels.spline_second import Sums
from kansciml.layers.bspline import SplineSpec

BLOCK = 1 << 25
"""Numbers in a block of the splines, at most."""
FUSED_OUTPUTS = 256
"""Outputs up to which to make the splines in registers, once per 128 outputs, costs less than a block of them."""
SPARSE_FROM = {True: 96, False: 512}
"""Splines per input from which their weights are gathered; float32 products without tensor cores first."""
MOST_INPUTS = 65535
"""Programs that CUDA starts along the second axis, of which the sparse kernels have one per input."""
PROGRAMS = 264
"""Programs that keep a device busy: with fewer, the sum over the inputs is shared and added up by a second kernel."""


def _fits(given: Given) -> bool:
    return len(given.x) > 0 and runs(given.spec.spline_order, given.x, given.w.spline)


def _own(given: Given) -> Given:
    """As the kernels read it."""
    spec, x, cells, w = given
    base, scale = (None if t is None else t.contiguous() for t in (w.base, w.scale))
    return Given(spec, x.contiguous(), cells.contiguous(), Weights(base, w.spline.contiguous(), scale))


def on_device(x: Tensor) -> Any:
    """Where kernels for this tensor are launched."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def options(spec: SplineSpec) -> dict[str, Any]:
    """What all kernels must know of the splines."""
    halvings = (spec.grid + 2 * spec.spline_order).bit_length()
    at = {"S": spec.spline_order, "UNIFORM": spec.uniform, "OUTSIDE": spec.outside}
    return {"G": spec.grid, **at, "HALVINGS": 0 if spec.uniform else halvings, **OPTIONS}


def packed(w: Weights) -> Tensor:
    """The weights (Q I, O), see `dense`."""
    n_in, size, n_out = w.spline.shape
    found = w.spline.new_empty((size + (w.base is not None)) * n_in, n_out)
    block = tile(n_out, 1024)
    has = {"SCALE": w.scale is not None, "BASE": w.base is not None}
    launch = dense.pack[n_in, cdiv(n_out, block)]
    launch(w.spline, w.scale, w.base, found, n_in, size, n_out, **has, BO=block, **OPTIONS)
    return found


def unpacked(grad: Tensor, w: Weights, to: Parts) -> None:
    """The gradients of the weights from that of the packed ones: of the scaled splines' without `to.scale`."""
    n_in, size, n_out = w.spline.shape
    block = tile(n_out, 1024)
    has = {"SPLIT": to.scale is not None, "BASE": to.base is not None}
    launch = dense.unpack[n_in, cdiv(n_out, block)]
    found = to.spline, to.scale, to.base
    launch(grad, w.spline, w.scale, *found, n_in, size, n_out, **has, BO=block, **OPTIONS)


def _exchange(given: Given, along: Tensor | None, block: Tensor, gx: Tensor | None, fill: bool) -> None:
    spec, x, cells, w = given
    n_rows, n_in = x.shape
    inputs = tile(n_in, 64)
    rows = tile(n_rows, 512 // inputs)
    has = {"ALONG": along is not None, "CONTRACT": gx is not None, "FILL": fill, "BN": rows, "BI": inputs}
    base = {"ACTIVATION": None if w.base is None else spec.activation or "identity"}
    launch = dense.exchange[cdiv(n_rows, rows), cdiv(n_in, inputs)]
    launch(x, along, cells, block, gx, n_rows, n_in, **options(spec), **base, **has)


def _rows(given: Given) -> Iterator[slice]:
    n_rows, n_in = given.x.shape
    size = given.w.spline.shape[1] + (given.w.base is not None)
    step = max(1, BLOCK // (n_in * size))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def way(given: Given) -> str:
    """How a layer is computed: ``sparse``, ``fused`` or ``dense``, whichever is fastest by `kansciml bench layers`."""
    _, size, n_out = given.w.spline.shape
    precise = given.w.spline.dtype == torch.float32 and exact_products()
    if size >= SPARSE_FROM[precise] and given.x.shape[1] <= MOST_INPUTS:
        return "sparse"
    if precise or n_out > FUSED_OUTPUTS:
        return "dense"
    return "fused" if given.x.is_cuda and torch.cuda.get_device_capability(given.x.device) >= (8, 0) else "dense"


def _add_splines(given: Given, along: Tensor | None, y: Tensor, first: bool = False) -> None:
    """y += the layer (= if `first`), or with `along` (N, I) how that changes as x moves along it."""
    chosen = way(given)
    if chosen == "sparse":
        _sparse_forward(given, along, y, first)
    elif chosen == "fused":
        _fused_forward(given, along, y, first)
    else:
        _dense_forward(given, along, y, first)


def _add_gradients(given: Given, gy: Tensor, along: Tensor | None, to: Parts) -> None:
    """Gradients of `_add_splines`: added to `to.x`, written to the others; without `to.scale`, of scaled weights."""
    chosen = way(given)
    weight = packed(given.w)
    if to.x is not None and chosen == "sparse":
        _sparse_backward(given, gy, along, weight, to.x)
    elif to.x is not None and chosen == "fused":
        _fused_backward(given, gy, along, weight, to.x)
    if to.spline is not None and chosen == "sparse":
        unpacked(_sparse_weights(given, gy, along), given.w, to)
    elif to.spline is not None or chosen == "dense":
        _dense_backward(given, gy, along, weight, to if chosen == "dense" else to._replace(x=None))


def _precision() -> dict[str, str]:
    if interpreted():
        return {"PRECISION": "exact"}
    return {"PRECISION": "ieee" if exact_products() else "tf32"}


def _facts(given: Given, along: Tensor | None) -> dict[str, Any]:
    activation = None if given.w.base is None else given.spec.activation or "identity"
    return {"ACTIVATION": activation, "ALONG": along is not None, **options(given.spec)}


def _fused_forward(given: Given, along: Tensor | None, y: Tensor, first: bool) -> None:
    (_, x, cells, w), (n_rows, n_out), n_in = given, y.shape, given.x.shape[1]
    rows, inputs, outputs = tile(n_rows, 128, 16), tile(n_in, 16, 16), tile(n_out, 128, 16)
    programs = cdiv(n_rows, rows), cdiv(n_out, outputs)
    shares = max(1, min(PROGRAMS // (programs[0] * programs[1]), cdiv(n_in, 2 * inputs)))
    share = inputs * cdiv(cdiv(n_in, shares), inputs)
    shares = cdiv(n_in, share)
    found = (
        y if shares == 1 else torch.empty(shares, n_rows, n_out, dtype=plain.sum_dtype(w.spline.dtype), device=y.device)
    )
    has = {"ADD": shares == 1 and not first, "BN": rows, "BI": inputs, "BO": outputs, "num_warps": 8}
    launch, sizes = fused.forward[(*programs, shares)], (n_rows, n_in, n_out, share)
    launch(x, along, cells, packed(w), found, *sizes, **_facts(given, along), **_precision(), **has)
    if shares > 1 and first:
        y.copy_(found.sum(0))
    elif shares > 1:
        y += found.sum(0)


def _fused_backward(given: Given, gy: Tensor, along: Tensor | None, weight: Tensor, gx: Tensor) -> None:
    (_, x, cells, _), (n_rows, n_out), n_in = given, gy.shape, given.x.shape[1]
    rows, inputs, outputs = tile(n_rows, 64, 16), tile(n_in, 64, 16), tile(n_out, 64, 16)
    launch = fused.backward[cdiv(n_rows, rows), cdiv(n_in, inputs)]
    has = {"BN": rows, "BI": inputs, "BO": outputs, "num_warps": 8}
    launch(gy, x, along, cells, weight, gx, n_rows, n_in, n_out, **_facts(given, along), **_precision(), **has)


def _sparse_forward(given: Given, along: Tensor | None, y: Tensor, first: bool) -> None:
    (_, x, cells, w), (n_rows, n_out), n_in = given, y.shape, given.x.shape[1]
    outputs = tile(n_out, 128)
    rows = tile(n_rows, 2048 // outputs)
    launch = sparse.forward[cdiv(n_rows, rows), cdiv(n_out, outputs)]
    has = {"ADD": not first, "BN": rows, "BO": outputs}
    launch(x, along, cells, packed(w), y, n_rows, n_in, n_out, **_facts(given, along), **has)


def _sparse_backward(given: Given, gy: Tensor, along: Tensor | None, weight: Tensor, gx: Tensor) -> None:
    (_, x, cells, _), (n_rows, n_out), n_in = given, gy.shape, given.x.shape[1]
    outputs = tile(n_out, 128)
    rows = tile(n_rows, 1024 // outputs)
    launch = sparse.backward[cdiv(n_rows, rows), n_in]
    launch(gy, x, along, cells, weight, gx, n_rows, n_in, n_out, **_facts(given, along), BN=rows, BO=outputs)


def _sparse_weights(given: Given, gy: Tensor, along: Tensor | None) -> Tensor:
    """The gradient of the packed weights."""
    (spec, x, cells, w), (n_rows, n_out), n_in = given, gy.shape, given.x.shape[1]
    size, facts = w.spline.shape[1], options(spec)
    number = torch.empty(n_in, n_rows, dtype=torch.int32, device=x.device)
    rows = tile(n_rows, 256)
    sparse.first_spline[cdiv(n_rows, rows), n_in](x, cells, number, n_rows, n_in, **facts, BN=rows)
    number, order = number.sort(stable=True)
    bounds = torch.arange(-spec.spline_order, size + 1, dtype=torch.int32, device=x.device)
    ends = torch.searchsorted(number, bounds.expand(n_in, -1).contiguous(), out_int32=True)
    total = torch.empty(size + (w.base is not None), n_in, n_out, dtype=w.spline.dtype, device=x.device)
    outputs = tile(n_out, 128)
    launch = sparse.weights[size, n_in, cdiv(n_out, outputs)]
    has = {"ALONG": along is not None, "BN": tile(n_rows, 16), "BO": outputs}
    launch(gy, x, along, cells, order, ends, total, n_rows, n_in, n_out, **facts, **has)
    if w.base is not None:
        torch.mm(activate(spec.activation, x).to(gy.dtype).t(), gy, out=total[size])
    return total


def _part(given: Given, row: slice) -> Given:
    return given._replace(x=given.x[row])


def _dense_forward(given: Given, along: Tensor | None, y: Tensor, first: bool) -> None:
    weight, block = packed(given.w), None
    for row in _rows(given):
        if block is None:
            block = weight.new_empty(row.stop - row.start, len(weight))
        part = block[: row.stop - row.start]
        _exchange(_part(given, row), None if along is None else along[row], part, None, True)
        plain.add_product(y[row], part, weight, first)


def _dense_backward(given: Given, gy: Tensor, along: Tensor | None, weight: Tensor, to: Parts) -> None:
    total, rows = None, list(_rows(given))
    if to.spline is not None:
        dtype = weight.dtype if len(rows) == 1 else plain.sum_dtype(weight.dtype)
        total = torch.empty_like(weight, dtype=dtype)
    block = weight.new_empty(rows[0].stop, len(weight))
    for row in rows:
        part, gx = block[: row.stop - row.start], None if to.x is None else to.x[row]
        if gx is not None:
            torch.mm(gy[row], weight.t(), out=part)
        _exchange(_part(given, row), None if along is None else along[row], part, gx, total is not None)
        if total is not None:
            plain.add_product(total, part.t(), gy[row], row.start == 0)
    if total is not None:
        unpacked(total, given.w, to)


def forward(given: Given) -> Tensor:
    """y (N, O) of a spline KAN layer, in the dtype of the weights."""
    if not _fits(given):
        return plain.forward(given)
    dtype = given.w.spline.dtype
    at_once = way(given) != "dense" or len(list(_rows(given))) == 1
    y = given.x.new_empty(len(given.x), given.w.spline.shape[-1], dtype=dtype if at_once else plain.sum_dtype(dtype))
    with on_device(y):
        _add_splines(_own(given), None, y, first=True)
    return y.to(dtype)


def backward(given: Given, gy: Tensor, need_x: bool, need_weights: bool, kept: Any = None) -> Parts:
    """Gradients of x and the weights, given the output's (N, O)."""
    if not _fits(given):
        return plain.backward(given, gy, need_x, need_weights, kept)
    if not need_x and not need_weights:
        return Parts()
    x, _, w = (given := _own(given))[1:]
    gx = torch.zeros_like(x) if need_x else None
    weights = (None if t is None or not need_weights else torch.empty_like(t) for t in w)
    to = Parts(gx, *weights)
    with on_device(x):
        _add_gradients(given, gy.to(w.spline.dtype).contiguous(), None, to)
    return to


def _terms(given: Given, gy: Tensor, h: Parts, to: Sums) -> None:
    """`spline_second.plain_terms` by these kernels: a forward and a backward pass along hx, and another for V."""
    if not _fits(given):
        return spline_second.plain_terms(given, gy, h, to)
    given = _own(given)
    alone = given._replace(w=given.w._replace(base=None))
    passes: list[tuple[Tensor | None, Given, Tensor | None]] = []
    if h.x is not None:
        passes.append((h.x.contiguous(), alone, to.of_moved))
    if h.vary_splines:
        tangent = spline_second.tangent_of(given.w, h).contiguous()
        passes.append((None, given._replace(w=Weights(None, tangent, None)), to.of_values))
    with on_device(given.x):
        for along, factors, total in passes:
            if to.gy is not None:
                _add_splines(factors, along, to.gy)
            if to.x is not None or total is not None:
                _add_gradients(factors, gy, along, Parts(to.x, spline=total))
    return None


def double_backward(
    given: Given, gy: Tensor, h: Parts, needs: tuple[bool, bool, bool], known: Any = None, kept: Any = None
) -> tuple[Tensor | None, ...]:
    """As `spline_second` has it."""
    return spline_second.double_backward(given, gy.contiguous(), h, needs, terms=_terms)


def known(given: Given, gy: Tensor) -> Known | None:
    """None: what all products with one graph share is computed again, in less time than it takes to fetch."""
    return None


def keep(given: Given, known: Known) -> tuple[Known, Any]:
    """Nothing is kept, as nothing is `known`."""
    return known, None
