"""Reads CIFAR's binary files: fixed records of label bytes and a 32 x 32 image, red, then green, then blue plane.

CIFAR-10: <label><3072 bytes>; CIFAR-100: <coarse label><fine label><3072 bytes>.
Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kansciml._errors import UsageError
from kansciml.tasks.data_folder import Progress
from kansciml.tasks.vision._download import download, unpack
from kansciml.tasks.vision._folders import Source
from kansciml.tasks.vision.dataset import Images

PIXELS = 3 * 32 * 32
CHUNK = 10_000
"""Records read at once, so that reading never holds the images twice."""
REMEDY = "delete it and unpack the official archive again"


@dataclass(frozen=True)
class CifarBinary:
    """A data set in the official binary archive: `read` is what `Dataset` asks for.

    Args:
        title: for messages.
        folder: folder of the files in the archive.
        archive, urls, md5: name, addresses and published checksum of the archive.
        label_bytes: bytes before the image; the last of them is the label.
        files: split -> names of its files.
        records: split -> records in each file.
        fingerprints: split -> `fingerprint` of all its records; None: not checked.
    """

    title: str
    folder: str
    archive: str
    urls: tuple[str, ...]
    md5: str
    label_bytes: int
    files: Mapping[str, tuple[str, ...]]
    records: Mapping[str, int]
    fingerprints: Mapping[str, str] | None

    def read(self, data_dir: Path | None, split: str, progress: Progress | None) -> Images:
        source = Source(self.title, (self.folder,), (self.archive,), self._fetch)
        paths = source.locate([(name,) for name in self.files[split]], data_dir, progress)
        per_file = self.records[split]
        images = np.empty((per_file * len(paths), 3, 32, 32), np.uint8)
        labels = np.empty(len(images), np.int64)
        total = 0
        for i, path in enumerate(paths):
            part = slice(i * per_file, (i + 1) * per_file)
            total += self._read_file(path, images[part], labels[part])
        # The order of the records is free: copies of the data set differ in it
        if self.fingerprints is not None and f"{total % 2**64:016x}" != self.fingerprints[split]:
            raise UsageError(
                f"{paths[0].parent}: the {split} images of {self.title} are not the official ones, a file is corrupt:"
                " delete the folder, to download it again, or unpack the official archive again"
            )
        return Images(images, labels)

    def _read_file(self, path: Path, images: np.ndarray, labels: np.ndarray) -> int:
        """Fill the arrays from a file; returns the sum of its records' hashes."""
        record = self.label_bytes + PIXELS
        expected, total = len(labels) * record, 0
        try:
            if path.stat().st_size != expected:
                raise UsageError(
                    f"{path} has {path.stat().st_size} bytes, expected {expected}: truncated or not of"
                    f" {self.title}: {REMEDY}"
                )
            with open(path, "rb") as file:
                for start in range(0, len(labels), CHUNK):
                    count = min(CHUNK, len(labels) - start)
                    rows = np.frombuffer(file.read(count * record), np.uint8).reshape(count, record)
                    images[start : start + count] = rows[:, self.label_bytes :].reshape(count, 3, 32, 32)
                    labels[start : start + count] = rows[:, self.label_bytes - 1]
                    total += fingerprint(rows[:, self.label_bytes - 1 :])
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}: {REMEDY}") from error
        return total

    def _fetch(self, folder: Path, progress: Progress | None) -> None:
        archive = folder.parent / self.archive
        download(self.urls, self.md5, archive, self.title, progress)
        names = [name for split in self.files.values() for name in split]
        unpack(archive, [f"{self.folder}/{name}" for name in names], folder)
        archive.unlink(missing_ok=True)  # another process of the same run may have been first


def fingerprint(rows: np.ndarray) -> int:
    """Sum of the 64-bit BLAKE2b hashes of the rows (N, bytes) of label and pixels: the same in any order of them."""
    hashes = (hashlib.blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(rows))
    return sum(int.from_bytes(digest, "little") for digest in hashes)
