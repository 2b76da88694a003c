"""Files that are whole or absent, and JSON that every parser reads.

Every file of a results folder is written to a temporary name beside its place and then renamed over it, so that a
reader, or a run killed half-way, never meets half a file.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from kansciml._errors import KansciError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAMES = {
    errno.ENAMETOOLONG: "a name in it is longer than the file system takes: choose a shorter one",
    errno.EEXIST: "a file and a folder want the same name: move the existing one, or choose another results folder",
    errno.ENOTDIR: "a file and a folder want the same name: move the existing one, or choose another results folder",
    errno.EISDIR: "it is a folder: expected a file",
    errno.ELOOP: "its links lead in a circle: choose another",
}
"""What is wrong with the name itself, by error number: a request that no machine can fulfil."""


def file_failure(doing: str, path: object, error: OSError) -> KansciError:
    """The one-line error for a file or folder that cannot be read or written, with its remedy.

    A UsageError where the name is at fault, else the machine is: a full disk, missing permissions, a broken device.
    """
    kind = UsageError if error.errno in _NAMES else KansciError
    if error.errno in _NAMES:
        remedy = _NAMES[error.errno]
    elif error.errno in _FULL:
        remedy = "free some space there, or choose another results folder"
    elif error.errno == errno.ENOENT:
        remedy = "it is not there"
    else:
        remedy = "choose a results folder that you may write to" if doing == "write" else "check its permissions"
    return kind(f"cannot {doing} {path}: {error.strerror or error}: {remedy}")


def write_failure(path: Path, error: OSError) -> KansciError:
    """`file_failure` of a file or folder that was to be written."""
    return file_failure("write", path, error)


def failure_of(error: Exception) -> KansciError:
    """What is told of an error that ended a command, in one line: a `KansciError` is its own."""
    if isinstance(error, KansciError):
        return error
    if isinstance(error, MemoryError):
        return KansciError("memory ran out: choose smaller sizes, or fewer --workers")
    assert isinstance(error, OSError)
    if error.filename is None:
        return KansciError(f"the operating system refuses: {error.strerror or error}")
    return file_failure("use", os.fsdecode(error.filename), error)


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


def list_folder(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted; nothing where it is not there.

    Raises:
        KansciError: it is no folder (a UsageError), or may not be read.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise UsageError(f"{folder} is a file: expected a folder") from None
    except OSError as error:
        raise file_failure("read", folder, error) from error


NAME_BYTES = 100
"""As long as a name of the user's may be within names of files: these say more, and file systems take 255 bytes."""


def short_name(name: str) -> str:
    """`name` for use within names of files.

    One that is longer than `NAME_BYTES`, or holds what is no part of a name (slashes, control characters, bytes that
    are no text), is cut and cleaned, and told from others that look like it by eight digits of its hash.
    """
    clean = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in name)
    clean = f"_{clean[1:]}" if clean.startswith(".") else clean
    if clean == name and len(name.encode()) <= NAME_BYTES:
        return name
    digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{clean.encode()[: NAME_BYTES - 9].decode(errors='ignore')}-{digits}"


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` to `path` in one step: temporary name in the same folder, flushed to disk, then `os.replace`.

    What is there and no file, such as ``/dev/stdout`` or a pipe, is written to as it is.

    Raises:
        KansciError: unwritable folder or full disk; what was at `path` before is untouched.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short: the name itself may be as long as names can be
    try:
        try:
            if path.exists() and not (path.is_file() or path.is_dir()):
                path.write_bytes(data)
                return path
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
    """`write_bytes` of UTF-8 text; what UTF-8 has no bytes for (file names may hold it) becomes escapes."""
    return write_bytes(path, text.encode(errors="backslashreplace"))


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
