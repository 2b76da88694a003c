"""Saving and continuing a training: which checkpoint, whose settings, on every process the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kansciml._errors import KansciError
from kansciml.training._checkpoint import Checkpoints, collect, load_tensors, restore
from kansciml.training._tally import State, Sums
from kansciml.training.ema import Ema


def all_finite(model: nn.Module) -> bool:
    """Whether all parameters are finite."""
    return bool(torch.stack([torch.isfinite(p.detach()).all() for p in model.parameters()]).all())


class Store:
    """Where a run keeps itself.

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
            self.checkpoints.save(state.step, tensors, {"settings": self.settings, **state.plain()})

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
