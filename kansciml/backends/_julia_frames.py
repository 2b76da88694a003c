"""Messages between a process and its Julia worker: a JSON header and raw, named float64 arrays, over a pipe.

A frame is a magic word, the length of the header (4 bytes, little-endian), the header in UTF-8, then the arrays one
after the other. The header's ``arrays`` gives their names and shapes. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

MAGIC = b"KSC1"
MAX_HEADER = 1 << 24
MAX_NUMBERS = 1 << 30
NONE: Mapping[str, np.ndarray] = MappingProxyType({})


class FrameError(Exception):
    """The stream ended inside a frame, or what came is not a frame."""


def write_frame(stream: BinaryIO, header: dict[str, Any], arrays: Mapping[str, np.ndarray] = NONE) -> None:
    """Write one frame and flush."""
    arrays = {name: np.asarray(array, dtype="<f8", order="C") for name, array in arrays.items()}
    text = json.dumps(header | {"arrays": {name: array.shape for name, array in arrays.items()}}).encode()
    stream.write(MAGIC + struct.pack("<I", len(text)) + text)
    for array in arrays.values():
        stream.write(array.reshape(-1).data)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one frame: header and arrays by name, the latter writable.

    Raises:
        EOFError: the stream ended before a frame began.
        FrameError: it ended inside a frame, or holds something else.
    """
    header, arrays = unfolded(read_header(stream))
    read_into(arrays, stream)
    return header, arrays


def read_header(stream: BinaryIO) -> bytes:
    """The text of the header with which a frame begins; raises as `read_frame`."""
    start = stream.read(8)
    if not start:
        raise EOFError("the stream ended")
    if start[:4] != MAGIC[: len(start)]:
        raise FrameError(f"got {start!r} where a frame should begin")
    (length,) = struct.unpack("<I", _exactly(start[4:] + stream.read(8 - len(start)), 4))
    if length > MAX_HEADER:
        raise FrameError(f"got a header of {length} bytes")
    return _exactly(stream.read(length), length)


def unfolded(text: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A header, and memory for the arrays that it tells of. Raises FrameError: malformed."""
    try:
        header = json.loads(text)
        shapes = {name: tuple(int(size) for size in shape) for name, shape in header.pop("arrays").items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"got a malformed header: {error}") from error
    for shape in shapes.values():
        if min(shape, default=0) < 0 or math.prod(shape) > MAX_NUMBERS:
            raise FrameError(f"got an array of shape {shape}")
    return header, {name: np.empty(shape, dtype="<f8") for name, shape in shapes.items()}


def read_into(arrays: Mapping[str, np.ndarray], stream: BinaryIO) -> None:
    """Read the arrays behind a header; raises FrameError."""
    for array in arrays.values():
        view = array.reshape(-1).data.cast("B") if array.size else b""
        done = 0
        while done < len(view):
            count = stream.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise FrameError("the stream ended inside an array")
            done += count


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise FrameError("the stream ended inside a header")
    return data
