"""B-spline KAN layer (Liu et al. 2024; Pal & Das 2024, section 3), correct at any order and grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .bspline import uniform_knots, uniform_pieces


class SplineKAN(nn.Module):
    r"""KAN layer with a learnable univariate function on every edge.

    .. math:: y_o = \sum_i w_{oi}\,\mathrm{silu}(x_i) + s_{oi} \sum_{m=1}^{G+S} c_{oim} B_m(x_i)

    Parameters: I O (2 + G + S) with `spline_scale`, as in section 3.1 of the paper (no bias).

    Args:
        in_features, out_features: I and O, at least 1.
        grid: number of grid intervals G (default 5).
        spline_order: polynomial order S (default 3, cubic).
        grid_range: interval the grid covers (default [-1, 1]). Outside it the splines fade to zero over S knots and
            only the SiLU branch is left.
        spline_scale: learn one factor per edge on the spline (default), as the paper counts it.
        device, dtype: as in `torch.nn.Linear`.

    Shapes: input (..., I), output (..., O). `base_weight` (O, I), `spline_weight` (O, I, G + S), `spline_scale` (O, I):
    the layout and names of efficient-kan, except that its `spline_scaler` is `spline_scale` here.

    Raises:
        ValueError: a size, grid or order below 1, an empty grid_range, or an input whose last axis is not I.
    """

    pieces: Tensor

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
        if not grid_range[0] < grid_range[1]:
            raise ValueError(f"got grid_range {tuple(grid_range)}: expected the lower bound first")
        self.in_features, self.out_features = in_features, out_features
        self.grid, self.spline_order = grid, spline_order
        self.grid_range = (float(grid_range[0]), float(grid_range[1]))
        options = {"device": device, "dtype": dtype}
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features, **options))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid + spline_order, **options))
        if spline_scale:
            self.spline_scale = nn.Parameter(torch.empty(out_features, in_features, **options))
        else:
            self.register_parameter("spline_scale", None)
        # float64 whatever the dtype of the weights: these constants are exact there and cost a few hundred bytes
        pieces = torch.from_numpy(uniform_pieces(spline_order)).to(device)
        self.register_buffer("pieces", pieces, persistent=False)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Glorot-uniform base weights, spline coefficients N(0, 0.01 / I), unit scales."""
        bound = math.sqrt(6.0 / (self.in_features + self.out_features))
        with torch.no_grad():
            self.base_weight.uniform_(-bound, bound, generator=generator)
            self.spline_weight.normal_(0.0, 0.1 / math.sqrt(self.in_features), generator=generator)
            if self.spline_scale is not None:
                self.spline_scale.fill_(1.0)

    @property
    def knots(self) -> Tensor:
        """The G + 2S + 1 knots, (K,), float64."""
        return torch.from_numpy(uniform_knots(self.grid, self.spline_order, self.grid_range))

    def basis(self, x: Tensor) -> Tensor:
        """The B-splines at x: (...,) -> (..., G + S). Differentiable in x."""
        order, size = self.spline_order, self.grid + self.spline_order
        low, high = self.grid_range
        u = (x - low) * (self.grid / (high - low)) + order  # position in cells from the first knot
        cell = u.detach().floor()
        inside = (cell >= 0) & (cell < self.grid + 2 * order)
        cell = torch.where(inside, cell, 0)
        r = torch.where(inside, u, 0) - cell
        powers = torch.stack([r**p for p in range(order + 1)], dim=-1)  # (..., S + 1)
        local = (powers @ self.pieces.to(x.dtype).T) * inside.unsqueeze(-1)
        # A cell near the edge also sees splines that the layer does not have: scatter into a padded row, then cut.
        index = cell.long().unsqueeze(-1) + torch.arange(order + 1, device=x.device)
        padded = local.new_zeros(*x.shape, size + 2 * order).scatter(-1, index, local)
        return padded[..., order : order + size]

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"got input of shape {tuple(x.shape)}: expected (..., {self.in_features})")
        spline = self.spline_weight
        if self.spline_scale is not None:
            spline = spline * self.spline_scale.unsqueeze(-1)
        base = nn.functional.linear(nn.functional.silu(x), self.base_weight)
        return base + nn.functional.linear(self.basis(x).flatten(-2), spline.flatten(-2))

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.out_features}, grid={self.grid}, spline_order={self.spline_order}, "
            f"grid_range={self.grid_range}, spline_scale={self.spline_scale is not None}"
        )
