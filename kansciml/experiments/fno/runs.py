"""Many trainings of neural operators, one after the other, each on all devices; `run_jobs` is the way in.

Every job has its own folder ``checkpoints/<id>`` with the log and the checkpoints of the training loop. A finished one
leaves ``weights.safetensors``, ``arrays.safetensors`` and ``done.json`` there and is not trained again; an interrupted
one goes on at the step it was in. Under torchrun all processes call `run_jobs`: they train together, and the first one
writes.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kansciml._errors import KansciError
from kansciml._files import write_json
from kansciml.experiments.fno.data import SHOWN, Fields, FieldsSpec, resampled
from kansciml.experiments.fno.jobs import FnoJob, network_values
from kansciml.experiments.fno.steps import Epoch, RelativeError, Samples, errors, mean_error, predictions, share
from kansciml.experiments.minibatch.trainings import DONE, TrainingBoard, train_each
from kansciml.runs import ranks
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.tasks.darcy.dataset import DarcyData
from kansciml.training._checkpoint import load_tensors, save_tensors
from kansciml.training.ema import entries
from kansciml.training.loop import TrainResult, train

WEIGHTS = "weights.safetensors"
ARRAYS = "arrays.safetensors"
CURVES = {
    "epoch": "epoch",
    "step": "step",
    "loss": "loss",
    "test_error": "eval_relative_l2",
    "learning_rate": "learning_rate",
    "samples_per_s": "samples_per_s",
}
"""Name of a curve in the record, and of its column in the loop's history."""


def run_jobs(jobs: Sequence[FnoJob], context: RunContext) -> Result:
    """Train what is not trained yet, and collect the record: see `kansciml.experiments.fno.report` for its layout.

    Raises:
        UsageError: two jobs of one name, or no job; settings or data that do not fit.
        KansciError: data that cannot be had, memory that ran out.
        KeyboardInterrupt: after the training was saved.
    """
    data = _Data(context)
    train_each(
        jobs,
        context,
        lambda job, folder, board: _train_job(job, data, folder, context, board),
        unit="samples",
        score=("eval_relative_l2", "test"),
    )
    if ranks.rank() > 0:
        return Result({})
    return _collect([_read(context.checkpoints / job.id) for job in jobs])


def _train_job(job: FnoJob, data: _Data, folder: Path, context: RunContext, board: TrainingBoard) -> None:
    """One training from its beginning or its last checkpoint, its errors, and its final weights."""
    fields = data.of(job.fields)
    others = {factor: data.tests(job.fields.at(factor)) for factor in job.eval_subsamples}
    device = device_of(job.training.accelerator)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    of_a, of_u = fields.normalisers
    loss = RelativeError(of_u, device)
    samples, test = Samples(fields.train, of_a, device), Samples(share(fields.test), of_a, device)
    network = job.build()
    board.begin(job)
    result = train(
        network,
        job.training,
        batches=lambda epoch: Epoch(samples, job.training.batch_size, job.seed, epoch),
        loss=loss,
        evaluate=lambda module: {"relative_l2": mean_error(module, test, loss)},
        folder=folder,
        identity=job.identity(fields),
        progress=board,
        log=lambda line: context.log(f"{job.id}: {line}"),
    )
    if ranks.rank() > 0:
        return
    found = {fields.test.size: _errors_at(network, fields, fields.test, device)}
    found |= {other.size: _errors_at(network, fields, other, device) for other in others.values()}
    minimum = float(_errors_at(network, fields, fields.minimum, device).mean())
    arrays = {name: np.array([row.get(column) for row in result.history], float) for name, column in CURVES.items()}
    arrays |= {f"errors.{size}": values for size, values in found.items()}
    arrays["train_s"] = _training_seconds(job, result)
    arrays["prediction"] = predictions(network, Samples(fields.test, of_a, device), loss, SHOWN)
    row = _row(job, result, {size: float(values.mean()) for size, values in found.items()}, minimum)
    save_tensors(folder / WEIGHTS, entries(network), {"id": job.id, "epoch": row["epochs"]})
    save_tensors(folder / ARRAYS, {name: torch.from_numpy(values) for name, values in arrays.items()}, {"id": job.id})
    shown = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in fields.arrays.items()}
    save_tensors(folder.parent / f"{job.task}.safetensors", shown, fields.described)
    write_json(folder / DONE, {"row": row, "data": fields.described})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # optimiser states of a training that has ended
    context.metrics(row)


