r"""LayerNorm with its double backward in closed form: a fraction of the time of PyTorch's, which Hessians wait for.

With z = (x - mu) r, r = (var + eps)^(-1/2), and the symmetric map P u = u - mean(u) - z mean(u z) over the last axis,
the derivative of z along dx is r P dx. Hence, for a cotangent gy and g = gy w,

    gx = r P g,  gw = sum gy z,  gb = sum gy      (sums over all but the last axis).

Let hx, hw, hb be the cotangents of these three, and p = r P hx. The double backward is

    gy:  p w + z hw + hb
    w:   sum p gy
    x:   r P (gy hw - r (hx mean(g z) + g mean(hx z))) - r z mean(p g)

where the last term comes from r itself: dr / dx = -r^2 z / D, and mean(p g) = <hx, gx> / D.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from kansciml.layers._kernels import autograd

Found = tuple["Tensor | None", ...]


def _backward(gy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight, bias, wanted: Sequence[bool]) -> Found:
    """Gradients of x, weight and bias where wanted: PyTorch's own kernel."""
    found = torch.ops.aten.native_layer_norm_backward(gy, x, x.shape[-1:], mean, rstd, weight, bias, list(wanted))
    return tuple(grad if want else None for grad, want in zip(found, wanted))


class Given(NamedTuple):
    """What LayerNorm's gradient follows from."""

    gy: Tensor
    x: Tensor
    mean: Tensor  # (..., 1), mu of each row
    rstd: Tensor  # (..., 1), r of each row
    weight: Tensor


Known = tuple[Tensor, Tensor, Tensor]
"""Of a gradient's graph that serves many products: z, g and -r mean(g z) of the rows."""


def known_of(given: Given) -> Known:
    """What `double_backward` computes in every product and the cotangents do not change."""
    gy, x, mean, rstd, weight = given
    z, g = (x - mean).mul_(rstd), gy * weight
    return z, g, (g * z).mean(-1, keepdim=True).mul_(rstd).neg_()


def double_backward(given: Given, along: Found, needs: Sequence[bool], known: Known | None = None) -> Found:
    """Gradients of gy, x and weight of LayerNorm's gradient, None where not needed or zero.

    `along`: cotangents of the gradients of x, weight and bias; None is zero. `known`: by `known_of`.
    """
    (gy, x, _, rstd, weight), (hx, hw, hb), (need_gy, need_x, need_weight) = given, along, needs
    z, g, of_g = known or known_of(given)
    ggy = gx = gw = u = along_z = None
    # one piece of memory for all products that are summed at once: a new one takes longer than the product
    product = torch.empty(z.shape, dtype=z.dtype, device=z.device)
    if hx is not None:
        hx = hx.contiguous()  # a mixture of strides would take several times as long
        of_hx = torch.mul(hx, z, out=product).mean(-1, keepdim=True).mul_(rstd).neg_()
        p = (hx - hx.mean(-1, keepdim=True)).mul_(rstd).addcmul_(z, of_hx)
        if need_weight:
            gw = torch.mul(p, gy, out=product).view(-1, x.shape[-1]).sum(0)
        if need_x:
            along_z = torch.mul(p, g, out=product).mean(-1, keepdim=True).mul_(rstd)
            u = (g * of_hx).addcmul_(hx, of_g)
        if need_gy:
            ggy = p.mul_(weight)
    if hw is not None:
        if need_gy:
            ggy = z * hw if ggy is None else ggy.addcmul_(z, hw)
        if need_x:
            u = gy * hw if u is None else u.addcmul_(gy, hw)
    if hb is not None and need_gy:
        ggy = hb.expand_as(gy).clone() if ggy is None else ggy.add_(hb)
    if u is not None:
        of_u = torch.mul(u, z, out=product).mean(-1, keepdim=True).mul_(rstd)
        if along_z is not None:
            of_u += along_z
        gx = u.sub_(u.mean(-1, keepdim=True)).mul_(rstd).addcmul_(z, of_u, value=-1)
    return ggy, gx, gw


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, gy):
        x, weight, bias, mean, rstd = ctx.saved_tensors
        wanted, graph = ctx.needs_input_grad[:3], torch.is_grad_enabled()
        if autograd.watched(gy):
            return *autograd.gradient(partial(composite, ctx.eps), wanted, gy, (x, weight, bias), graph), None
        if graph:
            return *_NormGradient.apply(ctx.eps, wanted, gy, x, weight, bias, mean, rstd), None
        return *_backward(gy, x, mean, rstd, weight, bias, wanted), None


class _NormGradient(torch.autograd.Function):
    """The gradients of x, weight and bias as a function of gy, x and weight."""

    @staticmethod
    def forward(ctx, eps, wanted, gy, x, weight, bias, mean, rstd):
        ctx.eps, ctx.wanted, ctx.known = eps, wanted, None
        ctx.save_for_backward(gy.contiguous(), x, weight, bias, mean, rstd)
        ctx.set_materialize_grads(False)
        return _backward(gy, x, mean, rstd, weight, bias, wanted)

    @staticmethod
    def backward(ctx, hx, hw, hb):
        gy, x, weight, bias, mean, rstd = ctx.saved_tensors
        needs, graph = ctx.needs_input_grad[2:6], torch.is_grad_enabled()
        if graph or autograd.watched(hx, hw, hb):
            saved, along = (gy, x, weight, bias), (hx, hw, hb)
            found = autograd.second(partial(composite, ctx.eps), ctx.wanted, needs, saved, along, graph)
            return None, None, *found, None, None
        given = Given(gy, x, mean, rstd, weight)
        if ctx.known is None and autograd.graph_is_kept():
            ctx.known = known_of(given)
        found = double_backward(given, (hx, hw, hb), needs[:3], ctx.known)
        return None, None, *found, None, None, None


def composite(eps: float, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The norm in simple operations, right to any order and under any transform.

    Not through PyTorch's own: the third derivatives that PyTorch 2.13 finds of that are wrong.
    """
    centred = x - x.mean(-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + autograd.constant(eps, x)) * weight
    return y if bias is None else y + bias


class LayerNorm(nn.LayerNorm):
    r"""y = w (x - mean x) / sqrt(var x + eps) + b over the last axis: `torch.nn.LayerNorm` (Ba et al. 2016, Section 3).

    Forward and backward pass are PyTorch's, to the bit; the gradient's gradient is in closed form. Arguments, defaults,
    parameters and shapes are those of `torch.nn.LayerNorm`. Where the closed form does not apply (several normalised
    axes, no weight, half precision, `torch.compile`, a graph recorded for elsewhere), PyTorch's is used.
    """

    def forward(self, x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        known = type(x) in (Tensor, nn.Parameter) and len(self.normalized_shape) == 1 and self.weight is not None
        known = known and x.shape[-1:] == self.weight.shape
        known = known and x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64)
        if known and (autograd.transformed() or autograd.forward_mode()):
            return composite(self.eps, x, self.weight, self.bias)
        if not known or not torch.is_grad_enabled() or torch.compiler.is_compiling() or autograd.recorded():
            return super().forward(x)
        return (
            super().forward(x)
            if autograd.autocast_dtype(x) is not None
            else _Norm.apply(x, self.weight, self.bias, self.eps)
        )
