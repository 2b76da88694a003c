"""The gradient of a spline KAN layer as a differentiable operation, so that Hessians do not take its loops apart.

With W' = spline_scale * spline_weight and B at x (contract of `_plain`), the layer's gradient is, for a cotangent gy,

    gx = act'(x) (gy base_weight^T) + sum_m B_m' (W'_m gy),  gbase = act(x)^T gy,  gW' = B^T gy.

Let hx, hbase, V be the cotangents of these three (V = hspline * spline_scale + hscale * spline_weight). Their sum of
products is <gy, the change of y along (hx, hbase, V)>, hence the double backward

    gy:     (hx act'(x)) base_weight + act(x) hbase + (hx B') W' + B V
    x:      act''(x) hx (gy base_weight^T) + act'(x) (gy hbase^T) + hx B'' . (W' gy) + B' . (V gy)
    base:   (hx act'(x))^T gy
    W':     (hx B')^T gy,  and B^T gy where both factors of W' vary.

One product of matrices per term; the splines and their two derivatives are rebuilt in blocks.
Free of hx, hbase and V, hence the same in all products with one graph: the factor of hx in the second line, and B^T gy
(`Known`, which a graph keeps from the first product on if it is told that more will come).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kansciml.layers._kernels.activations import curvature
from kansciml.layers._kernels.plain import (
    Kept,
    Scaler,
    activation,
    add_product,
    backward,
    evaluated,
    sloped,
    sum_dtype,
)
from kansciml.layers.bspline import SplineSpec

Known = tuple["Tensor | None", "Tensor | None"]
"""Of a gradient's graph that serves many products: act'' (gy base_weight^T) + B'' . (W' gy), (N, I), and B^T gy,
(I, P, O), where it is kept."""


def tangent_of(
    spline_weight: Tensor, spline_scale: Tensor | None, hspline: Tensor | None, hscale: Tensor | None
) -> Tensor | None:
    """V, the tangent of the scaled weights along (hspline, hscale); None where it is zero."""
    if spline_scale is None or hspline is None:
        return hspline if hscale is None else spline_weight * hscale.unsqueeze(1)
    moved = hspline * spline_scale.unsqueeze(1)
    return moved if hscale is None else moved.addcmul_(spline_weight, hscale.unsqueeze(1))


def base_curvature(spec: SplineSpec, gy: Tensor, x: Tensor, base_weight: Tensor | None) -> Tensor | None:
    """act''(x) (gy base_weight^T), (N, I): the base branch's second derivative along x; None where it is zero."""
    bent = None if base_weight is None else curvature(spec.activation, x)
    return None if bent is None else bent.mul_((gy @ base_weight.t()).to(x.dtype))


