"""Running sums over samples, kept on the device until they are read, and the numbers that a resumed run needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kansciml._errors import UsageError

MEASURED = ("samples_per_s", "cpu_s", "peak_memory_mb", "wall_s")
"""Keys of a history row that depend on the machine, not on the training."""
COUNT = "count"
OWN = ("loss", "steps", "gradient_norm", "cpu_s")
"""Names of the loop's own sums, which the metrics of a loss may not take."""


class Sums:
    """Running sums as tensors: adding to them does not wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.values: dict[str, Tensor] = {}

    def add(self, loss: Tensor, metrics: Mapping[str, Any], norm: Tensor | None) -> None:
        """Add a step: its mean loss, sums over its samples, the gradient's norm.

        Raises:
            UsageError: no ``count``, or a name of the loop's own.
        """
        if COUNT not in metrics or not set(OWN).isdisjoint(metrics):
            raise UsageError(
                f"got metrics {', '.join(metrics) or '(none)'} from the loss: expected sums over the batch with the"
                f" number of samples as {COUNT!r}, and none called {', '.join(OWN)}"
            )
        sums = {"loss": loss.detach().to(self.dtype) * metrics[COUNT], "steps": 1, **metrics}
        if norm is not None:
            sums["gradient_norm"] = norm
        for name, value in sums.items():
            if name not in self.values:
                self.values[name] = torch.zeros((), dtype=self.dtype, device=self.device)
            self.values[name] += value.detach() if isinstance(value, Tensor) else value

    def read(self, fabric: Any, extra: float) -> tuple[dict[str, float], float]:
        """Sums over all processes, and of `extra` too; they start again at zero. Waits for the device."""
        names = sorted(self.values)
        vector = torch.stack([self.values[name] for name in names] + [self.values[COUNT].new_tensor(extra)])
        if fabric.world_size > 1:
            vector = fabric.all_reduce(vector, reduce_op="sum")
        self.values = {}
        *totals, extra = vector.tolist()
        found = dict(zip(names, totals))
        for name in ("steps", "gradient_norm"):  # each process has counted the same steps
            if name in found:
                found[name] /= fabric.world_size
        return found, extra


class Meter:
    """Samples and seconds of training alone, since the last row of the log and since the start of the epoch."""

    def __init__(self) -> None:
        self.row, self.epoch = [0.0, 0.0], [0.0, 0.0]
        self.restart()

    def restart(self) -> None:
        """Leave out the time since the last reading: it went into an evaluation or a file."""
        self._mark = time.monotonic(), time.process_time()

    def read(self, samples: float) -> float:
        """Count the samples since the last reading or restart; returns the processor seconds that they took."""
        before, self._mark = self._mark, (time.monotonic(), time.process_time())
        for window in (self.row, self.epoch):
            window[0] += samples
            window[1] += self._mark[0] - before[0]
        return self._mark[1] - before[1]


@dataclass
class State:
    """All that a resumed run needs beside its tensors; of numbers and text alone."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    row: dict[str, float] = field(default_factory=dict)
    epoch: dict[str, float] = field(default_factory=dict)
    status: str = "running"
    message: str = ""
    wall_s: float = 0.0
    peak_memory: int = 0

    def take(self, sums: Mapping[str, float]) -> None:
        """Add sums to those of the row of the log and of the epoch."""
        for totals in (self.row, self.epoch):
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + value


def means(totals: Mapping[str, float]) -> dict[str, float]:
    """Means over the samples: the loss first, then the metrics, then the gradient's norm, a mean over the steps."""
    count = totals[COUNT]
    found = {"loss": totals["loss"] / count}
    found |= {name: value / count for name, value in totals.items() if name not in (*OWN, COUNT)}
    if "gradient_norm" in totals:
        found["gradient_norm"] = totals["gradient_norm"] / totals["steps"]
    return found
