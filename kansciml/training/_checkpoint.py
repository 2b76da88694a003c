"""Saves and restores a training: tensors and numbers in one safetensors file, of which the last two are kept."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kansciml._errors import KansciError
from kansciml._files import make_folder, write_failure
from kansciml.training._tally import State, Sums
from kansciml.training.ema import Ema, entries

KEPT = 2
"""How many checkpoints stay: the last, and the one before should the last be damaged."""
_STATE = "state"
_CHECKSUM = "crc32"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")


class Checkpoint(NamedTuple):
    """Contents of a file: tensors by name, and a mapping of numbers and text."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and `state` (JSON) in one step: temporary name, flushed to disk, then `os.replace`.

    Complex tensors are stored as pairs of real ones, tensors that share memory once each.

    Raises:
        KansciError: unwritable folder or full disk; what was at `path` before is untouched.
    """
    plain = _plain(tensors)
    metadata = {_STATE: json.dumps(dict(state)), _CHECKSUM: str(_checksum(plain))}
    # one run owns the folder: a fixed name lets a new file replace what a killed process left
    temporary = make_folder(path.parent) / f".{path.stem.split('-')[0]}.tmp"
    try:
        try:
            save_file(plain, temporary, metadata=metadata)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise KansciError(f"cannot write {path}: {error}") from error
        number = int(code.group(1))
        raise write_failure(path, OSError(number, os.strerror(number))) from error


def load_tensors(path: Path) -> Checkpoint:
    """Read what `save_tensors` wrote; a complex tensor comes back as pairs of real ones.

    Raises:
        KansciError: no such file, cut short, damaged, or another program's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(metadata[_STATE])
        if int(metadata[_CHECKSUM]) != _checksum(tensors):
            raise ValueError("its checksum is wrong")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise KansciError(f"the checkpoint {path} cannot be read ({error})") from error
    return Checkpoint(path, tensors, state)


class Checkpoints:
    """The checkpoints of one run, ``step-<number>.safetensors`` in a folder."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        self.folder, self.log = folder, log

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of a step, then delete all but the last two."""
        path = self.folder / f"step-{step:010}.safetensors"
        save_tensors(path, tensors, state)
        for old in self.paths()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def latest(self) -> Checkpoint | None:
        """The last checkpoint that can be read; one that cannot is deleted, with a line to the log.

        Raises:
            KansciError: there are checkpoints, and none can be read.
        """
        paths = self.paths()
        failure = None
        for path in reversed(paths):
            try:
                found = load_tensors(path)
            except KansciError as error:
                self.log(f"{error}; trying the one before")
                failure = failure or error
                continue
            for bad in paths[paths.index(path) + 1 :]:
                bad.unlink(missing_ok=True)
            return found
        if failure:
            raise KansciError(f"{failure}, nor any before it: delete {self.folder} to start again") from failure
        return None


def collect(model: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor] | None) -> dict:
    """All tensors of a training: ``model/``, ``average/`` and the optimiser's moments, by parameter name."""
    tensors = {f"model/{name}": value for name, value in entries(model).items()}
    tensors |= {f"average/{name}": value for name, value in (average or {}).items()}
    for name, parameter in model.named_parameters():
        moments = optimiser.state.get(parameter, {})
        tensors |= {f"{moment}/{name}": moments[moment] for moment in _MOMENTS if moment in moments}
    return tensors


@torch.no_grad()
def restore(
    found: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, average: Mapping[str, Tensor] | None
) -> None:
    """Copy the tensors of `collect` back into a training.

    Raises:
        KansciError: the checkpoint holds other names or shapes than the model.
    """
    _fill(found, "model", entries(model))
    if average is not None:
        _fill(found, "average", average)
    optimiser.state.clear()
    for group in optimiser.param_groups:
        for name, parameter in zip(group["names"], group["params"]):
            moments = {moment: found.tensors.get(f"{moment}/{name}") for moment in _MOMENTS}
            held = {moment: value for moment, value in moments.items() if value is not None}
            if not held:
                continue
            state = {moment: torch.zeros_like(parameter) for moment in held if moment != "step"}
            state["step"] = torch.zeros((), device=parameter.device if group.get("fused") else "cpu")
            _fill(found, None, {f"{moment}/{name}": value for moment, value in state.items()})
            optimiser.state[parameter] = state


