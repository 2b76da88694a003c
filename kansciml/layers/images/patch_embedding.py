"""Images to sequences of patch embeddings (Dosovitskiy et al. 2021, Eq. 1)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


def check_images(x: Tensor, channels: int, size: int) -> None:
    """Refuse images of another shape than the model's.

    Raises:
        ValueError: another number of channels, or of rows or columns.
    """
    if x.shape[1:] != (channels, size, size):
        raise ValueError(
            f"got images of shape {tuple(x.shape)}: expected (B, {channels}, {size}, {size}), the sizes the model was"
            " built for"
        )


class PatchEmbedding(nn.Module):
    """One linear map of every patch: a convolution whose stride is its kernel.

    Args:
        image_size: height and width H of the (square) images.
        channels: C.
        patch: height and width P of a patch; divides `image_size`.
        width: features D of a patch.

    The N = (H / P)^2 patches follow each other row by row. Parameters: D (C P^2 + 1).

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

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens features"]:
        check_images(x, self.channels, self.image_size)
        # what follows would keep the strides of the transpose, and be slower for it
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()
