"""Reads MNIST's idx files, packed by gzip or not: big-endian header, then unsigned bytes.

Header: two zero bytes, the element type (8: uint8), the number of dimensions, then each dimension as a uint32.
Source: LeCun, Cortes & Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from kansciml._errors import UsageError
from kansciml.tasks.data_folder import Progress
from kansciml.tasks.vision._download import download
from kansciml.tasks.vision._folders import Member, Source
from kansciml.tasks.vision.dataset import Images


@dataclass(frozen=True)
class IdxFile:
    """One file: official name without ``.gz``, shape of its array, checksums of the download and of the content."""

    name: str
    shape: tuple[int, ...]
    md5_gz: str
    sha256: str

    @property
    def names(self) -> Member:
        dotted = self.name.replace("-idx", ".idx")  # as some unpackers write it
        return (f"{self.name}.gz", self.name, f"{dotted}.gz", dotted)


@dataclass(frozen=True)
class IdxImages:
    """A data set of idx files: `read` is what `Dataset` asks for.

    Args:
        title: for messages.
        folders: see `Source`.
        mirrors: addresses that a file's name is appended to.
        files: split -> (images, labels).
    """

    title: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: Mapping[str, tuple[IdxFile, IdxFile]]

    def read(self, data_dir: Path | None, split: str, progress: Progress | None) -> Images:
        pair = self.files[split]
        source = Source(self.title, self.folders, (), lambda folder, bar: self._fetch(folder, split, bar))
        paths = source.locate([file.names for file in pair], data_dir, progress)
        images, labels = (read_idx(path, file) for path, file in zip(paths, pair))
        return Images(images[:, None], labels.astype(np.int64))  # (N, 1, H, W)

    def _fetch(self, folder: Path, split: str, progress: Progress | None) -> None:
        for file in self.files[split]:
            name = file.names[0]
            download([mirror + name for mirror in self.mirrors], file.md5_gz, folder / name, self.title, progress)


def read_idx(path: Path, file: IdxFile) -> UInt8[np.ndarray, "*shape"]:
    """The array of an idx file, which is unpacked in memory if its name ends in ``.gz``.

    Raises:
        UsageError: a file that is unreadable, or whose content is not the known one.
    """
    remedy = "delete it and fetch it again"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}: {remedy}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UsageError(f"{path} is corrupt or of another data set: its SHA-256 is not the known one: {remedy}")
    header = 4 + 4 * len(file.shape)
    return np.frombuffer(content, np.uint8, offset=header).reshape(file.shape).copy()  # writable, as torch asks
