"""A classification data set: its images, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from kansciml._errors import UsageError, unknown_name
from kansciml.tasks.data_folder import Progress

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their classes, in memory.

    Args:
        labels: classes counted from 0.

    Raises:
        UsageError: another type or shape.
    """

    images: UInt8[np.ndarray, "n channels height width"]
    labels: Int64[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise UsageError(
                f"got images {self.images.dtype} of shape {self.images.shape}: expected uint8 (N, C, H, W)"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise UsageError(
                f"got labels {self.labels.dtype} of shape {self.labels.shape}: expected int64 ({len(self.images)},)"
            )

    def __len__(self) -> int:
        return len(self.labels)


Read = Callable[["Path | None", str, "Progress | None"], Images]
"""(data_dir, split, progress) -> the images of a split, or one clear error."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Square images in classes, split into training and test images.

    Args:
        name: short name for commands and folders, e.g. ``"cifar10"``.
        title: name for figures.
        citation: where the data come from.
        class_names: one name per class, in the order of the labels.
        channels: 1 or 3 (red, green, blue).
        size: height and width in pixels.
        mean, std: of each channel over all pixels of the training images, values scaled to [0, 1].
        n_train, n_test: number of images.
        read: finds, checks and reads the images.
        mirrors: whether a mirrored image is still one of its class: true of photographs, not of digits.
        download_mb: what a first use downloads; 0: nothing, the images are on the machine already.

    Raises:
        UsageError: an inconsistent value.
    """

    name: str
    title: str
    citation: str
    class_names: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_train: int
    n_test: int
    read: Read
    mirrors: bool = True
    download_mb: float = 0.0

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(f"got data set name {self.name!r}: expected letters and digits, such as cifar10")
        if not (len(self.mean) == len(self.std) == self.channels) or min(self.std) <= 0:
            raise UsageError(
                f"data set {self.name}: got mean {self.mean}, std {self.std}: expected {self.channels} numbers each,"
                " one per channel, std positive"
            )
        if len(set(self.class_names)) != len(self.class_names) or self.classes < 2:
            raise UsageError(f"data set {self.name}: expected at least 2 different class names")

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def count(self, split: str) -> int:
        """Number of images of a split, ``"train"`` or ``"test"``."""
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        return self.n_train if split == "train" else self.n_test

    def load(
        self, data_dir: Path | str | None = None, split: str = "train", progress: Progress | None = None
    ) -> Images:
        """The images of a split: from `data_dir`; without it from the folder named by the environment variable
        KANSCIML_DATA, from the cache, or downloaded into the cache.

        Args:
            data_dir: folder with the unpacked official files, or one above it. When given, nothing else is looked at.
            split: ``"train"`` or ``"test"``.
            progress: shows the download, e.g. a `kansciml.runs.progress.Progress`; default: silent.

        Raises:
            UsageError: unknown split; files missing from `data_dir`; a truncated or corrupt file.
            KansciError: the download failed, or the cache cannot be written.
        """
        count = self.count(split)
        data = self.read(None if data_dir is None else Path(data_dir).expanduser(), split, progress)
        expected = (count, self.channels, self.size, self.size)
        if data.images.shape != expected:
            raise UsageError(
                f"data set {self.name}: got {split} images of shape {data.images.shape}, expected {expected}"
            )
        if data.labels.min() < 0 or data.labels.max() >= self.classes:
            raise UsageError(
                f"data set {self.name}: got labels from {data.labels.min()} to {data.labels.max()},"
                f" expected 0 to {self.classes - 1}"
            )
        return data
