"""Probe vectors, each drawn from its own seed; their Lanczos runs, split over processes, saved and resumed."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..._errors import KansciError, UsageError
from ..._files import write_bytes
from .lanczos import lanczos
from .symmetric import SymmetricOperator

FORMAT = 1
WAITING, FAILED = -1.0, -2.0  # in place of a probe's number of steps


@dataclass(frozen=True)
class Estimate:
    """A number estimated from random probes.

    Args:
        value: mean over the probes.
        standard_error: standard deviation over the probes (ddof = 1) / sqrt(probes); NaN with a single probe.
            value +- standard_error covers the truth in 68 % of cases with many probes, 66 % with 10 and 63 % with 5
            (Student's t). Of counts and masses it includes what the quadrature leaves open (`Spectrum.count_above`).
        probes: how many.
        lower, upper: for counts and masses, the means over the probes of sharp bounds on what the quadrature cannot
            resolve: with enough steps both are `value`. Half their difference bounds the error that more probes do not
            reduce; more steps do. Else both are `value`.
    """

    value: float
    standard_error: float
    probes: int
    lower: float = math.nan
    upper: float = math.nan

    @property
    def sampling_error(self) -> float:
        """The part of the standard error that more probes reduce."""
        return math.sqrt(max(self.standard_error**2 - (self.upper - self.lower) ** 2 / 4, 0.0))

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            if math.isnan(getattr(self, name)):
                object.__setattr__(self, name, self.value)


def over_probes(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis."""
    mean = samples.mean(0)
    if len(samples) == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, samples.std(0, ddof=1) / math.sqrt(len(samples))


def rademacher(seed: int, index: int, operator: SymmetricOperator) -> Tensor:
    """Probe `index`: (n,) independent signs that depend on nothing but seed and index, on the operator's device."""
    signs = np.random.default_rng([seed, index]).integers(0, 2, operator.size, dtype=np.int8)
    signs = torch.from_numpy(signs).to(operator.device)
    return signs.to(operator.dtype).mul_(2).sub_(1)


def check_counts(seed: int, **counts: int) -> None:
    """One line for a seed below 0, or another count below 1."""
    if seed < 0:
        raise UsageError(f"got seed {seed}: expected an integer of at least 0")
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"got {name} = {count}: expected at least 1")


@dataclass(frozen=True)
class Settings:
    """What must agree for saved probes to be used again."""

    fingerprint: str
    size: int
    steps: int
    seed: int
    deflate: int


