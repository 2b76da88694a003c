"""MLP-Mixer (Tolstikhin et al. 2021) for small images, with MLPs or KANs: left panel of Figure 3, and Figure 4.

Pal & Das (2024) name no sizes. The presets' are those of the small CIFAR mixers their figures point to.

Every mixer has N numbers per block without effect: the output bias of an MLP over patches is the same for all features
of a patch, and every LayerNorm takes that away. They are in the published counts; KANs have them only where `fair`.
For the same reason the norm before an RSWAF KAN over patches has no shift: RSWAF layers begin with a LayerNorm.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from kansciml.layers.drop_path import DropPath
from kansciml.layers.images.patch_embedding import PatchEmbedding
from kansciml.layers.layer_norm import LayerNorm
from kansciml.layers.rswaf_kan import FEWEST_NORMALISED
from kansciml.models.base import Model, Network, Slot, VisionConfig


@dataclass(frozen=True, kw_only=True)
class MixerConfig(VisionConfig):
    """Sizes of a mixer.

    Args:
        token_hidden: hidden width of the MLPs over patches.
        channel_hidden: hidden width of the MLPs over features.

    `kan_hidden`: (over patches, over features), default the same widths as the MLPs'.
    """

    token_hidden: int = 512
    channel_hidden: int = 64

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return (self.image_size // self.patch) ** 2

    def slots(self) -> tuple[Slot, ...]:
        n, d = self.tokens, self.width
        return (
            Slot("tokens", (n, self.token_hidden, n), d, self.depth),
            Slot("channels", (d, self.channel_hidden, d), n, self.depth),
        )

    def kan_widths(self) -> tuple[tuple[int, ...], ...]:
        return self._with_hidden((self.token_hidden, self.channel_hidden))


class MixerBlock(nn.Module):
    """Mixes over patches, then over features: x + f(norm(x)^T)^T, then x + g(norm(x))."""

    def __init__(self, config: MixerConfig, drop_path: float) -> None:
        super().__init__()
        # its shift would be lost in the LayerNorm over patches that follows
        normed = config.kan_layer == "rswaf" and config.tokens >= FEWEST_NORMALISED
        self.norm1 = LayerNorm(config.width, bias=not normed)
        self.tokens = config.mixing(0)
        self.norm2 = LayerNorm(config.width)
        self.channels = config.mixing(1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        x = x + self.drop_path(self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.channels(self.norm2(x)))


class Mixer(Network):
    """Images to class scores: patches, blocks, LayerNorm, mean over patches, linear head."""

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbedding(config.image_size, config.channels, config.patch, config.width)
        self.blocks = nn.Sequential(*(MixerBlock(config, rate) for rate in config.drop_path_rates))
        self.norm = LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        x = self.blocks(self.patch_embed(x))  # (B, N, D)
        return self.head(self.norm(x).mean(1))


MODEL = Model(
    name="mixer",
    title="MLP-Mixer (Tolstikhin et al. 2021): mixing over patches and features by MLPs or KANs",
    presets={
        "nano": MixerConfig(),
        "nano-c512": MixerConfig(token_hidden=64, channel_hidden=512),
    },
    module=Mixer,
)
