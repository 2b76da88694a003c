"""B-splines and their slopes at many points, (I, P, N): inputs first, so that one plane holds one spline of one input.

Composite PyTorch, differentiable to any order; the kernels call the same functions without autograd. Uniform grids
have a closed form (the centred cardinal B-spline as a sum of at most S / 2 + 1 truncated powers of |d|, which loses no
digits, unlike truncated powers of the whole argument); others take the Cox-de Boor recursion (de Boor 1978).
"""

from __future__ import annotations

from math import comb, factorial

import torch
from torch import Tensor

from .bspline import SplineSpec


def evaluate(spec: SplineSpec, x: Tensor, cells: Tensor, slope: bool = False) -> tuple[Tensor, Tensor | None]:
    """The G + S B-splines of each input, with the policy outside the grid applied.

    Args:
        spec: grid, order, policy.
        x: (I, N), in the dtype to compute in.
        cells: uniform: (2, I), the grid's left end and its intervals per unit of x; else the knots (I, G + 2S + 1).
        slope: compute dB/dx as well.

    Returns:
        Splines and slopes (or None), each (I, G + S, N).
    """
    if spec.uniform:
        # the scale and shift are constants of the layer, so no gradient is lost through `where` below
        position, low, high = (x - cells[0][:, None]) * cells[1][:, None], 0.0, float(spec.grid)
        per_x = cells[1][:, None, None]
    else:
        order = spec.spline_order
        position, low, high = x, cells[:, order, None], cells[:, spec.grid + order, None]
        per_x = None
    if spec.outside == "zero":
        at = _last_interval_is_closed(spec, position, high)
        values, slopes = _at(spec, at, cells, slope)
        beyond = None
    else:
        at = torch.clamp(position, _like(low, position), _like(high, position))
        beyond = position - at  # carries the gradient of a straight continuation, 0 inside
        values, slopes = _at(spec, _last_interval_is_closed(spec, at, high), cells, slope or spec.outside == "linear")
    if spec.outside == "linear":
        # at the ends `at` is a constant, inside `beyond` is 0: the derivative is the slope at `at` in either case
        values = values + beyond.unsqueeze(1) * slopes
    if not slope:
        return values, None
    if spec.outside == "clamp":
        slopes = slopes * (beyond == 0).to(slopes.dtype).unsqueeze(1)
    return values, slopes if per_x is None else slopes * per_x


def _like(bound: float | Tensor, x: Tensor) -> Tensor:
    return bound if isinstance(bound, Tensor) else torch.full((), bound, dtype=x.dtype, device=x.device)


def _last_interval_is_closed(spec: SplineSpec, at: Tensor, high: float | Tensor) -> Tensor:
    """The right end of the grid belongs to its last interval, as in SciPy; it only shows where splines have corners."""
    if spec.spline_order > 1:
        return at
    end = _like(high, at)
    return torch.where(at == end, at + (torch.nextafter(end, torch.full_like(end, -torch.inf)) - end), at)


def _at(spec: SplineSpec, at: Tensor, cells: Tensor, slope: bool) -> tuple[Tensor, Tensor | None]:
    if spec.uniform:
        return _cardinal(spec, at, slope)
    return _cox_de_boor(spec, at, cells, slope)


def _cardinal(spec: SplineSpec, u: Tensor, slope: bool) -> tuple[Tensor, Tensor | None]:
    """Uniform splines and their slopes per interval at u, the position in intervals from the grid's left end."""
    order, size = spec.spline_order, spec.grid + spec.spline_order
    centres = torch.arange(0.5 * (1 - order), size + 0.5 * (1 - order) - 0.25, dtype=u.dtype, device=u.device)
    d = u.unsqueeze(1) - centres[:, None]  # (I, P, N)
    if order <= 1:
        return _low_order(order, d, slope)
    sign = torch.where(d < 0, -1.0, 1.0).to(d.dtype)  # not 0 at a centre, where the second derivative would be lost
    a = d * sign
    values = slopes = None
    for j in range(order // 2 + 1):
        t = (0.5 * (order + 1) - j - a).relu()
        factor = (-1) ** j * comb(order + 1, j) / factorial(order)
        lower = t if order == 2 else t * t if order == 3 else t ** (order - 1)
        term = (lower * t) * factor
        values = term if values is None else values + term
        if slope:
            part = lower * (factor * order)
            slopes = part if slopes is None else slopes + part
    return values, -slopes * sign if slope else None


def _low_order(order: int, d: Tensor, slope: bool) -> tuple[Tensor, Tensor | None]:
    """Steps and hats, right-continuous with their slopes."""
    if order == 0:
        step = ((d >= -0.5) & (d < 0.5)).to(d.dtype)
        step = torch.where(d.isnan(), d.detach(), step)
        return step, torch.zeros_like(step) if slope else None
    rises = ((d >= -1) & (d < 0)).to(d.dtype)
    falls = ((d >= 0) & (d < 1)).to(d.dtype)
    # built from the masks, so that autograd through it takes the right-continuous slope too
    finite = d.clamp(-2, 2)
    return rises * (1 + finite) + falls * (1 - finite), rises - falls if slope else None


def _cox_de_boor(spec: SplineSpec, x: Tensor, knots: Tensor, slope: bool) -> tuple[Tensor, Tensor | None]:
    order = spec.spline_order
    # far outside all splines are 0; the bound keeps 0 * inf out of the recursion, and lets NaN through
    x = torch.minimum(torch.maximum(x, knots[:, :1] - 1), knots[:, -1:] + 1)
    at, t = x.unsqueeze(1), knots.unsqueeze(-1)  # (I, 1, N), (I, K, 1)
    basis = ((at >= t[:, :-1]) & (at < t[:, 1:])).to(x.dtype)
    if order == 0:
        basis = torch.where(at.isnan(), at.detach(), basis)
        return basis, torch.zeros_like(basis) if slope else None
    slopes = None
    for k in range(1, order + 1):
        weighted = basis / (t[:, k:] - t[:, :-k])
        if slope and k == order:
            slopes = order * (weighted[:, :-1] - weighted[:, 1:])
        basis = (at - t[:, : -k - 1]) * weighted[:, :-1] + (t[:, k + 1 :] - at) * weighted[:, 1:]
    return basis, slopes
