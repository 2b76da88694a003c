"""B-splines and their derivatives at many points, (I, P, N): inputs first, so that a plane is one spline of one input.

Composite PyTorch, differentiable to any order; the kernels call the same functions without autograd. Uniform grids
have a closed form (the centred cardinal B-spline as a sum of at most S / 2 + 1 truncated powers of |d|, which loses no
digits, unlike truncated powers of the whole argument); others take the Cox-de Boor recursion (de Boor 1978).
"""

from __future__ import annotations

from math import comb, factorial

import torch
from torch import Tensor

from kansciml.layers._kernels.autograd import constant
from kansciml.layers.bspline import SplineSpec


def evaluate(spec: SplineSpec, x: Tensor, cells: Tensor, derivatives: int = 0) -> list[Tensor]:
    """The G + S B-splines of each input and their derivatives, with the policy outside the grid applied.

    Args:
        spec: grid, order, policy.
        x: (I, N), in the dtype to compute in.
        cells: uniform: (2, I), the grid's left end and its intervals per unit of x; else the knots (I, G + 2S + 1).
        derivatives: up to which derivative, 0, 1 or 2. At knots they are those on the right, at the right end of the
            grid those on the left. Autograd goes through the splines and their slopes, to any order.

    Returns:
        B, dB/dx, d2B/dx2 as far as asked for, each (I, G + S, N).
    """
    low: float | Tensor
    high: float | Tensor
    if spec.uniform:
        # the scale and shift are constants of the layer, so no gradient is lost through `where` below
        position, low, high = (x - cells[0][:, None]) * cells[1][:, None], 0.0, float(spec.grid)
    else:
        order = spec.spline_order
        position, low, high = x, cells[:, order, None], cells[:, spec.grid + order, None]
    if spec.outside == "zero":
        found = _at(spec, _last_interval_is_closed(spec, position, high, derivatives), cells, derivatives)
        beyond = None
    else:
        at = torch.clamp(position, _like(low, position), _like(high, position))
        beyond = position - at  # carries the gradient of a straight continuation, 0 inside
        needed = max(derivatives, 1) if spec.outside == "linear" else derivatives
        found = _at(spec, _last_interval_is_closed(spec, at, high, derivatives), cells, needed)
        if spec.outside == "linear":
            # at the ends `at` is a constant, inside `beyond` is 0: the derivative is the slope at `at` in either case
            found[0] = found[0] + beyond.unsqueeze(1) * found[1]
    for k in range(1, derivatives + 1):
        if beyond is not None and (spec.outside == "clamp" or k == 2):
            found[k] = found[k] * torch.eq(beyond, 0).to(x.dtype).unsqueeze(1)
        if spec.uniform:
            found[k] = found[k] * cells[1][:, None, None] ** k
    return found[: derivatives + 1]


def _like(bound: float | Tensor, x: Tensor) -> Tensor:
    return bound if isinstance(bound, Tensor) else torch.full((), bound, dtype=x.dtype, device=x.device)


def _last_interval_is_closed(spec: SplineSpec, at: Tensor, high: float | Tensor, derivatives: int) -> Tensor:
    """The right end of the grid belongs to its last interval, as in SciPy; it only shows where there are corners."""
    if spec.spline_order > max(derivatives, 1):
        return at
    end, kind = _like(high, at), torch.finfo(at.dtype)
    # at most two numbers before the end, by operations that exporters know
    before = end - (end.abs() * kind.eps + constant(kind.tiny, end))
    return torch.where(at == end, at + (before - end), at)


def _at(spec: SplineSpec, at: Tensor, cells: Tensor, derivatives: int) -> list[Tensor]:
    if spec.uniform:
        return _cardinal(spec, at, derivatives)
    return _cox_de_boor(spec, at, cells, derivatives)


