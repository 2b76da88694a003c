"""Columns of a matrix that is being formed, kept in a file until it is whole."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from ..._errors import KansciError, UsageError
from ..._files import write_bytes


def save_columns(path: Path, fingerprint: str, columns: np.ndarray) -> None:
    """Write the first columns (n, m) in one step."""
    file = io.BytesIO()
    np.savez(file, fingerprint=np.array(fingerprint), columns=columns)
    write_bytes(path, file.getvalue())


def load_columns(path: Path, fingerprint: str) -> np.ndarray:
    """The columns (n, m) that were saved.

    Raises:
        UsageError: they are of another matrix. KansciError: no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            saved, columns = str(file["fingerprint"][()]), file["columns"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise KansciError(f"{path} holds no saved columns: remove it") from error
    if saved != fingerprint:
        raise UsageError(f"{path} was saved with another operator: name another checkpoint, or remove it")
    return columns