def base_terms(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    base_weight: Tensor | None,
    hx: Tensor | None,
    hbase: Tensor | None,
    bends: bool = True,
    kept: Kept | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The base branch's share of the gradients of gy, x and base_weight; the first two are fresh, to be added to.

    Without `bends`, less hx times the `base_curvature`.
    """
    dtype = gy.dtype
    gx, gbase, name = None, None, spec.activation
    if base_weight is not None and hx is not None:
        moved = sloped(name, hx, x, kept, fresh=False).to(dtype)
        ggy = (moved @ base_weight).to(sum_dtype(dtype))
        gbase = moved.t() @ gy
        second = base_curvature(spec, gy, x, base_weight) if bends else None
        gx = None if second is None else second.mul_(hx)
    else:
        ggy = torch.zeros(gy.shape, dtype=sum_dtype(dtype), device=gy.device)
    if base_weight is not None and hbase is not None:
        add_product(ggy, activation(name, x, kept).to(dtype), hbase)
        along = sloped(name, (gy @ hbase.t()).to(x.dtype), x, kept)
        gx = along if gx is None else gx.add_(along)
    gx = torch.zeros_like(x) if gx is None else gx
    return ggy, gx.contiguous(), gbase


def split_gradient(
    of_moved: Tensor | None,
    of_values: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of spline_weight and spline_scale from (hx B')^T gy (overwritten) and B^T gy, either may be None."""
    if spline_scale is None:
        return of_moved, None
    gspline = gscale = None
    if of_moved is not None:
        gscale = (of_moved * spline_weight).sum(1)
        gspline = of_moved.mul_(spline_scale.unsqueeze(1))
    if of_values is not None and hspline is not None:
        share = (of_values * hspline).sum(1)
        gscale = share if gscale is None else gscale + share
    if of_values is not None and hscale is not None:
        along = hscale.unsqueeze(1)
        gspline = of_values * along if gspline is None else gspline.addcmul_(of_values, along)
    return gspline, gscale


def plain_terms(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hx: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
    ggy: Tensor | None,
    gx: Tensor | None,
    of_moved: Tensor | None,
    of_values: Tensor | None,
    bends: bool = True,
    kept: Kept | None = None,
) -> None:
    """The splines' terms in plain PyTorch: added to ggy and gx, written to of_moved and of_values; None: not wanted.

    Without `bends`, less hx B'' . (W' gy).
    """
    dtype = spline_weight.dtype
    varies = hspline is not None or hscale is not None
    bends = bends and hx is not None and gx is not None
    order = 2 if bends else 1 if hx is not None or gx is not None else 0
    weight_of = Scaler(spline_weight, spline_scale)
    for block, product in evaluated(spec, x, cells, gy.shape[1], order, kept):
        row, column, (values, *derivatives), per = block
        cotangent, first = gy[row], row.start == 0
        pairs = []  # a left factor of a product with its weights, and where its product with gy goes
        if hx is not None:
            along = hx[row, column].t().to(values.dtype) * per
            weight = weight_of(column)
            if bends:
                of_weight = product(weight, cotangent.t(), values).mul_(derivatives[1]).sum(1)
                gx[row, column] += of_weight.mul_(along).mul_(per).t().to(gx.dtype)
            pairs.append(((derivatives[0] * along.unsqueeze(1)).to(dtype), weight, of_moved))
        if varies:
            parts = (None if t is None else t[column] for t in (spline_weight, spline_scale, hspline, hscale))
            tangent = tangent_of(*parts).flatten(0, 1)
            if gx is not None:
                of_tangent = product(tangent, cotangent.t(), values).mul_(derivatives[0])
                gx[row, column] += of_tangent.sum(1).mul_(per).t().to(gx.dtype)
            pairs.append((values.to(dtype), tangent, of_values))
        for factor, weight, total in pairs:
            if ggy is not None:
                add_product(ggy[row], factor.flatten(0, 1).t(), weight)
            if total is not None:
                add_product(total[column].view(-1, gy.shape[1]), factor.flatten(0, 1), cotangent, first)


def by_terms(
    terms: Callable[..., None],
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hx: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
    ggy: Tensor | None,
    gx: Tensor | None,
    need_weights: bool,
    known: Known | None = None,
    kept: Kept | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of spline_weight and spline_scale by `terms` (as `plain_terms`); the other terms go to ggy and gx."""
    bend, ready = known or (None, None)
    varies = hspline is not None or hscale is not None
    fresh = torch.empty_like if len(x) else torch.zeros_like  # the first block of rows writes every element
    of_moved = of_values = None
    if need_weights and hx is not None:
        of_moved = fresh(spline_weight, dtype=sum_dtype(spline_weight.dtype))
    if need_weights and spline_scale is not None and varies and ready is None:
        of_values = fresh(spline_weight, dtype=sum_dtype(spline_weight.dtype))
    tensors = (gy, x, cells, spline_weight, spline_scale, hx, hspline, hscale, ggy, gx, of_moved, of_values)
    terms(spec, *tensors, **({} if bend is None else {"bends": False, "kept": kept}))
    if bend is not None and gx is not None:
        gx += bend * hx
    if need_weights and ready is not None:
        of_values = ready
    return split_gradient(of_moved, of_values, spline_weight, spline_scale, hspline, hscale)


plain_splines = partial(by_terms, plain_terms)


def plain_known(
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
) -> Known | None:
    """What `plain_splines` computes in every product and the tangents do not change; None in half precision.

    It takes no more memory than x and gy, which the graph keeps anyway: weights' gradients only where rows are many.
    """
    if not len(x) or spline_weight.dtype not in (torch.float32, torch.float64):
        return None
    bend = base_curvature(spec, gy, x, base_weight)
    bend = torch.zeros_like(x) if bend is None else bend
    tensors = (gy, x, cells, spline_weight, spline_scale, torch.ones_like(x))
    plain_terms(spec, *tensors, None, None, None, bend, None, None)
    if spline_scale is None or spline_weight.numel() > gy.numel():
        return bend, None
    return bend, backward(spec, gy, x, cells, None, spline_weight, None, False, True)[2]


def double_backward(
    splines: Callable[..., tuple[Tensor | None, Tensor | None]],
    spec: SplineSpec,
    gy: Tensor,
    x: Tensor,
    cells: Tensor,
    base_weight: Tensor | None,
    spline_weight: Tensor,
    spline_scale: Tensor | None,
    hx: Tensor | None,
    hbase: Tensor | None,
    hspline: Tensor | None,
    hscale: Tensor | None,
    need_gy: bool,
    need_x: bool,
    need_weights: bool,
    bends: bool = True,
    kept: Kept | None = None,
) -> tuple[Tensor | None, ...]:
    """Gradients of gy, x, base_weight, spline_weight, spline_scale of the layer's gradient.

    Args:
        splines: `plain_splines` or another backend's.
        hx, hbase, hspline, hscale: cotangents of the gradients of x and of the weights; None is zero.
        need_gy, need_x, need_weights: which to compute; None is returned where not needed, or zero.
        bends: False where `splines` adds hx times the `base_curvature` too, as with `Known`.
        kept: of this x, for the base branch; `splines` has it already.
    """
    dtype = spline_weight.dtype
    ggy, gx, gbase = base_terms(spec, gy, x, base_weight, hx, hbase, bends, kept)
    wanted = ggy if need_gy else None, gx if need_x else None
    gspline = gscale = None
    if hx is not None or hspline is not None or hscale is not None:
        tensors = (gy, x, cells, spline_weight, spline_scale, hx, hspline, hscale)
        gspline, gscale = splines(spec, *tensors, *wanted, need_weights)
    weights = (gbase, gspline, gscale) if need_weights else (None,) * 3
    found = (*wanted, *weights)
    return tuple(None if t is None else t.to(own) for t, own in zip(found, (dtype, x.dtype, dtype, dtype, dtype)))
