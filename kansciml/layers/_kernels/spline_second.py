"""The gradient of a spline KAN layer as a differentiable operation, so that Hessians do not take its loops apart.

With W' = spline_scale * spline_weight and B at x (contract of `plain`), the layer's gradient is, for a cotangent gy,

    gx = act'(x) (gy base_weight^T) + sum_m B_m' (W'_m gy),  gbase = act(x)^T gy,  gW' = B^T gy.

Let hx, hbase, V be the cotangents of these three (V = hspline * spline_scale + hscale * spline_weight). Their sum of
products is <gy, the change of y along (hx, hbase, V)>, hence the double backward

    gy:     (hx act'(x)) base_weight + act(x) hbase + (hx B') W' + B V
    x:      act''(x) hx (gy base_weight^T) + act'(x) (gy hbase^T) + hx B'' . (W' gy) + B' . (V gy)
    base:   (hx act'(x))^T gy
    W':     (hx B')^T gy,  and B^T gy where both factors of W' vary.

One product of matrices per term; the splines and their two derivatives are rebuilt in blocks.
The same in all products with one graph are the factor of hx in the second line, and B^T gy (`plain.Known`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kansciml.layers._kernels import plain
from kansciml.layers._kernels.activations import curvature
from kansciml.layers._kernels.plain import Given, Kept, Known, Parts, Scaler, Weights, add_product, sum_dtype


def tangent_of(w: Weights, h: Parts, column: slice = slice(None)) -> Tensor:
    """V, the tangent of some inputs' scaled weights along h, in which they vary."""
    if h.spline is None:
        assert h.scale is not None
        return w.spline[column] * h.scale[column].unsqueeze(1)
    if w.scale is None:
        return h.spline[column]
    moved = h.spline[column] * w.scale[column].unsqueeze(1)
    return moved if h.scale is None else moved.addcmul_(w.spline[column], h.scale[column].unsqueeze(1))


class Sums(NamedTuple):
    """Where the splines' terms go: added to the first two, (hx B')^T gy and B^T gy written to the others.

    None: not wanted.
    """

    gy: Tensor | None
    x: Tensor | None
    of_moved: Tensor | None = None
    of_values: Tensor | None = None


def base_curvature(given: Given, gy: Tensor) -> Tensor:
    """act''(x) (gy base_weight^T), (N, I): the base branch's second derivative along x."""
    base_weight = given.w.base
    bent = None if base_weight is None else curvature(given.spec.activation, given.x)
    if bent is None or base_weight is None:
        return torch.zeros_like(given.x)
    return bent.mul_((gy @ base_weight.t()).to(bent.dtype))


