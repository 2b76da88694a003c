"""Half-finished work in an npz file without pickles, resumed only by the operator and settings it was begun with."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import KansciError, UsageError
from ..._files import write_bytes

Settings = Mapping[str, "int | str"]


def save(path: Path, settings: Settings, name: str, array: np.ndarray) -> None:
    """Write one array and the settings in one step."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: array, **{key: np.array(value) for key, value in settings.items()}}
    np.savez(file, **arrays)
    write_bytes(Path(path), file.getvalue())


def load(path: Path, settings: Settings, name: str) -> np.ndarray | None:
    """The array saved; None if there is no file.

    Raises:
        UsageError: it was saved with other settings. KansciError: the file holds no such array.
    """
    if not Path(path).exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            array = file[name]
            found = {key: type(value)(file[key][()]) for key, value in settings.items()}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise KansciError(f"{path} is not a saved spectrum or matrix: remove it, or name another checkpoint") from error
    for key, value in settings.items():
        if found[key] != value:
            raise UsageError(
                f"{path} was saved with {key} = {found[key]!r}, got {value!r}: name another checkpoint, or remove it"
            )
    if array.ndim != 2:
        raise KansciError(f"{path} is not a saved spectrum or matrix: remove it, or name another checkpoint")
    return array
