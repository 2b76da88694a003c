"""Trains jobs one after the other, each on all processes of a torchrun, under one bar; finished ones are not repeated.

Every job has its own folder ``checkpoints/<id>`` with the log and the checkpoints of the training loop. A finished one
leaves ``weights.safetensors``, ``arrays.safetensors`` and ``done.json`` there and is not trained again; an interrupted
one goes on at the step it was in. Under torchrun all processes train together, and the first one writes.
"""

from __future__ import annotations

import json
import shutil
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from kansciml._errors import KansciError, UsageError
from kansciml._files import write_json
from kansciml.experiments.minibatch.jobs import TrainingJob
from kansciml.experiments.minibatch.record import DataRow, TrainedRow
from kansciml.runs import ranks, typed
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.progress import Task
from kansciml.training._checkpoint import load_tensors, save_tensors
from kansciml.training.ema import entries
from kansciml.training.loop import LoopConfig, TrainResult, train

DONE = "done.json"
"""File of a training that is finished, written last."""
WEIGHTS = "weights.safetensors"
ARRAYS = "arrays.safetensors"
LOOP_CURVES = {"epoch": "epoch", "step": "step", "loss": "loss", "learning_rate": "learning_rate"}
"""Name of a curve in the record, and of its column in the loop's history."""


class Data(Protocol):
    """The data of a training, as the record holds them."""

    @property
    def described(self) -> DataRow: ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...


J = TypeVar("J", bound=TrainingJob[Any, Any])
D = TypeVar("D", bound=Data)
R = TypeVar("R", bound=TrainedRow)
T = TypeVar("T")


class Epoch:
    """The batches of one epoch as the training loop wants them; `draw(first)` gives those from the `first` on."""

    def __init__(self, length: int, draw: Callable[[int], Iterator[Any]], first: int = 0) -> None:
        self.length, self.draw, self.first = length, draw, first

    def __len__(self) -> int:
        return self.length

    def seek(self, first: int) -> Epoch:
        return Epoch(self.length, self.draw, first)

    def __iter__(self) -> Iterator[Any]:
        return self.draw(self.first)


class Steps(NamedTuple):
    """What the training loop is given: see `kansciml.training.loop.train`."""

    batches: Callable[[int], Epoch]
    loss: Callable[[nn.Module, Any], tuple[Tensor, Mapping[str, Any]]]
    evaluate: Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Trained(Generic[R]):
    """Rows of all trainings in the order of the jobs, descriptions of their data by name, and arrays."""

    rows: list[R]
    data: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def result(self) -> Result:
        """For the record."""
        return Result({"data": self.data, "runs": [typed.write(row) for row in self.rows]}, self.arrays)


