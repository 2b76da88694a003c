"""Fourier neural operators on a square grid: plain, with input injection, weight-tied, or in equilibrium.

Figure 5 of Pal & Das (2024) shows a "weight-tied FNO++" for Darcy flow. In the source it cites (Marwah et al. 2023,
FNO-DEQ) FNO++ injects the input and ties nothing, and FNO-WT ties its weights; the paper's model is the latter, ``wt``.

All presets have one block of three layers and one untied layer, and so the same 2,376,449 parameters, of which lift and
projection have 4,481, or 43,200 as spline KANs; injecting the input takes none. PyTorch's numel counts a complex number
once: 1,196,801. ``original`` has no channel MLPs, as Li et al. (2021): 2,368,001.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kansciml._errors import UsageError, unknown_name
from kansciml.layers._kernels.autograd import autocast_dtype
from kansciml.layers.fixed_point import GRADIENTS, FixedPointStatus, fixed_point
from kansciml.layers.spectral_conv import FourierBasis, SpectralConv2d, fourier_basis
from kansciml.models.base import Model, Network, Slot, VariantConfig

LAYERS_PER_BLOCK = 3
Features = Float[Tensor, "batch width height_padded width_padded"]


@dataclass(frozen=True, kw_only=True)
class FNOConfig(VariantConfig):
    """Sizes and options of a Fourier neural operator.

    Args:
        in_channels, out_channels: functions given, and asked for.
        width: features per point. modes: m1, m2 of the spectral convolutions.
        padding: points of zeros after the last row and column, as the functions are not periodic.
        projection: hidden width of the projection's MLP.
        blocks: blocks of three layers.
        channel_mlp: put an MLP width -> width -> width behind every spectral convolution.
        injection: add the lifted input in every layer of the blocks.
        from_zero: start from z = 0, and not from the lifted input. The source's FNO++ does so too, and as it applies
            its blocks once, 591,872 numbers of its first layer have no effect: ``injection`` does not.
        iterations: times the blocks are applied, always with the same weights.
        residual: z <- z + block(z) in place of z <- block(z).
        equilibrium: apply the blocks until z no longer changes, and differentiate implicitly, in place of `iterations`.
        tolerance, max_steps, history, gradient: of the equilibrium, as in `kansciml.layers.fixed_point.fixed_point`.
        recompute: keep only z of every iteration for the backward pass, and compute what is between them again.
        resolution: points per side where costs are counted; the network takes any that has the modes.

    `kan_hidden`: one hidden width, of the projection's KAN; default the MLP's. The lift is a single KAN layer. Where it
    is an RSWAF layer, it has no LayerNorm: over the three inputs a, x, y that would leave one number of three.

    Raises:
        UsageError: as `VariantConfig`, modes that are not two, a start from zero or an equilibrium without injection,
            an equilibrium with `residual`.
    """

    MAY_BE_ZERO: ClassVar[frozenset[str]] = VariantConfig.MAY_BE_ZERO | {"padding", "history"}
    SINGLE_LAYER: ClassVar[frozenset[str]] = frozenset({"lift"})

    in_channels: int = 1
    out_channels: int = 1
    width: int = 32
    modes: tuple[int, int] = (12, 12)
    padding: int = 9
    projection: int = 128
    blocks: int = 1
    channel_mlp: bool = True
    injection: bool = False
    from_zero: bool = False
    iterations: int = 1
    residual: bool = False
    equilibrium: bool = False
    tolerance: float = 1e-4
    max_steps: int = 50
    history: int = 5
    gradient: str = "implicit"
    recompute: bool = False
    resolution: int = 85

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.modes) != 2 or min(self.modes) < 1:
            raise UsageError(f"got modes {self.modes}: expected two numbers of at least 1")
        if self.gradient not in GRADIENTS:
            raise unknown_name("gradient", self.gradient, GRADIENTS)
        if self.tolerance < 0:
            raise UsageError(f"got tolerance {self.tolerance}: expected at least 0")
        if (self.equilibrium or self.from_zero) and not self.injection:
            raise UsageError("got an equilibrium, or a start from zero, without injection: nothing brings the input in")
        if self.equilibrium and self.residual:
            raise UsageError("got an equilibrium with residual: z + block(z) = z asks for block(z) = 0; choose one")

    def check_side(self, side: int, what: str) -> None:
        """Raise UsageError, which begins with `what`, if side x side points have fewer modes than are wanted."""
        points = side + self.padding
        try:
            fourier_basis((points, points), self.modes)
        except ValueError as error:
            raise UsageError(f"{what}, with padding {self.padding}: {error}") from None

    @property
    def data(self) -> str:
        return f"{self.resolution} x {self.resolution} points, {self.in_channels} -> {self.out_channels} fields"

    @property
    def complex_weights(self) -> int:
        return (LAYERS_PER_BLOCK * self.blocks + 1) * 2 * self.modes[0] * self.modes[1] * self.width**2

    def slots(self) -> tuple[Slot, ...]:
        points = self.resolution**2
        return (
            Slot("lift", (self.in_channels + 2, self.width), points, 1, normalised=False),
            Slot("projection", (self.width, self.projection, self.out_channels), points, 1),
        )

    def kan_widths(self) -> tuple[tuple[int, ...], ...]:
        hidden = self.kan_hidden or (self.projection,)
        if len(hidden) != 1:
            raise UsageError(f"got kan_hidden {hidden}: expected 1 width (projection)")
        return (self.slots()[0].widths, (self.width, *hidden, self.out_channels))


class Pointwise(nn.Conv2d):
    """1x1 convolution as a matrix product: on a CPU a narrow one takes a tenth of the time of torch's convolution."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 1)

    def forward(self, z: Features) -> Features:
        assert self.bias is not None
        weight = self.weight[:, :, 0, 0].expand(z.shape[0], -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, z.flatten(2)).view(z.shape)