def run_probes(
    operator: SymmetricOperator,
    settings: Settings,
    probes: int,
    *,
    basis: str,
    folder: Path | None,
    locked: Tensor | None,
    checkpoint: Path | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lanczos from every probe: alpha (probes, steps), beta (probes, steps), numbers of steps made (probes,).

    With torch.distributed initialised, and an operator that is not itself distributed, process r of W takes the probes
    r, r + W, ... of those not yet saved; after each round all have all, and process 0 saves and
    reports. The processes of a distributed operator make every probe together.
    """
    several = dist.is_available() and dist.is_initialized()
    writes = not several or dist.get_rank() == 0
    alone = not several or getattr(operator, "distributed", False)
    rank, world = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
    table = _begin(checkpoint, settings, probes, _exchange_device(operator) if several else None)
    todo = [index for index in range(probes) if table[index, -1] == WAITING]
    done = probes - len(todo)
    if progress is not None and writes:
        progress(done, probes)
    for first in range(0, len(todo), world):
        batch = todo[first : first + world]
        row, failure = np.full(table.shape[1], WAITING), None
        if rank < len(batch):
            try:
                row = _one(operator, settings, batch[rank], basis, folder, locked)
            except KansciError as error:  # the others would wait for this one until their time limit
                row[-1], failure = FAILED, error
        rows = row[None] if alone else _gather(row, _exchange_device(operator), world)
        if failure is not None:
            raise failure
        if np.any(rows[:, -1] == FAILED):
            raise KansciError(f"a probe failed in process {int((rows[:, -1] == FAILED).argmax())}: see its message")
        table[batch] = rows[: len(batch)]
        done += len(batch)
        if checkpoint is not None and writes:
            _save(checkpoint, settings, table)
        if progress is not None and writes:
            progress(done, probes)
    steps = settings.steps
    return table[:probes, :steps], table[:probes, steps:-1], table[:probes, -1].astype(np.int64)


def _one(
    operator: SymmetricOperator, settings: Settings, index: int, basis: str, folder: Path | None, locked: Tensor | None
) -> np.ndarray:
    start = rademacher(settings.seed, index, operator)
    found = lanczos(operator, start, settings.steps, basis=basis, folder=folder, locked=locked)
    length, row = len(found.alpha), np.zeros(2 * settings.steps + 1)
    row[:length], row[settings.steps : settings.steps + length], row[-1] = found.alpha, found.beta, length
    return row


def agreed(operator: SymmetricOperator, values: np.ndarray, vectors: Tensor) -> tuple[np.ndarray, Tensor]:
    """Eigenpairs (r,), (n, r) as process 0 found them: machines of different kinds may differ in the last bits."""
    if not (dist.is_available() and dist.is_initialized()) or getattr(operator, "distributed", False):
        return values, vectors
    device = _exchange_device(operator)
    count = torch.tensor([len(values)], device=device)
    dist.broadcast(count, 0)
    if int(count) == 0:
        return np.empty(0), vectors[:, :0]
    if dist.get_rank() == 0:
        shared = torch.from_numpy(values).to(device), vectors.to(device).contiguous()
    else:
        shape = (operator.size, int(count))
        shared = torch.empty(int(count), dtype=torch.float64, device=device), vectors.new_empty(shape, device=device)
    for tensor in shared:
        dist.broadcast(tensor, 0)
    return shared[0].cpu().numpy(), shared[1].to(operator.device)


def _exchange_device(operator: SymmetricOperator) -> torch.device:
    return torch.device(operator.device) if "nccl" in str(dist.get_backend()) else torch.device("cpu")


def _gather(row: np.ndarray, device: torch.device, world: int) -> np.ndarray:
    mine = torch.from_numpy(row).to(device)
    rows = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(rows, mine)
    return torch.stack(rows).cpu().numpy()


def _begin(checkpoint: Path | None, settings: Settings, probes: int, device: torch.device | None) -> np.ndarray:
    """The table (at least `probes`, 2 steps + 1) of rows alpha, beta, length, with what was saved before.

    Among several processes the first reads, so that the file need not be seen by all.
    """
    table, failure = np.full((probes, 2 * settings.steps + 1), WAITING), None
    if checkpoint is not None and (device is None or dist.get_rank() == 0):
        try:
            table = _load(checkpoint, settings, table)
        except KansciError as error:
            failure = error
    if device is not None:
        rows = torch.tensor([-1 if failure is not None else len(table)], device=device)
        dist.broadcast(rows, 0)
        if failure is None and int(rows) < 0:
            raise KansciError("process 0 could not use the checkpoint: see its message")
        if failure is None:
            shared = torch.from_numpy(table).to(device) if dist.get_rank() == 0 else None
            if shared is None:
                shared = torch.empty((int(rows), table.shape[1]), dtype=torch.float64, device=device)
            dist.broadcast(shared, 0)
            table = shared.cpu().numpy()
    if failure is not None:
        raise failure
    return table


def _save(path: Path, settings: Settings, table: np.ndarray) -> None:
    file = io.BytesIO()
    named = {name: np.array(value) for name, value in vars(settings).items()}
    np.savez(file, format=np.array(FORMAT), table=table, **named)
    write_bytes(Path(path), file.getvalue())


def _load(path: Path, settings: Settings, empty: np.ndarray) -> np.ndarray:
    path = Path(path)
    if not path.exists():
        return empty
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {name: file[name] for name in file.files}
        version, table = int(saved["format"]), saved["table"]
        found = {name: type(value)(saved[name][()]) for name, value in vars(settings).items()}
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise KansciError(f"{path} is not a saved spectrum: remove it, or name another checkpoint") from error
    if version != FORMAT:
        raise KansciError(f"{path} has format {version}, expected {FORMAT}: remove it, or name another checkpoint")
    for name, value in vars(settings).items():
        if found[name] != value:
            raise UsageError(
                f"{path} was saved with {name} = {found[name]!r}, got {value!r}: name another checkpoint, or remove it"
            )
    if table.ndim != 2 or table.shape[1] != empty.shape[1]:
        raise KansciError(f"{path} is not a saved spectrum: remove it, or name another checkpoint")
    if len(table) < len(empty):
        table = np.concatenate([table, empty[len(table) :]])
    return table