def _cardinal(spec: SplineSpec, u: Tensor, derivatives: int) -> list[Tensor]:
    """Uniform splines and their derivatives, per interval, at u, the position in intervals from the grid's left end."""
    order, size = spec.spline_order, spec.grid + spec.spline_order
    centres = torch.arange(0.5 * (1 - order), size + 0.5 * (1 - order) - 0.25, dtype=u.dtype, device=u.device)
    d = u.unsqueeze(1) - centres[:, None]  # (I, P, N)
    if order <= 1:
        return _low_order(order, d, derivatives)
    sign = torch.where(d < 0, -1.0, 1.0).to(d.dtype)  # not 0 at a centre, where the second derivative would be lost
    a = d * sign
    found: list[Tensor] = []
    for j in range(order // 2 + 1):
        t = (0.5 * (order + 1) - j - a).relu()
        factor = (-1) ** j * comb(order + 1, j) / factorial(order)
        lower = t if order == 2 else t * t if order == 3 else t ** (order - 1)
        terms = [(lower * t) * constant(factor, t)]
        if derivatives >= 1:
            terms.append(lower * constant(factor * order, t))
        if derivatives >= 2:
            terms.append(_second_power(order, j, d, t) * constant(factor * order * (order - 1), t))
        found = [total + term for total, term in zip(found, terms)] if found else terms
    if derivatives >= 1:
        found[1] = -found[1] * sign
    return found


def _second_power(order: int, j: int, d: Tensor, t: Tensor) -> Tensor:
    """t ** (S - 2); for quadratic splines the step that it is, right-continuous in d, and NaN where d is."""
    if order > 2:
        return t if order == 3 else t ** (order - 2)
    end = 0.5 * (order + 1) - j
    return torch.where(d.isnan(), d.detach(), ((d >= -end) & (d < end)).to(d.dtype))


def _low_order(order: int, d: Tensor, derivatives: int) -> list[Tensor]:
    """Steps and hats, right-continuous with their slopes; both bend nowhere."""
    if order == 0:
        step = ((d >= -0.5) & (d < 0.5)).to(d.dtype)
        step = torch.where(d.isnan(), d.detach(), step)
        return [step, *(torch.zeros_like(step) for _ in range(derivatives))]
    rises = ((d >= -1) & (d < 0)).to(d.dtype)
    falls = ((d >= 0) & (d < 1)).to(d.dtype)
    # built from the masks, so that autograd through it takes the right-continuous slope too
    finite = d.clamp(-2, 2)
    found = [rises * (1 + finite) + falls * (1 - finite)]
    if derivatives >= 1:
        found.append(rises - falls)
    return found if derivatives < 2 else [*found, torch.zeros_like(found[0])]


def _cox_de_boor(spec: SplineSpec, x: Tensor, knots: Tensor, derivatives: int) -> list[Tensor]:
    order = spec.spline_order
    # far outside all splines are 0; the bound keeps 0 * inf out of the recursion, and lets NaN through
    x = torch.minimum(torch.maximum(x, knots[:, :1] - 1), knots[:, -1:] + 1)
    at, t = x.unsqueeze(1), knots.unsqueeze(-1)  # (I, 1, N), (I, K, 1)
    basis = ((at >= t[:, :-1]) & (at < t[:, 1:])).to(x.dtype)
    if order == 0:
        basis = torch.where(at.isnan(), at.detach(), basis)
        return [basis, *(torch.zeros_like(basis) for _ in range(derivatives))]
    found: list[Tensor] = []  # derivatives 1, 2 of the splines of the order that `basis` reaches
    for k in range(1, order + 1):
        widths = t[:, k:] - t[:, :-k]
        if derivatives >= 1 and k >= order - derivatives + 1:
            found = [_lowered(k, part / widths) for part in (basis, *found)][:derivatives]
        weighted = basis / widths
        basis = (at - t[:, : -k - 1]) * weighted[:, :-1] + (t[:, k + 1 :] - at) * weighted[:, 1:]
    found = [basis, *found]
    return [*found, *(torch.zeros_like(basis) for _ in range(derivatives + 1 - len(found)))]


def _lowered(order: int, weighted: Tensor) -> Tensor:
    """A derivative of splines from one less of the splines an order lower, each over its width (de Boor 1978, X)."""
    return order * (weighted[:, :-1] - weighted[:, 1:])
