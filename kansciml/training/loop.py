"""One training loop for vision and operator learning: AdamW on minibatches, exact resume, many devices.

The loop knows neither task nor model: batches, loss and evaluation are given as callables. Lightning Fabric carries it
to devices and precisions. All random numbers of a step follow from (seed, process, step) and the learning rate from
the step, so that a run which was killed and resumed ends in the same bits as an unbroken one (on a CPU, with the same
number of threads and processes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kansciml.training._config import LoopConfig, TrainConfig
from kansciml.training._devices import make_fabric
from kansciml.training._run import Calls, Run
from kansciml.training._signals import StopSignals
from kansciml.training._sync_norm import synchronised
from kansciml.training._tally import MEASURED

__all__ = ["MEASURED", "LoopConfig", "TrainConfig", "TrainResult", "train"]


Batches = Callable[[int], "Iterable[Any]"]
Loss = Callable[[nn.Module, Any], "tuple[Tensor, Mapping[str, Any]]"]


@dataclass
class TrainResult:
    """Outcome of a training.

    Args:
        history: one row per epoch: ``epoch`` (from 1), ``step``, the means over its samples of ``loss`` and of the
            metrics, ``gradient_norm`` (before clipping, mean over steps), ``learning_rate`` (of its last step),
            ``eval_<name>`` for each result of `evaluate`, and `MEASURED`.
        best: the row that is best by `LoopConfig.monitor`, None before the first epoch's end. Its weights are in
            ``best.safetensors``.
        final: the last row (empty before the first epoch's end).
        steps: steps done.
        wall_s: seconds of all sessions together.
        peak_memory: most bytes allocated, of all sessions (CUDA: by tensors; else: by the process).
        status: ``"finished"``, or ``"diverged"``: the loss or the weights were no longer finite, and the model holds
            those of the last checkpoint before.
        message: what happened.
        average: with `ema` the averaged entries of the model's ``state_dict``, else None.
    """

    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    final: dict[str, Any]
    steps: int
    wall_s: float
    peak_memory: int
    status: str
    message: str
    average: dict[str, Tensor] | None


def train(
    model: nn.Module,
    config: LoopConfig,
    *,
    batches: Batches,
    loss: Loss,
    folder: Path,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    identity: str = "",
    progress: Any = None,
    log: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train `model` in place, or continue the training that `folder` holds.

    Args:
        model: moved to the device and precision of `config`; ends with the weights of the last step. On several
            processes its batch normalisations take their statistics over all of them, and a bias right before one,
            whose gradient is rounding alone, drifts apart from that of a single process without any effect on the
            training loss.
        config: see `LoopConfig`.
        batches: ``batches(epoch)``, epoch from 0, gives the epoch's batches: tensors in any nesting of tuples, lists
            and mappings, samples along the first dimension. It has a ``len``, the same for every epoch. Calling it
            again for the same epoch has to give the same batches: draw from a generator seeded by (seed, epoch, batch),
            not from torch's global one. A method ``seek(k)``, if there is one, gives the batches from the k-th on; else
            the first k are made and dropped when an epoch is resumed in its middle. On several processes each makes
            the whole batch and takes its equal part.
        loss: ``loss(module, batch)`` gives the mean loss over the batch, a scalar, and sums over the batch as tensors
            or numbers: the number of samples ``count``, and any others, e.g. ``accuracy`` the number of samples that
            are right. Means over all samples appear under the same names.
        folder: ``checkpoints/``, ``metrics.csv``, ``best.safetensors`` and ``tensorboard/`` are written there; all
            processes have to see it.
        evaluate: ``evaluate(module)`` gives numbers, after each epoch; the module is in eval mode, without gradients,
            with averaged weights under `ema`. It brings its data to the module's device and dtype. Every process
            calls it (so that it may divide the work and sum up by torch.distributed), the first one's numbers count.
        identity: text that names model and task; a checkpoint with another one is refused.
        progress: has ``task(description, total)`` whose result has ``update(completed=..., **values)`` and ``close()``;
            the values are ``epoch``, ``loss``, the metrics, ``samples_per_s`` and ``peak_memory_mb`` of the last row of
            the log, and ``eval_<name>`` of the last evaluation.
        log: called with one line at each event worth telling.

    Raises:
        UsageError: batches, metrics or devices that do not fit.
        KansciError: a checkpoint of other settings or another model, a full disk, memory that ran out.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step was finished and saved (a second one: at once; on
            several processes: at the next row of the log).
    """
    fabric = make_fabric(config)
    if fabric.global_rank > 0:
        progress = log = None
    calls = Calls(batches, loss, evaluate, log or (lambda line: None))
    device = fabric.device
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []))
        stack.enter_context(synchronised(model, fabric.world_size))
        stop = stack.enter_context(StopSignals())
        stack.callback(model.train, model.training)
        run = Run(model, config, fabric, stop, calls, Path(folder), identity)
        run.finish(progress)
    state = run.state
    return TrainResult(
        history=state.history,
        best=state.best,
        final=state.history[-1] if state.history else {},
        steps=state.step,
        wall_s=state.wall_s,
        peak_memory=state.peak_memory,
        status=state.status,
        message=state.message,
        average=run.average.weights if run.average else None,
    )
