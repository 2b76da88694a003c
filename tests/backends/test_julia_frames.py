"""Frames between a process and its Julia worker, and requests that come again; without Julia."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from kansciml.backends._julia_frames import (
    MAGIC,
    FrameError,
    read_frame,
    read_header,
    read_into,
    unfolded,
    write_frame,
)
from kansciml.backends._julia_worker import Request


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (0, 4), (2, 1, 2)])
def test_frame_comes_back_as_it_was_sent(shape):
    array = np.random.default_rng(0).normal(size=shape)
    stream = io.BytesIO()
    write_frame(stream, {"do": "it", "text": "größer"}, {"x": array, "y": np.array([np.nan, np.inf, -0.0])})
    stream.seek(0)
    header, arrays = read_frame(stream)
    first, second = arrays["x"], arrays["y"]
    assert header == {"do": "it", "text": "größer"}
    assert first.shape == shape and np.array_equal(first, array)
    assert second.tobytes() == np.array([np.nan, np.inf, -0.0]).tobytes()
    with pytest.raises(EOFError):
        read_frame(stream)


def test_frame_of_a_transposed_array_holds_its_values():
    array = np.arange(6.0).reshape(2, 3).T
    stream = io.BytesIO()
    write_frame(stream, {}, {"x": array})
    stream.seek(0)
    assert np.array_equal(read_frame(stream)[1]["x"], array)


def test_a_request_that_comes_again_is_read_into_the_same_memory():
    stream = io.BytesIO()
    for values in ([1.0, 2.0], [3.0, 4.0]):
        write_frame(stream, {"do": "it", "results": {"y": [3]}}, {"x": np.array(values)})
    stream.seek(0)
    first = read_header(stream)
    request = Request(*unfolded(first))
    read_into(request.arrays, stream)
    message = request.message
    assert read_header(stream) == first
    read_into(request.arrays, stream)
    assert request.arrays["x"].tolist() == [3.0, 4.0] and request.message is message
    assert json.loads(message) == {
        "do": "it",
        "arrays": {"x": [request.arrays["x"].ctypes.data, 2], "y": [request.results["y"].ctypes.data, 3]},
    }


def _frame(header: bytes) -> bytes:
    return MAGIC + len(header).to_bytes(4, "little") + header


@pytest.mark.parametrize(
    "data",
    [
        b"Julia says hello",
        b"KS",
        MAGIC + b"\xff\xff\xff\xff",
        _frame(b"no json"),
        _frame(b"[1]"),
        _frame(b"{}"),
        _frame(b'{"arrays": [[2]]}'),
        _frame(b'{"arrays": {"x": [-1]}}'),
        _frame(b'{"arrays": {"x": [2]}}') + b"12345678",
        _frame(b'{"arrays": {}}')[:-3],
    ],
)
def test_malformed_frame_is_an_error(data):
    with pytest.raises(FrameError):
        read_frame(io.BytesIO(data))
