"""ConvMixer (Trockman & Kolter 2022), with KANs over the channels: right panel of Figure 3.

"We augment the convolution layers with a KAN layer" (Pal & Das 2024, section 4.2) does not say where: `placement`
offers the readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kansciml._errors import UsageError, unknown_name
from kansciml.layers.drop_path import DropPath
from kansciml.layers.images.kan_conv import KANConv2d
from kansciml.layers.images.patch_embedding import check_images
from kansciml.models.base import Model, Network, Slot, VisionConfig

PLACEMENTS = ("append", "replace", "head", "grouped")


@dataclass(frozen=True, kw_only=True)
class ConvMixerConfig(VisionConfig):
    """Sizes of a ConvMixer.

    Args:
        kernel: odd size of the depthwise convolutions.
        placement: of the KANs: ``append`` (default) puts one after every 1x1 convolution, ``replace`` in its place,
            ``head`` in place of the linear classifier, ``grouped`` makes the depthwise convolutions `KANConv2d`s: the
            formulation of Drokin (2024), which the paper's footnote 4 leaves out.

    `kan_hidden`: one hidden width; default none: a single KAN layer, as the 1x1 convolution is a single layer.

    Raises:
        UsageError: an even kernel, an unknown placement, hidden widths or RSWAF layers in place of convolutions.
    """

    patch: int = 2
    width: int = 256
    kernel: int = 5
    placement: str = "append"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise UsageError(f"got kernel {self.kernel}: expected an odd size, so that images keep theirs")
        if self.placement not in PLACEMENTS:
            raise unknown_name("placement", self.placement, PLACEMENTS)
        if self.placement == "grouped" and (self.kan_hidden or self.kan_layer == "rswaf"):
            raise UsageError(
                f"got kan_hidden {self.kan_hidden} and variant {self.variant} with placement grouped: expected none,"
                " and kan-spline"
            )

    @property
    def keeps_mlps(self) -> bool:
        return self.kan_layer is not None and self.placement == "append"

    def slots(self) -> tuple[Slot, ...]:
        if self.placement == "head":
            return (Slot("head", (self.width, self.classes), 1, 1),)
        side = self.image_size // self.patch
        rows, border = side**2, self.kernel // 2
        if self.placement == "grouped":
            pixels = (side + 2 * border) ** 2
            return (Slot("depthwise", (self.kernel**2, 1), rows, self.depth * self.width, pixels=pixels),)
        return (Slot(f"channels ({self.placement})", (self.width, self.width), rows, self.depth),)

    def kan_widths(self) -> tuple[tuple[int, ...], ...]:
        return self._with_hidden(()) if self.kan_hidden else (self.slots()[0].widths,)


class OverChannels(nn.Module):
    """A module over the last axis applied to the channels of images.

    Images whose memory is channels-last go through as views, and come out channels-last.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs height width"]:
        return self.inner(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvMixerBlock(nn.Module):
    """x + BN(GELU(depthwise(x))), then BN(GELU(pointwise(x)))."""

    def __init__(self, config: ConvMixerConfig, drop_path: float) -> None:
        super().__init__()
        d, kernel = config.width, config.kernel
        kan = config.kan_layer is not None and config.placement in ("append", "replace")
        shape: dict[str, Any] = {"kernel_size": kernel, "padding": kernel // 2, "groups": d}
        if config.kan_layer is not None and config.placement == "grouped":
            self.depthwise: nn.Module = KANConv2d(d, d, **shape, **config.kan_options())
        else:
            self.depthwise = nn.Conv2d(d, d, **shape)
        self.norm1 = nn.BatchNorm2d(d)
        pointwise: list[nn.Module] = [] if kan and config.placement == "replace" else [nn.Conv2d(d, d, 1)]
        if kan:
            pointwise.append(OverChannels(config.mixing(0)))
        self.pointwise = nn.Sequential(*pointwise)
        self.norm2 = nn.BatchNorm2d(d)
        self.activation = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch width rows columns"]) -> Float[Tensor, "batch width rows columns"]:
        x = x + self.drop_path(self.norm1(self.activation(self.depthwise(x))))
        return self.norm2(self.activation(self.pointwise(x)))


class ConvMixer(Network):
    """Images to class scores: patches, blocks, mean over positions, head.

    Where KANs work on the channels, images are laid out channels-last from the start, so that no KAN copies its input.
    """

    def __init__(self, config: ConvMixerConfig) -> None:
        super().__init__(config)
        self.stem = nn.Sequential(
            nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch),
            nn.GELU(),
            nn.BatchNorm2d(config.width),
        )
        self.blocks = nn.Sequential(*(ConvMixerBlock(config, rate) for rate in config.drop_path_rates))
        on_head = config.kan_layer is not None and config.placement == "head"
        self.head = config.mixing(0) if on_head else nn.Linear(config.width, config.classes)
        self.channels_last = config.kan_layer is not None and config.placement in ("append", "replace")

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        check_images(x, self.config.channels, self.config.image_size)
        x = self.stem(x)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.blocks(x).mean((2, 3)))


MODEL = Model(
    name="conv-mixer",
    title="ConvMixer (Trockman & Kolter 2022): depthwise and 1x1 convolutions, KANs after, or in place of, the latter",
    presets={
        "256-8": ConvMixerConfig(),
        "128-4": ConvMixerConfig(width=128, depth=4),
    },
    module=ConvMixer,
)
