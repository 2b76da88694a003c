"""Reads and writes the files of a Darcy data set: shards of samples, and a manifest with checksums and settings.

A shard ``train-00032-00064.npz`` holds a and u of samples 32 to 63, whole or absent, and is never changed under its
name. It counts only when the manifest, written after it, has its checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy

from kansciml._errors import KansciError, UsageError
from kansciml._files import write_bytes, write_json
from kansciml.tasks.darcy.config import FORMAT, DarcyConfig

SHARD = 32
"""Samples in a full shard: what a killed generation loses at most."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """Samples start to stop - 1 of a split, with the checksum of their file."""

    split: str
    start: int
    stop: int
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.split}-{self.start:05d}-{self.stop:05d}.npz"


@dataclass
class Manifest:
    """What a folder holds. `shards` maps (split, start) to the one shard that begins there."""

    folder: Path
    config: DarcyConfig
    shards: dict[tuple[str, int], Shard] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, config: DarcyConfig) -> Manifest:
        """The manifest of a folder, empty where there is none yet.

        Raises:
            UsageError: it cannot be read, or is of a data set of other settings.
        """
        path = folder / MANIFEST
        manifest = cls(folder, config)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            settings, version = document["settings"], document["format"]
            entries = [Shard(*(entry[key] for key in Shard.__annotations__)) for entry in document["shards"]]
        except FileNotFoundError:
            return manifest
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} cannot be read as the manifest of a Darcy data set: delete the folder and generate it again"
            ) from error
        expected = config.settings()
        if version != FORMAT or settings != expected:
            other = [f"{key} {settings.get(key)}" for key in expected if settings.get(key) != expected[key]]
            raise UsageError(
                f"{folder} holds a Darcy data set with {', '.join(other) or f'format {version}'}, not the one asked"
                " for: choose another folder"
            )
        manifest.shards = {(shard.split, shard.start): shard for shard in entries}
        return manifest

    def find(self, split: str, start: int, stop: int) -> Shard | None:
        """The shard that holds samples start to stop - 1, and maybe more."""
        shard = self.shards.get((split, start))
        return shard if shard is not None and shard.stop >= stop else None

    def add(self, shard: Shard) -> None:
        """Enter a written shard and what another process entered meanwhile; remove the shorter one it replaces."""
        old = self.shards.get((shard.split, shard.start))
        self.shards = {**Manifest.read(self.folder, self.config).shards, **self.shards}
        self.shards[shard.split, shard.start] = shard
        self._write()
        if old is not None and old.name != shard.name:
            (self.folder / old.name).unlink(missing_ok=True)

    def _write(self) -> None:
        document = {
            "format": FORMAT,
            "settings": self.config.settings(),
            "size": self.config.size,
            "samples": {split: self.available(split) for split in ("train", "test")},
            "made_with": {"numpy": np.__version__, "scipy": scipy.__version__},
            "shards": [
                {**vars(shard), "file": shard.name}
                for _, shard in sorted(self.shards.items(), key=lambda item: (item[0][0] != "train", item[0][1]))
            ],
        }
        write_json(self.folder / MANIFEST, document)

    def available(self, split: str) -> int:
        """Number of samples 0, 1, ... without a gap."""
        stop = 0
        while (split, stop) in self.shards:
            stop = self.shards[split, stop].stop
        return stop


def parts(config: DarcyConfig, split: str) -> list[tuple[int, int]]:
    """(start, stop) of the shards that a split needs; the last may be short."""
    n = config.count(split)
    return [(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]


def write_shard(folder: Path, split: str, start: int, a: np.ndarray, u: np.ndarray) -> Shard:
    """Write a (N, s, s) and u (N, s, s) of samples start, start + 1, ..."""
    buffer = io.BytesIO()
    np.savez(buffer, a=a, u=u)
    data = buffer.getvalue()
    shard = Shard(split, start, start + len(a), hashlib.sha256(data).hexdigest())
    write_bytes(folder / shard.name, data)
    return shard


def fault(folder: Path, shard: Shard) -> str | None:
    """What is wrong with the file of a shard, e.g. ``"is missing"``; None if nothing is."""
    try:
        digest = hashlib.sha256((folder / shard.name).read_bytes()).hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if digest == shard.sha256 else "is corrupt: its SHA-256 is not that of the manifest"


def read_shard(folder: Path, shard: Shard) -> dict[str, np.ndarray]:
    """a and u (N, size, size) float32 of a shard.

    Raises:
        KansciError: a missing or corrupt file.
    """
    path, problem = folder / shard.name, fault(folder, shard)
    if problem is not None:
        raise KansciError(
            f"{path} {problem}: generate the data set again, which makes this file anew and keeps the others"
        )
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ("a", "u")}
