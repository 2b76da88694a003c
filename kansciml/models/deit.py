"""Vision transformers (Dosovitskiy et al. 2021) of the sizes of DeiT (Touvron et al. 2021): Table 1.

The KAN variants follow the formulation that the paper cites for Table 1 (Vision-KAN): KANs of widths [D, 192, D] in
place of the MLPs, no biases on queries, keys and values, no drop-path. That source also builds the MLP of every block
and never calls it, which is in the counts the paper prints (`DeitConfig.dead_parameters`) and not in these models.
Parameters are named as in timm's vision transformer, so that its weights load: see `kansciml.models.deit_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kansciml._errors import UsageError
from kansciml.layers.attention import Attention
from kansciml.layers.drop_path import DropPath
from kansciml.layers.images.patch_embedding import PatchEmbedding
from kansciml.models.base import Model, Network, Slot, VisionConfig

KAN_HIDDEN = 192
"""Hidden width of Vision-KAN's KANs, whatever D. Table 1 has no Base with KANs; it gets the same here."""
DROP_PATH = 0.1
"""DeiT's largest drop-path rate (Touvron et al. 2021, Table 9)."""
INIT_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class DeitConfig(VisionConfig):
    """Sizes of a vision transformer.

    Args:
        heads: of the attention; divides the width.
        mlp_hidden: hidden width of the MLPs; None: 4 times the width.

    Defaults: CIFAR-100 at 224 pixels. `kan_hidden`: one width, default 192. `drop_path`: default 0.1 for the MLPs, and
    0 for the KANs unless `fair`; `fair` also gives the KAN variants their biases in attention.

    Raises:
        UsageError: heads that do not divide the width.
    """

    image_size: int = 224
    classes: int = 100
    patch: int = 16
    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp_hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise UsageError(f"got width {self.width} and {self.heads} heads: expected heads that divide the width")

    @property
    def default_drop_path(self) -> float:
        return DROP_PATH if self.kan_layer is None or self.fair else 0.0

    @property
    def qkv_bias(self) -> bool:
        """Whether attention has biases on queries, keys and values."""
        return self.kan_layer is None or self.fair

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return (self.image_size // self.patch) ** 2 + 1

    def slots(self) -> tuple[Slot, ...]:
        hidden = self.mlp_hidden or 4 * self.width
        lost = 0 if self.fair else 3 * self.width
        return (Slot("MLP", (self.width, hidden, self.width), self.tokens, self.depth, lost),)

    def kan_widths(self) -> tuple[tuple[int, ...], ...]:
        return self._with_hidden((KAN_HIDDEN,))

    @property
    def other_flops(self) -> float:
        """FLOPs of the matrix products of one forward pass, per image, outside of the MLPs or KANs.

        A multiplication and an addition are two. Patch embedding 2 C p^2 D N; per block queries, keys, values and
        projection 8 D^2 T, attention 4 T^2 D; head 2 D classes. Biases, norms and softmax are left out.
        """
        patches = 2 * self.channels * self.patch**2 * self.width * (self.tokens - 1)
        block = 8 * self.width**2 * self.tokens + 4 * self.tokens**2 * self.width
        return float(patches + self.depth * block + 2 * self.width * self.classes)

    def dead_parameters(self) -> int:
        if self.kan_layer is None:
            return 0
        (slot,) = self.slots()
        return slot.count * sum((n_in + 1) * n_out for n_in, n_out in zip(slot.widths[:-1], slot.widths[1:]))


class FeedForward(nn.Module):
    """Two linear layers with GELU (exact, by erf) between them: `kansciml.layers.mlp.MLP` under timm's names."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.fc2(F.gelu(self.fc1(x)))


class DeitBlock(nn.Module):
    """x + attention(norm(x)), then x + f(norm(x)) with an MLP or a KAN f."""

    def __init__(self, config: DeitConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads, config.qkv_bias)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        mlp = config.kan_layer is None
        self.mlp = FeedForward(config.width, config.slots()[0].widths[1]) if mlp else None
        self.kan = None if mlp else config.mixing(0)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        forward = self.mlp or self.kan
        assert forward is not None
        return x + self.drop_path(forward(self.norm2(x)))


class Deit(Network):
    """Images to class scores, read off a class token.

    Patches and the class token, plus learned positions; blocks; LayerNorm; a linear head on the class token.
    """

    def __init__(self, config: DeitConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbedding(config.image_size, config.channels, config.patch, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.Sequential(*(DeitBlock(config, rate) for rate in config.drop_path_rates))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.head = nn.Linear(config.width, config.classes)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, as DeiT does: linear layers, class token and positions N(0, 0.02^2), zero biases.

        The normal distribution is cut at two, which changes nothing at this width. KAN layers draw as they do.
        """
        super().reset_parameters(generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, INIT_STD, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        self.cls_token.normal_(0, INIT_STD, generator=generator)
        self.pos_embed.normal_(0, INIT_STD, generator=generator)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay leaves out beside norms and biases, as in DeiT: see `parameter_groups`."""
        return {"cls_token", "pos_embed"}

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed  # (B, 1 + N, D)
        return self.head(self.norm(self.blocks(x)[:, 0]))


MODEL = Model(
    name="deit",
    title="vision transformer of DeiT's sizes (Touvron et al. 2021), with MLPs or KANs",
    presets={
        "tiny": DeitConfig(),
        "small": DeitConfig(width=384, heads=6),
        "base": DeitConfig(width=768, heads=12),
    },
    module=Deit,
    printed={
        ("tiny", "mlp"): 5_500_000,
        ("tiny", "kan-spline"): 14_300_000,
        ("tiny", "kan-rswaf"): 12_600_000,
        ("small", "mlp"): 21_700_000,
        ("small", "kan-spline"): 39_400_000,
        ("small", "kan-rswaf"): 35_800_000,
        ("base", "mlp"): 85_800_000,
    },
)
