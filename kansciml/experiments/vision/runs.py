"""Many trainings of image classifiers, one after the other, each on all devices; `run_jobs` is the way in.

Every job has its own folder ``checkpoints/<id>`` with the log and the checkpoints of the training loop. A finished one
leaves ``weights.safetensors`` and ``done.json`` there and is not trained again; an interrupted one goes on at the step
it was in. Under torchrun all processes call `run_jobs`: they train together, and the first one writes.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kansciml._errors import KansciError
from kansciml._files import write_json
from kansciml.experiments.minibatch.trainings import DONE, TrainingBoard, train_each
from kansciml.experiments.vision.jobs import VisionData, VisionJob, network_values
from kansciml.experiments.vision.steps import EVALUATION_FACTOR, Epoch, SmoothedLoss, plain_batches, score
from kansciml.runs import ranks
from kansciml.runs.experiment import Result, RunContext
from kansciml.runs.ranks import device_of
from kansciml.tasks.vision.augment import preset
from kansciml.tasks.vision.batches import Batches
from kansciml.tasks.vision.metrics import Scores
from kansciml.training._checkpoint import save_tensors
from kansciml.training.ema import entries
from kansciml.training.loop import TrainResult, train

WEIGHTS = "weights.safetensors"
CURVES = {
    "epoch": "epoch",
    "step": "step",
    "loss": "loss",
    "accuracy": "accuracy",
    "test_loss": "eval_loss",
    "test_top1": "eval_top1",
    "test_top5": "eval_top5",
    "learning_rate": "learning_rate",
    "images_per_s": "samples_per_s",
}
"""Name of a curve in the record, and of its column in the loop's history."""


def run_jobs(jobs: Sequence[VisionJob], context: RunContext) -> Result:
    """Train what is not trained yet, and collect the record: see `kansciml.experiments.vision.report` for its layout.

    Raises:
        UsageError: two jobs of one name, or no job; settings or data that do not fit.
        KansciError: data that cannot be had, memory that ran out.
        KeyboardInterrupt: after the training was saved.
    """
    data = _Data(context)
    train_each(
        jobs,
        context,
        lambda job, folder, board: train_job(job, data.of(job), folder, context, board),
        unit="images",
        score=("eval_top1", "top-1"),
    )
    if ranks.rank() > 0:
        return Result({})
    return _collect([_read(context.checkpoints / job.id / DONE) for job in jobs])


def train_job(job: VisionJob, data: VisionData, folder: Path, context: RunContext, board: TrainingBoard) -> None:
    """One training from its beginning or its last checkpoint, its scores, and its final weights."""
    device = device_of(job.training.accelerator)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batches = Batches(
        data.train,
        data.dataset,
        job.training.batch_size,
        device=device,
        seed=job.seed,
        drop_last=True,  # every step of every process has as many images
        augmentation=preset(job.augmentation, data.dataset),
        image_size=job.network.image_size,
    )
    large = EVALUATION_FACTOR * job.training.batch_size
    test = plain_batches(data.test, data.dataset, job.network.image_size, large, device, ranks.rank(), ranks.size())
    network = job.build(lambda line: context.log(f"{job.id}: {line}"))
    board.begin(job)
    result = train(
        network,
        job.training,
        batches=lambda epoch: Epoch(batches, epoch),
        loss=SmoothedLoss(job.label_smoothing),
        evaluate=lambda module: _numbers(score(module, test, data.dataset.classes, together=True)),
        folder=folder,
        identity=job.identity(data),
        progress=board,
        log=lambda line: context.log(f"{job.id}: {line}"),
    )
    if ranks.rank() > 0:
        return
    if result.average is not None:
        network.load_state_dict(result.average, strict=False)  # of tied tensors one name is enough
    whole = plain_batches(data.test, data.dataset, job.network.image_size, large, device)
    scores = score(network, whole, data.dataset.classes)
    minimum = plain_batches(data.minimum, data.dataset, job.network.image_size, large, device)
    row = _row(job, result, scores, score(network, minimum, data.dataset.classes).loss)
    save_tensors(folder / WEIGHTS, entries(network), {"id": job.id, "epoch": row["epochs"]})
    arrays = {name: [line.get(column) for line in result.history] for name, column in CURVES.items()}
    arrays |= {"train_s": _training_seconds(job, result), "confusion": scores.confusion.tolist()}
    write_json(folder / DONE, {"row": row, "arrays": arrays, "data": data.described})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # optimiser states of a training that has ended
    context.metrics(row)


def _numbers(scores: Scores) -> dict[str, float]:
    return {"loss": scores.loss, "top1": scores.top1, "top5": scores.top5}


def _row(job: VisionJob, result: TrainResult, scores: Scores, minimum_loss: float) -> dict[str, Any]:
    """One row of the record."""
    history = result.history
    warm = history[1:] or history  # the first epoch may compile, and fills caches
    per_s = statistics.median(line["samples_per_s"] for line in warm) if warm else None
    best = max(history, key=lambda line: line["eval_top1"], default={})
    return {
        "id": job.id,
        "task": job.task,
        "dataset": job.dataset,
        "model": job.model,
        "resized": job.resized,
        "variant": job.network.variant,
        "group": job.group,
        "label": job.label,
        "seed": job.seed,
        "status": result.status,
        "message": result.message,
        **job.sizes(),
        **_numbers(scores),
        "n_test": scores.n,
        "train_loss": result.final.get("loss"),
        "train_accuracy": result.final.get("accuracy"),
        "minimum_loss": minimum_loss,
        "best_top1": best.get("eval_top1"),
        "best_epoch": best.get("epoch"),
        "epochs": len(history),
        "steps": result.steps,
        "images_per_s": per_s,
        "seconds_per_step": job.training.batch_size / per_s if per_s else None,
        "peak_memory_mb": result.peak_memory / 1e6,
        "wall_s": result.wall_s,
        "batch_size": job.training.batch_size,
        "precision": job.training.precision,
        "processes": ranks.size(),
        "network": network_values(job.network),
        "weights": f"checkpoints/{job.id}/{WEIGHTS}",
    }


def _training_seconds(job: VisionJob, result: TrainResult) -> list[float]:
    """Seconds of training until the end of each epoch, without evaluations and checkpoints."""
    steps = [line["step"] for line in result.history]
    images = np.diff([0, *steps]) * job.training.batch_size
    return np.cumsum([n / max(line["samples_per_s"], 1e-9) for n, line in zip(images, result.history)]).tolist()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        return {name: content[name] for name in ("row", "arrays", "data")}
    except (OSError, ValueError, KeyError) as error:
        raise KansciError(f"{path} cannot be read ({error}): delete its folder to train that model again") from error


def _collect(found: Sequence[Mapping[str, Any]]) -> Result:
    arrays = {
        f"{one['row']['id']}.{name}": np.array(values, dtype=np.int64 if name == "confusion" else np.float64)
        for one in found
        for name, values in one["arrays"].items()
    }
    data = {one["data"]["name"]: one["data"] for one in found}
    return Result({"data": data, "runs": [one["row"] for one in found]}, arrays)


class _Data:
    """Images by data set, read once; under torchrun the first process reads, or downloads, before the others do."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.found: dict[tuple[Any, ...], VisionData] = {}

    def of(self, job: VisionJob) -> VisionData:
        key = job.dataset, job.data_dir, job.subset
        if key not in self.found:
            if ranks.rank() == 0:
                self.found[key] = VisionData.load(*key, progress=self.context.progress)
            ranks.agree(None)
            if ranks.rank() > 0:
                self.found[key] = VisionData.load(*key)
        return self.found[key]