def base_terms(
    given: Given, gy: Tensor, h: Parts, bends: bool = True, kept: Kept | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The base branch's share of the gradients of gy, x and base_weight; the first two are fresh, to be added to.

    Without `bends`, less hx times the `base_curvature`.
    """
    spec, x, base_weight = given.spec, given.x, given.w.base
    dtype, name = gy.dtype, spec.activation
    gx = gbase = None
    if base_weight is not None and h.x is not None:
        moved = plain.sloped(name, h.x, x, kept, fresh=False).to(dtype)
        ggy = (moved @ base_weight).to(sum_dtype(dtype))
        gbase = moved.t() @ gy
        gx = base_curvature(given, gy).mul_(h.x) if bends else None
    else:
        ggy = torch.zeros(gy.shape, dtype=sum_dtype(dtype), device=gy.device)
    if base_weight is not None and h.base is not None:
        add_product(ggy, plain.activation(name, x, kept).to(dtype), h.base)
        along = plain.sloped(name, (gy @ h.base.t()).to(x.dtype), x, kept)
        gx = along if gx is None else gx.add_(along)
    gx = torch.zeros_like(x) if gx is None else gx
    return ggy, gx.contiguous(), gbase


def _split_gradient(
    of_moved: Tensor | None, of_values: Tensor | None, w: Weights, h: Parts
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of spline_weight and spline_scale from (hx B')^T gy (overwritten) and B^T gy, either may be None."""
    if w.scale is None:
        return of_moved, None
    gspline = gscale = None
    if of_moved is not None:
        gscale = (of_moved * w.spline).sum(1)
        gspline = of_moved.mul_(w.scale.unsqueeze(1))
    if of_values is not None and h.spline is not None:
        share = (of_values * h.spline).sum(1)
        gscale = share if gscale is None else gscale + share
    if of_values is not None and h.scale is not None:
        along = h.scale.unsqueeze(1)
        gspline = of_values * along if gspline is None else gspline.addcmul_(of_values, along)
    return gspline, gscale


def plain_terms(given: Given, gy: Tensor, h: Parts, to: Sums, bends: bool = True, kept: Kept | None = None) -> None:
    """The splines' terms in plain PyTorch; without `bends`, less hx B'' . (W' gy)."""
    w, (ggy, gx, of_moved, of_values) = given.w, to
    dtype = w.spline.dtype
    bends = bends and h.x is not None and gx is not None
    order = 2 if bends else 1 if h.x is not None or gx is not None else 0
    weight_of = Scaler(w.spline, w.scale)
    for block, product in plain.evaluated(given, order, kept):
        row, column, (values, *derivatives), per = block
        cotangent, first = gy[row], row.start == 0
        pairs = []  # a left factor of a product with its weights, and where its product with gy goes
        if h.x is not None:
            along = h.x[row, column].t().to(values.dtype) * per
            weight = weight_of(column)
            if bends and gx is not None:
                of_weight = product(weight, cotangent.t(), values).mul_(derivatives[1]).sum(1)
                gx[row, column] += of_weight.mul_(along).mul_(per).t().to(gx.dtype)
            pairs.append(((derivatives[0] * along.unsqueeze(1)).to(dtype), weight, of_moved))
        if h.vary_splines:
            tangent = tangent_of(w, h, column).flatten(0, 1)
            if gx is not None:
                of_tangent = product(tangent, cotangent.t(), values).mul_(derivatives[0])
                gx[row, column] += of_tangent.sum(1).mul_(per).t().to(gx.dtype)
            pairs.append((values.to(dtype), tangent, of_values))
        for factor, weight, total in pairs:
            if ggy is not None:
                add_product(ggy[row], factor.flatten(0, 1).t(), weight)
            if total is not None:
                add_product(total[column].view(-1, gy.shape[1]), factor.flatten(0, 1), cotangent, first)


def known(given: Given, gy: Tensor) -> Known | None:
    """What `double_backward` computes in every product and the tangents do not change; None in half precision."""
    _, x, _, w = given
    if not len(x) or w.spline.dtype not in (torch.float32, torch.float64):
        return None
    bend = base_curvature(given, gy)
    plain_terms(given, gy, Parts(torch.ones_like(x)), Sums(None, bend))
    if w.scale is None or w.spline.numel() > gy.numel():
        return Known(bend, None)
    alone = given._replace(w=Weights(None, w.spline, None))
    return Known(bend, plain.backward(alone, gy, False, True).spline)


def double_backward(
    given: Given,
    gy: Tensor,
    h: Parts,
    needs: tuple[bool, bool, bool],
    known: Known | None = None,
    kept: Kept | None = None,
    terms: Callable[..., None] = plain_terms,
) -> tuple[Tensor | None, ...]:
    """Gradients of gy, x, base_weight, spline_weight, spline_scale of the layer's gradient.

    Args:
        h: cotangents of the gradients of x and of the weights.
        needs: which to compute, of gy, x, and the weights; None is returned where not needed, or zero.
        known, kept: of this gy and x, by `known` and `plain.keep`. terms: `plain_terms`, or another backend's.
    """
    (_, x, _, w), (need_gy, need_x, need_weights) = given, needs
    dtype = w.spline.dtype
    ggy, gx, gbase = base_terms(given, gy, h, known is None, kept)
    wanted = ggy if need_gy else None, gx if need_x else None
    gspline = gscale = None
    if h.x is not None or h.vary_splines:

        def fresh(wanted: bool) -> Tensor | None:  # the first block of rows writes every element
            make = torch.empty_like if len(x) else torch.zeros_like
            return make(w.spline, dtype=sum_dtype(dtype)) if wanted and need_weights else None

        of_values = known and known.values
        of_moved = fresh(h.x is not None)
        to_values = fresh(w.scale is not None and h.vary_splines and of_values is None)
        more = {} if known is None else {"bends": False, "kept": kept}
        terms(given, gy, h, Sums(*wanted, of_moved, to_values), **more)
        if known is not None and known.bend is not None and h.x is not None and need_x:
            gx += known.bend * h.x
        if need_weights:
            gspline, gscale = _split_gradient(of_moved, to_values if of_values is None else of_values, w, h)
    weights = (gbase, gspline, gscale) if need_weights else (None,) * 3
    found = (*wanted, *weights)
    return tuple(None if t is None else t.to(own) for t, own in zip(found, (dtype, x.dtype, dtype, dtype, dtype)))
