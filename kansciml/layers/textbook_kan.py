"""B-spline KAN layer as the recursion is written in textbooks: slow and memory-hungry, for comparisons only."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kansciml._errors import UsageError
from kansciml.layers._layer import checked_range
from kansciml.layers.bspline import uniform_knots
from kansciml.layers.spline_kan import SplineKAN


class TextbookKAN(nn.Module):
    r"""The function of `SplineKAN` with ``outside="zero"``, computed by the Cox-de Boor recursion on whole tensors.

    .. math:: y_o = \sum_i w_{oi}\,\mathrm{silu}(x_i) + s_{oi} \sum_{m=1}^{G+S} c_{oim} B_{m,S}(x_i)

    with :math:`B_{m,0}(x) = 1` on :math:`[t_m, t_{m+1})`, else 0, and

    .. math:: B_{m,k}(x) = \frac{x - t_m}{t_{m+k} - t_m} B_{m,k-1}(x)
        + \frac{t_{m+k+1} - x}{t_{m+k+1} - t_{m+1}} B_{m+1,k-1}(x).

    The implementation behind Pal & Das (2024), section 3, works like this: every level of the recursion is a tensor
    (N, I, G + 2S - k), and autograd keeps most of them. Use `SplineKAN` for work.

    Args:
        in_features, out_features: I and O, at least 1.
        grid: number of grid intervals G (default 5).
        spline_order: polynomial order S (default 3, cubic), at least 1.
        grid_range: interval the grid covers (default [-1, 1]); the splines fade to zero over S knots outside it.
        spline_scale: learn one factor per edge on the spline (default).
        device, dtype: as in `torch.nn.Linear`.

    Weights: `base_weight` (O, I), `spline_weight` (O, I, G + S), `spline_scale` (O, I); buffer `knots` (I, G + 2S + 1).

    Raises:
        ValueError: a size, grid or order below 1, an empty grid_range, or an input whose last axis is not I.
    """

    knots: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        spline_scale: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, grid, spline_order) < 1:
            raise ValueError(
                f"got in_features {in_features}, out_features {out_features}, grid {grid}, spline_order {spline_order}:"
                " expected each to be at least 1"
            )
        self.in_features, self.out_features = in_features, out_features
        self.grid, self.spline_order = grid, spline_order
        self.grid_range = checked_range(grid_range)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.base_weight = parameter(out_features, in_features)
        self.spline_weight = parameter(out_features, in_features, grid + spline_order)
        self.spline_scale = parameter(out_features, in_features) if spline_scale else None
        knots = torch.from_numpy(uniform_knots(grid, spline_order, self.grid_range)).repeat(in_features, 1)
        self.register_buffer("knots", knots.to(self.base_weight))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Glorot-uniform base weights, spline coefficients N(0, 0.01 / I), unit scales."""
        bound = math.sqrt(6.0 / (self.in_features + self.out_features))
        with torch.no_grad():
            self.base_weight.uniform_(-bound, bound, generator=generator)
            self.spline_weight.normal_(0.0, 0.1 / math.sqrt(self.in_features), generator=generator)
            if self.spline_scale is not None:
                self.spline_scale.fill_(1.0)

    def basis(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs splines"]:
        """The B-splines at x, by the recursion."""
        t = self.knots  # (I, G + 2S + 1)
        x = x.unsqueeze(-1)
        basis = ((x >= t[:, :-1]) & (x < t[:, 1:])).to(x.dtype)  # (N, I, G + 2S)
        for k in range(1, self.spline_order + 1):
            rising = (x - t[:, : -k - 1]) / (t[:, k:-1] - t[:, : -k - 1])
            falling = (t[:, k + 1 :] - x) / (t[:, k + 1 :] - t[:, 1:-k])
            basis = rising * basis[..., :-1] + falling * basis[..., 1:]  # (N, I, G + 2S - k)
        return basis

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"got input of shape {tuple(x.shape)}: expected (..., {self.in_features})")
        rows = x.reshape(-1, self.in_features)
        scale = self.spline_scale
        spline = self.spline_weight if scale is None else self.spline_weight * scale.unsqueeze(-1)
        base = F.linear(F.silu(rows), self.base_weight)
        y = base + F.linear(self.basis(rows).flatten(1), spline.flatten(1))
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, grid={self.grid}, spline_order={self.spline_order}, "
            f"grid_range={self.grid_range}, spline_scale={self.spline_scale is not None}"
        )


def to_textbook(network: nn.Module) -> nn.Module:
    """Replaces every `SplineKAN` below `network`, in place, by a `TextbookKAN` of the same function; returns `network`.

    Raises:
        UsageError: a layer that the recursion has no form for: with a bias, of order 0, with another base activation
            than SiLU, or with splines that do not fade to zero outside the grid.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SplineKAN):
                setattr(parent, name, _textbook_form(child))
    return network


def _textbook_form(layer: SplineKAN) -> TextbookKAN:
    got = layer.base_activation, layer.outside, layer.bias is not None
    base, weight, scale = layer.base_weight, layer.spline_weight, layer.spline_scale
    if got != ("silu", "zero", False) or layer.spline_order < 1 or base is None:
        raise UsageError(
            f"got a SplineKAN with base_activation {got[0]!r}, outside {got[1]!r}, bias {got[2]} and spline_order "
            f"{layer.spline_order}: expected 'silu', 'zero', no bias, and at least 1"
        )
    sizes = (layer.in_features, layer.out_features, layer.grid, layer.spline_order, layer.grid_range)
    textbook = TextbookKAN(*sizes, scale is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        textbook.knots.copy_(layer.knots)
        textbook.base_weight.copy_(base.t())
        textbook.spline_weight.copy_(weight.permute(2, 0, 1))
        if textbook.spline_scale is not None and scale is not None:
            textbook.spline_scale.copy_(scale.t())
    return textbook