def _fill(found: Checkpoint, room: str | None, targets: Mapping[str, Tensor]) -> None:
    names = {f"{room}/{name}" if room else name: value for name, value in targets.items()}
    stored = {name for name in found.tensors if name.startswith(f"{room}/")} if room else set(names)
    if stored != set(names):
        first = sorted(stored ^ set(names))[0].partition("/")[2]
        where = "the checkpoint alone" if f"{room}/{first}" in stored else "this model alone"
        raise KansciError(
            f"the checkpoint {found.path} belongs to another model ({first} is in {where}): choose another folder, or"
            " delete this one to start again"
        )
    for name, target in names.items():
        value = found.tensors[name]
        view = torch.view_as_real(target) if target.is_complex() else target
        if value.shape != view.shape or value.dtype != view.dtype:
            raise KansciError(
                f"the checkpoint {found.path} belongs to another model ({name.partition('/')[2]} is"
                f" {value.dtype} {tuple(value.shape)} there, {view.dtype} {tuple(view.shape)} here): choose another"
                " folder, or delete this one to start again"
            )
        view.copy_(value)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: real, contiguous, on the CPU, none sharing memory with another."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach()
        value = (torch.view_as_real(value) if value.is_complex() else value).cpu().contiguous()
        memory = value.untyped_storage().data_ptr()
        found[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return found


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for name in sorted(tensors):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(data.data, zlib.crc32(name.encode(), checksum))
    return checksum


def all_finite(model: nn.Module) -> bool:
    """Whether all parameters are finite."""
    return bool(torch.stack([torch.isfinite(p.detach()).all() for p in model.parameters()]).all())


class Store:
    """Saves and loads one run.

    Args:
        fabric: its first process alone writes, and says which checkpoint all of them read.
        folder: of the checkpoints.
        log: called with a line for each checkpoint that cannot be read.
        settings: what the run computes; a checkpoint with others is refused.
        model, optimiser, average: what is saved and filled again.
    """

    def __init__(
        self,
        fabric: Any,
        folder: Path,
        log: Callable[[str], None],
        settings: Mapping[str, Any],
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Ema | None,
    ) -> None:
        self.fabric, self.settings, self.model, self.optimiser = fabric, dict(settings), model, optimiser
        self.average = average.weights if average else None
        self.checkpoints = Checkpoints(folder, log)

    def save(self, state: State, sums: Sums) -> None:
        """Write a checkpoint, unless the weights are not finite: every process will notice that when it next reads."""
        if self.fabric.global_rank == 0 and all_finite(self.model):
            tensors = collect(self.model, self.optimiser, self.average)
            tensors |= {f"sums/{name}": value for name, value in sums.values.items()}
            self.checkpoints.save(state.step, tensors, {"settings": self.settings, **asdict(state)})

    def load(self, sums: Sums) -> State | None:
        """Fill model, optimiser, average and `sums` from the last good checkpoint; None where there is none.

        Raises:
            KansciError: no checkpoint can be read, or it is of other settings or another model.
        """
        found = self.checkpoints.latest() if self.fabric.global_rank == 0 else None
        if self.fabric.world_size > 1:
            path = self.fabric.broadcast(str(found.path) if found else "")
            found = found or (load_tensors(Path(path)) if path else None)
        if found is None:
            return None
        state = dict(found.state)
        before = state.pop("settings")
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise KansciError(
                    f"the checkpoint {found.path} was made with {name} {before.get(name)!r}, this run has {value!r}:"
                    " choose another folder, or delete this one to start again"
                )
        restore(found, self.model, self.optimiser, self.average)
        # on several processes a checkpoint is written right after a reading: there are no sums
        pending = {n.partition("/")[2]: value for n, value in found.tensors.items() if n.startswith("sums/")}
        sums.values = {name: value.to(sums.device, sums.dtype) for name, value in pending.items()}
        return State(**state)
