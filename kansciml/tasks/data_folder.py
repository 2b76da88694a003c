"""Folders of data sets on this machine, and the progress bars of downloads and generations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

VARIABLE = "KANSCIML_DATA"
"""Environment variable that names the user's own folder of data sets."""


class Bar(Protocol):
    """One bar."""

    def update(self, advance: float | None = None, completed: float | None = None) -> object: ...

    def close(self) -> object: ...


class Progress(Protocol):
    """Draws bars, as `kansciml.runs.progress.Progress` does."""

    def task(self, description: str, total: float) -> Bar: ...


def named_folder() -> Path | None:
    """The folder that the environment variable KANSCIML_DATA names."""
    name = os.environ.get(VARIABLE)
    return Path(name).expanduser() if name else None


def cache_folder() -> Path:
    """The user's cache folder of kansciml's data sets."""
    import pooch  # slow to import

    return Path(pooch.os_cache("kansciml"))
