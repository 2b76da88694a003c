"""What a model is: presets of one frozen configuration, three variants, and a function that builds the network.

A configuration describes the multi-layer perceptrons (`Slot`) whose place the KANs take, so that parameters and
operations can be compared, and matched, without building anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from kansciml._errors import UsageError, unknown_name
from kansciml.layers.kan import KAN
from kansciml.layers.mlp import MLP
from kansciml.layers.rswaf_kan import RSWAFKAN

VARIANTS = ("mlp", "kan-spline", "kan-rswaf")
DEFAULT_GRID = {"spline": 5, "rswaf": 8}


@dataclass(frozen=True)
class Slot:
    """One kind of MLP in a model, and where KANs may take its place.

    Args:
        name: what it mixes.
        widths: of the MLP, from input to output; two widths are one linear layer.
        rows: times it is applied per image.
        count: how many of them there are.
        lost: parameters beside it that its KAN form drops.
        normalised: whether an RSWAF layer in its place begins with a LayerNorm where `RSWAFKAN` does by default.
        pixels: of a convolution, from the taps of its kernel: pixels at which a KAN's splines are evaluated, padding
            included, instead of once per tap and row; None of others.
    """

    name: str
    widths: tuple[int, ...]
    rows: int
    count: int
    lost: int = 0
    normalised: bool = True
    pixels: int | None = None


@dataclass(frozen=True, kw_only=True)
class VariantConfig:
    """Options that all models have: of the KANs in place of their MLPs.

    Args:
        variant: ``mlp``, ``kan-spline`` or ``kan-rswaf``.
        grid: intervals of the splines, or points of the RSWAF grid; None: 5 and 8, as in Table 1.
        spline_order: of the splines.
        grid_range: interval of the grid; None: the layer's own default.
        kan_hidden: hidden widths of the slots' KANs; None: as published.
        fair: give the KANs what the MLPs have: biases everywhere, and the same drop-path.

    Raises:
        UsageError: a size below 1, an unknown variant.
    """

    MAY_BE_ZERO: ClassVar[frozenset[str]] = frozenset({"spline_order"})
    SINGLE_LAYER: ClassVar[frozenset[str]] = frozenset()
    """Names of slots whose KAN is one layer, whatever `kan_hidden` says."""

    variant: str = "mlp"
    grid: int | None = None
    spline_order: int = 3
    grid_range: tuple[float, float] | None = None
    kan_hidden: tuple[int, ...] | None = None
    fair: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown_name("variant", self.variant, VARIANTS)
        for item in dataclasses.fields(self):
            value, least = getattr(self, item.name), 0 if item.name in self.MAY_BE_ZERO else 1
            if type(value) is int and value < least:
                raise UsageError(f"got {item.name} {value}: expected at least {least}")
        if self.kan_hidden is not None and (not self.kan_hidden or min(self.kan_hidden) < 1):
            raise UsageError(f"got kan_hidden {self.kan_hidden}: expected widths of at least 1, or None")

    @property
    def kan_layer(self) -> str | None:
        """``spline``, ``rswaf``, or None in the MLP variant."""
        return self.variant.partition("-")[2] or None

    @property
    def kan_grid(self) -> int | None:
        """The grid size in use; None in the MLP variant."""
        return self.grid or DEFAULT_GRID[self.kan_layer] if self.kan_layer else None

    @property
    def keeps_mlps(self) -> bool:
        """Whether the KANs stand beside the slots' MLPs, and not in their place."""
        return False

    @property
    def data(self) -> str:
        """The data it is for, in a few words."""
        raise NotImplementedError

    @property
    def complex_weights(self) -> int:
        """Complex numbers among the parameters, each held as two real ones."""
        return 0

    def slots(self) -> tuple[Slot, ...]:
        """The MLPs of the ``mlp`` variant; of every variant the same."""
        raise NotImplementedError

    def kan_widths(self) -> tuple[tuple[int, ...], ...]:
        """Widths of the KAN in each slot."""
        raise NotImplementedError

    def _with_hidden(self, default: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Each slot's input, hidden and output width; `default` unless `kan_hidden` says otherwise."""
        slots, hidden = self.slots(), self.kan_hidden or default
        if len(hidden) != len(slots):
            names = ", ".join(slot.name for slot in slots)
            raise UsageError(f"got kan_hidden {hidden}: expected {len(slots)} widths ({names})")
        return tuple((slot.widths[0], width, slot.widths[-1]) for slot, width in zip(slots, hidden))

    def mixing(self, index: int) -> nn.Module:
        """The MLP or KAN of slot `index`, (..., I) -> (..., O)."""
        slot = self.slots()[index]
        if self.kan_layer is None:
            return MLP(slot.widths, "gelu")
        options = self.kan_options()
        if self.kan_layer == "rswaf" and not slot.normalised:
            options["layer_norm"] = False
        return KAN(self.kan_widths()[index], self.kan_layer, **options)

    def kan_options(self) -> dict[str, Any]:
        """Those of every KAN layer: grid, bias, and where they are set or belong to it range and order."""
        options: dict[str, Any] = {"grid": self.kan_grid, "bias": self.fair}
        if self.kan_layer == "spline":
            options["spline_order"] = self.spline_order
        if self.grid_range is not None:
            options["grid_range"] = self.grid_range
        return options

    def dead_parameters(self) -> int:
        """Parameters that the source's KAN model holds and never uses, and this one does not have."""
        return 0


@dataclass(frozen=True, kw_only=True)
class VisionConfig(VariantConfig):
    """Sizes and options that all vision models have, with those of `VariantConfig`.

    Args:
        image_size, channels, classes: of the data.
        patch: height and width of a patch; divides the image.
        width, depth: features per patch, and number of blocks.
        drop_path: largest rate of stochastic depth, below 1; None: as the source has it for this variant.

    Raises:
        UsageError: as `VariantConfig`, a patch that does not divide the image, a rate out of range.
    """

    image_size: int = 32
    channels: int = 3
    classes: int = 10
    patch: int = 4
    width: int = 128
    depth: int = 8
    drop_path: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch:
            raise UsageError(
                f"got patch {self.patch} for images of {self.image_size} x {self.image_size}:"
                " expected a patch that divides the image"
            )
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise UsageError(f"got drop_path {self.drop_path}: expected at least 0 and less than 1")

    @property
    def default_drop_path(self) -> float:
        """`drop_path` where that is None."""
        return 0.0

    @property
    def drop_path_rates(self) -> list[float]:
        """Rates of the blocks, from 0 in even steps to the largest."""
        rate = self.default_drop_path if self.drop_path is None else self.drop_path
        return [rate * k / max(self.depth - 1, 1) for k in range(self.depth)]

    @property
    def data(self) -> str:
        return f"{self.image_size} x {self.image_size} x {self.channels}, {self.classes} classes"


class Network(nn.Module):
    """The module of a model: it keeps the configuration that it was made from, and can draw its weights anew."""

    def __init__(self, config: VariantConfig) -> None:
        super().__init__()
        self.config: Any = config

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew: PyTorch's own distributions for linear layers and convolutions, each KAN layer's own.

        Linear layers and convolutions: uniform within 1 / sqrt(fan-in), biases too; norms are neutral.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = module.weight[0].numel() ** -0.5
                for parameter in module.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
                module.reset_parameters()
            elif module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset(generator)


@dataclass(frozen=True)
class Counts:
    """Numbers of one model.

    Args:
        trainable: learnable numbers. grid_points: constant points of the RSWAF grids, which Table 1 counts with them.
    """

    trainable: int
    grid_points: int

    @property
    def active(self) -> int:
        """All that the forward pass uses, as the paper counts it."""
        return self.trainable + self.grid_points


@dataclass(frozen=True)
class Model:
    """A family of models.

    Args:
        name: as on the command line, before the preset: ``deit`` and ``tiny`` make ``deit-tiny``.
        title: one line.
        presets: name -> configuration of the ``mlp`` variant.
        module: builds the network, with freshly drawn weights, from a configuration.
        printed: (preset, variant) -> number of parameters that the paper prints.
    """

    name: str
    title: str
    presets: Mapping[str, Any]
    module: Callable[[Any], Network]
    printed: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def config(self, preset: str, variant: str = "mlp", **options: Any) -> Any:
        """The configuration of a preset with other options.

        Raises:
            UsageError: an unknown preset, variant or option, or a value that the configuration refuses.
        """
        if preset not in self.presets:
            raise unknown_name(f"preset of {self.name}", preset, self.presets)
        base = self.presets[preset]
        valid = [item.name for item in dataclasses.fields(base)]
        for name in options:
            if name not in valid:
                raise unknown_name(f"option of {self.name}", name, valid)
        return dataclasses.replace(base, variant=variant, **options)

    def build(self, config: VariantConfig, generator: torch.Generator | None = None) -> Network:
        """The network of a configuration; its weights are drawn from `generator` (None: torch's own).

        Raises:
            UsageError: sizes that do not fit each other.
        """
        try:
            network = self.module(config)
        except ValueError as error:  # a layer's refusal
            raise error if isinstance(error, UsageError) else UsageError(f"{self.name}: {error}") from None
        network.reset_parameters(generator)
        return network

    def count(self, config: VariantConfig) -> Counts:
        """Parameters of a configuration; no memory is taken for them."""
        with torch.device("meta"):
            return count_parameters(self.module(config))


def count_parameters(network: nn.Module) -> Counts:
    """Count a network's learnable numbers, and the constant grid points of its RSWAF layers."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    grids = [m.grid_points for m in network.modules() if isinstance(m, RSWAFKAN)]
    return Counts(trainable, sum(g.numel() for g in grids if not isinstance(g, nn.Parameter)))
