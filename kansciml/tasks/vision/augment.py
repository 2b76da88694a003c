"""Settings of data augmentation, and presets that suit a data set."""

from __future__ import annotations

from dataclasses import dataclass

from kansciml._errors import UsageError, unknown_name
from kansciml.tasks.vision.dataset import Dataset

PRESETS = ("none", "light", "mixer", "paper")


@dataclass(frozen=True)
class Augmentation:
    """What happens to a batch of training images, in this order. The default is nothing.

    Args:
        crop_padding: pixels of black border from which a window of the image's size is cut at random, per image.
        flip: mirror left to right with probability 1/2, per image.
        resized_crop: range of the share of the area that is cut out, with an aspect ratio of 3/4 to 4/3, and scaled up
            to the network's size, per image; None: no such crop. Source: Szegedy et al., Going Deeper with
            Convolutions (2014).
        three_augment: 3-Augment: each image turned grey, or solarised (v -> 1 - v where v >= 1/2), or blurred, with
            probability 1/3 each. Colour images only. Source: Touvron, Cord & Jegou, DeiT III (2022).
        blur_sigma: range of the blur's standard deviation in pixels at the network's size.
        colour_jitter: brightness, contrast and saturation each scaled by a factor in 1 -+ this. Colour images only.
        erasing: probability that a rectangle of 2 to 33 % of the image becomes the mean colour. Source: Zhong et al.,
            Random Erasing Data Augmentation (2017).
        mixup: alpha of the share lambda ~ Beta(alpha, alpha) in x = lambda x + (1 - lambda) x', targets alike; one
            lambda per batch, x' the batch in reverse order; 0: off. Source: Zhang et al., mixup (2018).
        cutmix: alpha of the share of the image that stays, the rest a rectangle of x'; the targets are mixed by the
            true area; 0: off. Source: Yun et al., CutMix (2019).
        mix_probability: probability that a batch is mixed at all.
        switch_probability: probability of CutMix in a mixed batch where both are on.

    Raises:
        UsageError: a value out of range.
    """

    crop_padding: int = 0
    flip: bool = False
    resized_crop: tuple[float, float] | None = None
    three_augment: bool = False
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    colour_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self) -> None:
        for key in ("erasing", "mix_probability", "switch_probability", "colour_jitter"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"got {key} {getattr(self, key)}: expected a number from 0 to 1")
        for key in ("mixup", "cutmix"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise UsageError(f"got {key} {getattr(self, key)}: expected a positive alpha, or 0 for none")
        if self.crop_padding < 0:
            raise UsageError(f"got crop_padding {self.crop_padding}: expected 0 or more pixels")
        if self.resized_crop is not None and not 0 < self.resized_crop[0] <= self.resized_crop[1] <= 1:
            raise UsageError(f"got resized_crop {self.resized_crop}: expected two shares in (0, 1], the smaller first")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1] < float("inf"):
            raise UsageError(f"got blur_sigma {self.blur_sigma}: expected two positive numbers, the smaller first")

    @property
    def mixes(self) -> bool:
        """Whether targets are distributions over the classes instead of labels."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)


def preset(name: str, dataset: Dataset) -> Augmentation:
    """A preset for a data set.

    - ``none``: nothing.
    - ``light``: crop after padding by an eighth of the size, mirrored or not.
    - ``mixer``: light, colour jitter 0.1, erasing 0.25, and CutMix 1.0 on every other batch.
    - ``paper``: the paper's Table 1: 3-Augment with the resized crop (8 to 100 % of the area), flip and colour jitter
      0.3 of its source, mixup 0.8 and CutMix 1.0.

    What a data set cannot bear is left out: digits are not mirrored, and grey images have no colours to change; they
    are shifted instead of cropped and scaled.

    Raises:
        UsageError: unknown name.
    """
    if name not in PRESETS:
        raise unknown_name("augmentation", name, PRESETS)
    if name == "none":
        return Augmentation()
    colour, flip, padding = dataset.channels == 3, dataset.mirrors, dataset.size // 8
    if name == "light":
        return Augmentation(crop_padding=padding, flip=flip)
    if name == "mixer":
        return Augmentation(
            crop_padding=padding,
            flip=flip,
            colour_jitter=0.1 if colour else 0.0,
            erasing=0.25,
            cutmix=1.0,
            mix_probability=0.5,
        )
    return Augmentation(
        crop_padding=0 if colour else padding,
        flip=flip,
        resized_crop=(0.08, 1.0) if colour else None,
        three_augment=colour,
        colour_jitter=0.3 if colour else 0.0,
        mixup=0.8,
        cutmix=1.0,
    )
