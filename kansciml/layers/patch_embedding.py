"""Images to sequences of patch embeddings (Dosovitskiy et al. 2021, Eq. 1)."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """One linear map of every patch: a convolution whose stride is its kernel.

    Args:
        image_size: height and width H of the (square) images.
        channels: C.
        patch: height and width P of a patch; divides `image_size`.
        width: features D of a patch.

    Shapes: input (B, C, H, H), output (B, N, D) with N = (H / P)^2, row by row. Parameters: D (C P^2 + 1).

    Raises:
        ValueError: a patch that does not divide the image, or an input of another shape.
    """

    def __init__(self, image_size: int, channels: int, patch: int, width: int) -> None:
        super().__init__()
        if min(image_size, channels, patch, width) < 1 or image_size % patch:
            raise ValueError(
                f"got image size {image_size} and patch {patch} ({channels} channels, width {width}):"
                " expected positive sizes and a patch that divides the image"
            )
        self.image_size, self.channels, self.patch = image_size, channels, patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    @property
    def tokens(self) -> int:
        """Number of patches N."""
        return (self.image_size // self.patch) ** 2

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (self.channels, self.image_size, self.image_size):
            raise ValueError(
                f"got images of shape {tuple(x.shape)}: expected (B, {self.channels}, {self.image_size},"
                f" {self.image_size}), the sizes the model was built for"
            )
        # (B, N, D); what follows would keep the strides of the transpose, and be slower for it
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()