def _errors_at(network: nn.Module, fields: Fields, data: DarcyData, device: torch.device) -> np.ndarray:
    """Relative L2 error of each sample of `data`, at its own resolution, (N,) float64."""
    of_a, of_u = (resampled(one, data.size) for one in fields.normalisers)
    return errors(network, Samples(data, of_a, device), RelativeError(of_u, device)).double().cpu().numpy()


def _row(job: FnoJob, result: TrainResult, found: dict[int, float], minimum_loss: float) -> dict[str, Any]:
    """One row of the record."""
    history = result.history
    warm = history[1:] or history  # the first epoch may compile, and fills caches
    per_s = statistics.median(line["samples_per_s"] for line in warm) if warm else None
    best = min(history, key=lambda line: line["eval_relative_l2"], default={})
    return {
        "id": job.id,
        "task": job.task,
        "data": job.fields.name,
        "model": job.model,
        "resized": job.resized,
        "variant": job.network.variant,
        "residual": job.network.residual,
        "group": job.group,
        "label": job.label,
        "seed": job.seed,
        "status": result.status,
        "message": result.message,
        **job.sizes(),
        "relative_l2": found[job.fields.darcy.size],
        "relative_l2_at": {str(size): value for size, value in found.items()},
        "train_loss": result.final.get("loss"),
        "minimum_loss": minimum_loss,
        "best_relative_l2": best.get("eval_relative_l2"),
        "best_epoch": best.get("epoch"),
        "epochs": len(history),
        "steps": result.steps,
        "samples_per_s": per_s,
        "seconds_per_step": job.training.batch_size / per_s if per_s else None,
        "peak_memory_mb": result.peak_memory / 1e6,
        "wall_s": result.wall_s,
        "batch_size": job.training.batch_size,
        "precision": job.training.precision,
        "processes": ranks.size(),
        "network": network_values(job.network),
        "weights": f"checkpoints/{job.id}/{WEIGHTS}",
    }


def _training_seconds(job: FnoJob, result: TrainResult) -> np.ndarray:
    """Seconds of training until the end of each epoch, without evaluations and checkpoints."""
    samples = np.diff([0, *(line["step"] for line in result.history)]) * job.training.batch_size
    return np.cumsum([n / max(line["samples_per_s"], 1e-9) for n, line in zip(samples, result.history)])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Row, description of the data, and arrays for the record."""
    try:
        content = json.loads((folder / DONE).read_text())
        row, described = content["row"], content["data"]
        own = load_tensors(folder / ARRAYS).tensors
        shown = load_tensors(folder.parent / f"{row['task']}.safetensors").tensors
    except (OSError, ValueError, KeyError, KansciError) as error:
        raise KansciError(f"{folder} cannot be read ({error}): delete it to train that model again") from error
    arrays = {f"{row['id']}.{name}": values.numpy() for name, values in own.items()}
    return row, described, arrays | {f"{row['data']}.{name}": values.numpy() for name, values in shown.items()}


def _collect(found: Sequence[tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]]) -> Result:
    arrays = {name: values for _, _, own in found for name, values in own.items()}
    data = {described["name"]: described for _, described, _ in found}
    return Result({"data": data, "runs": [row for row, _, _ in found]}, arrays)


class _Data:
    """Samples by where they come from, each made or read once."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.found: dict[FieldsSpec, Any] = {}

    def of(self, spec: FieldsSpec) -> Fields:
        if spec not in self.found:
            self.found[spec] = Fields.load(spec, self.context.progress, self.context.log)
        return self.found[spec]

    def tests(self, spec: FieldsSpec) -> DarcyData:
        """Test samples alone."""
        spec = spec.for_tests()
        if spec not in self.found:
            spec.make(self.context.progress, self.context.log)
            self.found[spec] = spec.split("test")
        return self.found[spec]