class FourierLayer(nn.Module):
    """MLP(spectral convolution of z) + 1x1 convolution of z + injection."""

    def __init__(self, config: FNOConfig) -> None:
        super().__init__()
        d = config.width
        self.spectral = SpectralConv2d(d, d, config.modes)
        self.mlp = nn.Sequential(Pointwise(d), nn.GELU(), Pointwise(d)) if config.channel_mlp else None
        self.pointwise = Pointwise(d)

    def forward(self, z: Features, basis: FourierBasis, injection: Features | None = None) -> Features:
        y = self.spectral(z, basis)
        if self.mlp is not None:
            y = self.mlp(y)
        y = y + self.pointwise(z)
        return y if injection is None else y + injection


class FourierBlock(nn.Module):
    """Three Fourier layers, each with GELU behind it."""

    def __init__(self, config: FNOConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FourierLayer(config) for _ in range(LAYERS_PER_BLOCK))
        self.residual = config.residual

    def forward(self, z: Features, basis: FourierBasis, injection: Features | None = None) -> Features:
        start = z
        for layer in self.layers:
            z = F.gelu(layer(z, basis, injection))
        return start + z if self.residual else z


class FNO(Network):
    """Functions to functions: lift of these and of coordinates, blocks, one more layer, projection.

    The coordinates x and y of the points run from 0 to 1, both ends included, along H and W. Any grid will do that,
    with the padding, has the modes, also where it is compiled or exported with H and W left open. An equilibrium is
    not exported: how often it applies its blocks depends on the data.

    Raises:
        ValueError: another shape or dtype than the weights take, or a grid with too few points.
    """

    def __init__(self, config: FNOConfig) -> None:
        super().__init__(config)
        self.lift = config.mixing(0)
        self.blocks = nn.ModuleList(FourierBlock(config) for _ in range(config.blocks))
        self.last = FourierLayer(config)
        self.projection = config.mixing(1)
        self.status: FixedPointStatus | None = None
        """Of the last forward pass, where it looked for an equilibrium; its backward pass fills in the rest."""

    def forward(self, a: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch _ height width"]:
        c = self.config
        if a.dim() != 4 or a.shape[1] != c.in_channels:
            raise ValueError(f"got input of shape {tuple(a.shape)}: expected (B, {c.in_channels}, H, W)")
        own, narrow = self.last.pointwise.weight.dtype, autocast_dtype(a)
        if narrow is not None and own == torch.float64:  # which autocast leaves as it is
            with torch.autocast(a.device.type, enabled=False):
                return self.forward(a)
        if a.dtype not in (own, narrow):
            raise ValueError(f"got input of {a.dtype}: expected {own}, the dtype of the weights")
        if c.equilibrium and torch.compiler.is_exporting():
            raise ValueError("got an equilibrium to export: expected a set number of `iterations`, as fno-wt has")
        h, w = a.shape[2:]
        dtype = torch.promote_types(own, torch.float32)
        basis = fourier_basis((h + c.padding, w + c.padding), c.modes, dtype, a.device)
        lifted = self.lift(with_coordinates(a)).permute(0, 3, 1, 2)
        lifted = F.pad(lifted, (0, c.padding, 0, c.padding))
        z = self.last(self._blocks(lifted, basis), basis)
        return self.projection(z[..., :h, :w].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _blocks(self, lifted: Tensor, basis: FourierBasis) -> Tensor:
        c = self.config
        start = torch.zeros_like(lifted) if c.from_zero else lifted
        once = partial(self._once, basis=basis, injection=lifted if c.injection else None)
        if c.equilibrium:
            z, self.status = fixed_point(once, start, c.tolerance, c.max_steps, c.history, gradient=c.gradient)
            return z
        z = start
        for _ in range(c.iterations):
            z = checkpoint(once, z, use_reentrant=False) if c.recompute and torch.is_grad_enabled() else once(z)
        return z

    def _once(self, z: Tensor, basis: FourierBasis, injection: Tensor | None) -> Tensor:
        for block in self.blocks:
            z = block(z, basis, injection)
        return z


def with_coordinates(
    a: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch height width channels+2"]:
    """Functions and the coordinates of their points."""
    b, _, h, w = a.shape
    # not by linspace, which would fix the grid's size in a compiled program
    x, y = ((torch.arange(n, device=a.device).double() / max(n - 1, 1)).to(a.dtype) for n in (h, w))
    grid = torch.stack([x[:, None].expand(h, w), y.expand(h, w)], -1)
    return torch.cat([a.permute(0, 2, 3, 1), grid.expand(b, h, w, 2)], -1)


OPERATOR = Model(
    name="fno",
    title="Fourier neural operator (Li et al. 2021; Marwah et al. 2023), lift and projection by MLPs or KANs",
    presets={
        "original": FNOConfig(channel_mlp=False),
        "plain": FNOConfig(),
        "injection": FNOConfig(injection=True),
        "wt": FNOConfig(injection=True, from_zero=True, iterations=12),
        "deq": FNOConfig(injection=True, from_zero=True, equilibrium=True),
    },
    module=FNO,
)
