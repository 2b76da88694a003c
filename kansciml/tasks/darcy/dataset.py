"""Darcy flow data sets: generates them into a folder once, and loads them.

config = DarcyConfig(n_train=64, n_test=32)
generate(config, dataset_folder(config))
train, test = load(config), load(config, split="test")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kansciml._errors import KansciError, UsageError
from kansciml.tasks.darcy._generate import generate
from kansciml.tasks.darcy._shards import MANIFEST, Manifest, parts, read_shard
from kansciml.tasks.darcy.config import DarcyConfig
from kansciml.tasks.data_folder import cache_folder, named_folder

__all__ = ["DarcyConfig", "DarcyData", "dataset_folder", "generate", "load"]


@dataclass(frozen=True, eq=False)
class DarcyData:
    """Samples of Darcy flow, in memory.

    Args:
        a: coefficients at the nodes of the unit square, boundary included; [n, i, j] at x = i / (s - 1),
            y = j / (s - 1).
        u: solutions, of the same floating type.
        source: where they come from.

    Raises:
        UsageError: other shapes or types.
    """

    a: Float[np.ndarray, "n s s"]
    u: Float[np.ndarray, "n s s"]
    source: str = ""

    def __post_init__(self) -> None:
        if self.a.ndim != 3 or self.a.shape[1] != self.a.shape[2] or self.a.shape != self.u.shape:
            raise UsageError(
                f"got coefficients of shape {self.a.shape}, solutions of shape {self.u.shape}: expected both (N, s, s)"
            )
        if self.a.dtype != self.u.dtype or self.a.dtype not in (np.float32, np.float64):
            raise UsageError(
                f"got {self.a.dtype} coefficients and {self.u.dtype} solutions: expected float32 or float64 for both"
            )

    def __len__(self) -> int:
        return len(self.a)

    @property
    def size(self) -> int:
        """Nodes along a side, s."""
        return self.a.shape[1]

    @property
    def x(self) -> Float[np.ndarray, " s"]:
        """Coordinates of the nodes along a side, of the type of a and u."""
        return np.linspace(0, 1, self.size, dtype=self.a.dtype)


def dataset_folder(config: DarcyConfig, cache_dir: Path | str | None = None) -> Path:
    """Folder of a data set: `config.id` below `cache_dir`; without it below ``darcy`` in the folder named by the
    environment variable KANSCIML_DATA, if it is there, else in the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser() / config.id
    named = named_folder()
    if named is not None and (named / "darcy" / config.id / MANIFEST).is_file():
        return named / "darcy" / config.id
    return cache_folder() / "darcy" / config.id


def load(config: DarcyConfig, cache_dir: Path | str | None = None, split: str = "train") -> DarcyData:
    """The samples of a split from the folder `dataset_folder(config, cache_dir)`, float32, each file checked.

    Raises:
        UsageError: unknown split.
        KansciError: samples not generated yet, or a missing or corrupt file; the message says what to do.
    """
    n, folder = config.count(split), dataset_folder(config, cache_dir)
    manifest = Manifest.read(folder, config)
    a, u = np.empty((2, n, config.size, config.size), np.float32)
    for start, stop in parts(config, split):
        shard = manifest.find(split, start, stop)
        if shard is None:
            raise KansciError(
                f"{folder} holds {manifest.available(split)} of {n} {split} samples: generate them with kansciml darcy"
                " and the same settings"
            )
        arrays = read_shard(folder, shard)
        a[start:stop], u[start:stop] = (arrays[name][: stop - start] for name in ("a", "u"))
    return DarcyData(a, u, str(folder))
