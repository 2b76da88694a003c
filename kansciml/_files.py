"""Files that are whole or absent, and JSON that every parser reads.

Every file of a results folder is written to a temporary name beside its place and then renamed over it, so that a
reader, or a run killed half-way, never meets half a file.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from kansciml._errors import KansciError


def write_failure(path: Path, error: OSError) -> KansciError:
    """The one-line error for a file or folder that cannot be written, with its remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space there, or choose another results folder"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "a file and a folder want the same name: move the existing one, or choose another results folder"
    else:
        remedy = "choose a results folder that you may write to"
    return KansciError(f"cannot write {path}: {error.strerror or error}: {remedy}")


def make_folder(folder: Path) -> Path:
    """Create `folder` with its parents where missing, and return it.

    Raises:
        KansciError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` to `path` in one step: temporary name in the same folder, flushed to disk, then `os.replace`.

    Raises:
        KansciError: unwritable folder or full disk; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    make_folder(path.parent)
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    return path


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` of UTF-8 text."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as strict, indented JSON (see `to_jsonable`)."""
    return write_text(path, json.dumps(to_jsonable(value), indent=1, allow_nan=False) + "\n")


def append_json_line(path: Path, value: Any) -> None:
    """Append `value` as one line of strict JSON, after ending a line that a killed process left half-written.

    Raises:
        KansciError: the file cannot be written.
    """
    line = json.dumps(to_jsonable(value), allow_nan=False) + "\n"
    try:
        with open(path, "ab+") as file:
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = "\n" + line
            file.write(line.encode())
    except OSError as error:
        raise write_failure(path, error) from error


def to_jsonable(value: Any) -> Any:
    """`value` in the types of strict JSON: dataclasses and mappings become objects, sequences and arrays lists.

    Floats that are not finite become null: JSON has no NaN, and many parsers reject the token.

    Raises:
        TypeError: a type with no JSON counterpart.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, enum.Enum):
        return to_jsonable(value.value)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(f"got a {type(value).__name__}: expected something JSON can hold (numbers, text, lists, mappings)")