class Trainer(ABC, Generic[J, D, R]):
    """Trains jobs of one kind; what is particular to the kind is abstract.

    Attributes:
        row: type of the rows. unit: what is counted per second, in the rows as ``<unit>_per_s``.
        monitor, monitor_mode: which number of `Steps.evaluate` is best, in the rows as ``best_<monitor>``, and whether
            its least (``min``) or largest (``max``) is. shown: its name at the bar.
        curves: of the record, besides `LOOP_CURVES`.
    """

    row: ClassVar[type[Any]]
    unit: ClassVar[str]
    monitor: ClassVar[str]
    monitor_mode: ClassVar[str]
    shown: ClassVar[str]
    curves: ClassVar[Mapping[str, str]]

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self._found: dict[Hashable, Any] = {}

    @abstractmethod
    def data(self, job: J) -> D:
        """The data of a job, through `once`."""

    @abstractmethod
    def steps(self, job: J, data: D, device: torch.device) -> Steps:
        """Batches, loss and evaluation of a training."""

    @abstractmethod
    def outcome(
        self, job: J, data: D, network: nn.Module, result: TrainResult
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What is found of a network after its training: further columns of its row, and arrays of the record.

        The first process alone asks; the network is on the device that it was trained on.
        """

    def once(self, key: Hashable, load: Callable[[], T]) -> T:
        """The result of `load`, kept for further jobs; the first process loads, or downloads, before the others do."""
        if key not in self._found:
            if ranks.rank() == 0:
                self._found[key] = load()
            ranks.agree(None)
            if ranks.rank() > 0:
                self._found[key] = load()
        return self._found[key]

    def run(self, jobs: Sequence[J]) -> Trained[R]:
        """Train what is not trained yet, and collect the rows; none on all processes but the first.

        Raises:
            UsageError: two jobs of one name, or no job; settings or data that do not fit.
            KansciError: data that cannot be had, memory that ran out.
            KeyboardInterrupt: after the training was saved.
        """
        names = {job.id for job in jobs}
        if not jobs or len(names) != len(jobs):
            raise UsageError(f"got {len(jobs)} runs with {len(names)} different names: expected as many")
        ranks.call()
        with self.context.progress.task("training", sum(job.steps for job in jobs)) as bar:
            board = TrainingBoard(bar, len(jobs), self.unit, (f"eval_{self.monitor}", self.shown))
            for job in jobs:
                board.begin(job)
                if not ranks.agree((self._folder(job) / DONE).exists()):
                    self.train(job, board)
                board.finish(job)
        return self._collect(jobs) if ranks.rank() == 0 else Trained([], {}, {})

    def _folder(self, job: J) -> Path:
        return self.context.checkpoints / job.id

    def train(self, job: J, board: TrainingBoard) -> None:
        """One training from its beginning or its last checkpoint, what is found of it, and its final weights."""
        data, folder, device = self.data(job), self._folder(job), ranks.device_of(job.training.accelerator)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        def log(line: str) -> None:
            self.context.log(f"{job.id}: {line}")

        network, described = job.build(log), data.described
        config = LoopConfig(
            **vars(job.training),
            seed=job.seed,
            monitor=self.monitor,
            monitor_mode=self.monitor_mode,
            checkpoint_epochs=max(1, job.training.epochs // 10),  # and every ten minutes, and when interrupted
        )
        result = train(
            network,
            config,
            **self.steps(job, data, device)._asdict(),
            folder=folder,
            identity=job.identity(described.train_hash),
            progress=board,
            log=log,
        )
        if ranks.rank() > 0:
            return
        if result.average is not None:
            network.load_state_dict(result.average, strict=False)  # of tied tensors one name is enough
        columns, arrays = self.outcome(job, data, network, result)
        row = typed.write(self.row(**self._columns(job, result), **columns))
        names = LOOP_CURVES | {f"{self.unit}_per_s": "samples_per_s", **self.curves}
        curves = {
            name: np.array([line.get(column) for line in result.history], float) for name, column in names.items()
        }
        save_tensors(folder / WEIGHTS, entries(network), {"id": job.id, "epoch": row["epochs"]})
        arrays |= {"train_s": _training_seconds(job, result)}
        if device.type == "cpu" and ranks.size() == 1 and all("cpu_s" in line for line in result.history):
            arrays |= {"cpu_s": _running([line["cpu_s"] for line in result.history])}
        _save_arrays(folder / ARRAYS, curves | arrays)
        _save_arrays(folder.parent / f"{job.task}.safetensors", data.arrays)
        write_json(folder / DONE, {"row": row, "data": typed.write(described)})
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # optimiser states of a training that has ended
        self.context.metrics(row)

    def _columns(self, job: J, result: TrainResult) -> dict[str, Any]:
        """The columns of a row that all kinds have."""
        history, monitored = result.history, f"eval_{self.monitor}"
        warm = history[1:] or history  # the first epoch may compile, and fills caches
        per_s = statistics.median(line["samples_per_s"] for line in warm) if warm else None
        choose = min if self.monitor_mode == "min" else max
        best = choose(history, key=lambda line: line[monitored], default={})
        return {
            **typed.attributes(job, "id task model resized group label seed"),
            **typed.attributes(result, "status message steps wall_s"),
            **typed.attributes(job.training, "batch_size precision"),
            **job.sizes(),
            "variant": job.network.variant,
            "network": vars(job.network),
            "weights": f"checkpoints/{job.id}/{WEIGHTS}",
            "processes": ranks.size(),
            "train_loss": result.final.get("loss"),
            f"best_{self.monitor}": best.get(monitored),
            "best_epoch": best.get("epoch"),
            "epochs": len(history),
            f"{self.unit}_per_s": per_s,
            "seconds_per_step": job.training.batch_size / per_s if per_s else None,
            "peak_memory_mb": result.peak_memory / 1e6,
        }

    def _collect(self, jobs: Sequence[J]) -> Trained[R]:
        found: Trained[R] = Trained([], {}, {})
        for job in jobs:
            folder = self._folder(job)
            try:
                content = json.loads((folder / DONE).read_text())
                row, data = typed.read(self.row, content["row"]), content["data"]
                own, shared = load_tensors(folder / ARRAYS), load_tensors(folder.parent / f"{row.task}.safetensors")
            except (OSError, ValueError, KeyError, TypeError, KansciError) as error:
                raise KansciError(f"{folder} cannot be read ({error}): delete it to train that model again") from error
            found.rows.append(row)
            found.data[data["name"]] = data
            for prefix, arrays in ((row.id, own.tensors), (data["name"], shared.tensors)):
                found.arrays.update({f"{prefix}.{name}": values.numpy() for name, values in arrays.items()})
        return found


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    save_tensors(path, {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}, {})


def _training_seconds(job: TrainingJob[Any, Any], result: TrainResult) -> np.ndarray:
    """Seconds of training until the end of each epoch, without evaluations and checkpoints."""
    samples = np.diff([0, *(line["step"] for line in result.history)]) * job.training.batch_size
    rates = [line["samples_per_s"] for line in result.history]
    return _running([n / rate if rate else 0.0 for n, rate in zip(samples, rates)])


def _running(seconds: Sequence[float]) -> np.ndarray:
    """Running sum, with the median for epochs of which an interruption within their evaluation left nothing."""
    spent = np.array(seconds, float)
    return np.cumsum(np.where(spent > 0, spent, np.median(spent[spent > 0]) if spent.any() else 0.0))


class TrainingBoard:
    """Adds up the steps of all jobs into one bar; the training loop takes it for its own progress and bar."""

    def __init__(self, bar: Task, n_jobs: int, unit: str, score: tuple[str, str]) -> None:
        self.bar, self.n_jobs, self.n_done, self.before = bar, n_jobs, 0, 0
        self.unit, self.score, self.name = unit, score, ""

    def begin(self, job: TrainingJob[Any, Any]) -> None:
        self.name = f"{self.n_done + 1}/{self.n_jobs} {job.group} seed {job.seed}"

    def finish(self, job: TrainingJob[Any, Any]) -> None:
        self.n_done += 1
        self.before += job.steps
        self.bar.update(completed=self.before)

    def task(self, description: str, total: float) -> TrainingBoard:
        return self

    def update(self, completed: float, epoch: int = 0, loss: float | None = None, **shown: Any) -> None:
        values: dict[str, Any] = {"run": self.name, "epoch": epoch}
        if loss is not None:
            values |= {"loss": loss, f"{self.unit}/s": shown.get("samples_per_s", 0.0)}
        for name, label in (("peak_memory_mb", "peak MB"), self.score):
            if name in shown:
                values[label] = shown[name]
        self.bar.update(completed=self.before + completed, **values)

    def close(self) -> None:
        """The bar belongs to all jobs."""
