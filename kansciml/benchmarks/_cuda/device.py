"""Where layers and networks are measured: a CUDA device by its clock and allocator, or a CPU, to rehearse that."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from kansciml._errors import KansciError
from kansciml.analysis.memory import measure


def chosen_device(rehearse: bool) -> torch.device:
    """The CUDA device, or the CPU to rehearse.

    Raises:
        KansciError: there is no CUDA device.
    """
    if rehearse:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise KansciError(
            "got no CUDA device: run this where there is one, or add --rehearse to try it on the CPU"
            " (bench layers has --model-only for expected times)"
        )
    return torch.device("cuda")


def facts(device: torch.device) -> dict[str, Any]:
    """Name, compute capability and bytes of memory of a device."""
    if device.type == "cpu":
        return {"name": "CPU, a rehearsal", "capability": None, "memory": None}
    found = torch.cuda.get_device_properties(device)
    return {"name": found.name, "capability": [found.major, found.minor], "memory": found.total_memory}


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, repeats: int
) -> dict[str, np.ndarray]:
    """Milliseconds per call, (rounds,) per name, over `repeats` calls each, after two that do not count."""
    for call in calls.values():
        call()
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_timed(call, repeats, device) / repeats)
    return {name: np.array(times) for name, times in found.items()}


def _timed(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    if device.type == "cpu":
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        return 1e3 * (time.perf_counter() - began)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes that a call takes at once, above what is there before it."""
    return measure(call, device=device, saved=False).peak_bytes


def first_line(error: Exception) -> str:
    """What a table says of a candidate that failed."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
