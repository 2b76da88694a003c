"""Trained image classifiers of any run that kept them: for ``kansciml evaluate``, and for studies of their minima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import KansciError, check_name
from kansciml.experiments.minibatch.trained import SCORED, chosen_rows, load_network, trained_models
from kansciml.experiments.vision.jobs import VisionData, images_hash
from kansciml.experiments.vision.record import VisionRecord, VisionRow
from kansciml.experiments.vision.runs import EVALUATION_FACTOR, plain_batches, score_images
from kansciml.runs.progress import Progress
from kansciml.runs.ranks import device_of
from kansciml.runs.records import Record
from kansciml.runs.tables import Table
from kansciml.runs.trained import LoadedModel, NetworkScoringOptions, Scoring, TrainedModel, chosen_device
from kansciml.runs.typed import attributes
from kansciml.tasks.vision.dataset import SPLITS, Images
from kansciml.tasks.vision.metrics import Scores, cross_entropy
from kansciml.tasks.vision.registry import get_dataset

HELD_OUT = "test"
CHUNK = 128
"""Images in one batch of those that a Hessian is taken over."""
SHOWN_CLASSES = 20
"""With more classes, the table shows only those that are recognised worst."""


def evaluate_row(
    record: Record, row: VisionRow, images: Images, accelerator: str = "auto", batch_size: int | None = None
) -> Scores:
    """Scores of a trained network over `images` of its data set, as its record holds them for the test images."""
    device, dataset = chosen_device(accelerator), get_dataset(row.dataset)
    size = batch_size or EVALUATION_FACTOR * row.batch_size
    batches = plain_batches(images, dataset, row.network["image_size"], size, device)
    return score_images(load_network(record, row).to(device), batches, dataset.classes)


def split_images(
    record: Record, dataset: str, split: str, data_dir: Path | None = None, progress: Any = None
) -> Images:
    """The images of a split, from `data_dir` or else from where the run had them; ``train``: all of them.

    Raises:
        UsageError: an unknown split, or no such files.
        KansciError: test images that are not those of the run.
    """
    check_name("split", split, SPLITS)
    images = get_dataset(dataset).load(data_dir or _data_dir(record), split, progress)
    if split == HELD_OUT:
        _require_same(record, images, VisionRecord.read(record).data[dataset].test_hash, dataset)
    return images


def trained_networks(record: Record) -> list[TrainedModel]:
    """The networks of a run whose training ended, for `kansciml hessian`.

    The loss is the mean cross-entropy, without smoothing or augmentation, over `VisionData.minimum`: training images
    that are the same for all models, at most 512.
    """
    vision = VisionRecord.read(record)

    @cache
    def data_of(name: str) -> VisionData:
        known = vision.data[name]
        subset = None if known.n_train == get_dataset(name).n_train else known.n_train
        data = VisionData.load(name, _data_dir(record), subset)
        _require_same(record, data.minimum, known.minimum_hash, name)
        return data

    def load(row: VisionRow) -> LoadedModel:
        network, data = load_network(record, row), data_of(row.dataset)
        source = plain_batches(data.minimum, data.dataset, row.network["image_size"], CHUNK, torch.device("cpu"))
        dtype = next(network.parameters()).dtype
        return LoadedModel(network, plain_loss, [(batch.inputs.to(dtype), batch.labels) for batch in source.epoch()])

    return trained_models(vision.rows, load, "top1 top5 loss train_loss")


def trained_where(record: Record) -> list[TrainedModel]:
    """`trained_networks`, on the GPU where they were trained on one."""
    device, models = device_of(record.config["accelerator"]), trained_networks(record)

    def load(model: TrainedModel) -> LoadedModel:
        loaded = model.load()
        return replace(loaded, module=loaded.module.to(device))  # batches follow their module

    return [replace(one, load=partial(load, one)) for one in models] if device.type == "cuda" else models


def plain_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy over a batch of inputs and labels."""
    inputs, labels = batch
    return cross_entropy(module(inputs), labels)


def _data_dir(record: Record) -> Path | None:
    found = record.config.get("data_dir")
    return Path(found) if found and Path(found).is_dir() else None


def _require_same(record: Record, images: Images, known: str, dataset: str) -> None:
    if images_hash(images) != known:
        raise KansciError(
            f"the images of {dataset} are not those of the run in {record.folder}, or in another order: name the folder"
            " it was trained from with --data-dir, or train again"
        )


@dataclass(frozen=True, kw_only=True)
class ImageScoring(NetworkScoringOptions):
    """Which image classifiers are scored, and on what."""

    split: str = HELD_OUT
    """test, or train (all training images, without augmentation)."""


def score(record: Record, options: ImageScoring, progress: Progress) -> tuple[dict[str, Any], list[Table]]:
    """Every chosen model over the images of a split."""
    vision = VisionRecord.read(record)
    rows = chosen_rows(vision.rows, options.model)
    images: dict[str, Images] = {}
    found: list[tuple[VisionRow, Scores]] = []
    with progress.task("evaluating", len(rows)) as bar:
        for row in rows:
            name = row.dataset
            if name not in images:
                images[name] = split_images(record, name, options.split, options.data_dir, progress)
            found.append((row, evaluate_row(record, row, images[name], options.accelerator, options.batch_size)))
            bar.update(advance=1)
    models = [
        {
            **attributes(row, SCORED),
            **attributes(scores, "top1 top5 loss n"),
            "recorded": attributes(row, "top1 top5 loss") if options.split == HELD_OUT else None,
            "per_class": dict(zip(vision.data[row.dataset].classes, scores.per_class.tolist())),
            "confusion": scores.confusion,
        }
        for row, scores in found
    ]
    tables = [_scores_table(found, options.split), *_class_tables(vision, found)]
    return {"split": options.split, "models": models}, tables


def _scores_table(found: Sequence[tuple[VisionRow, Scores]], split: str) -> Table:
    rows = [
        [row.id, row.label, row.parameters, 100 * one.top1, 100 * one.top5, one.loss,
         *([row.percent, row.loss] if split == HELD_OUT else [None, None])]
        for row, one in found
    ]  # fmt: skip
    columns = ["Run", "Model", "Parameters", "Top-1 (%)", "Top-5 (%)", "Loss", "recorded top-1", "recorded loss"]
    note = f"{found[0][1].n} {'test' if split == HELD_OUT else 'training'} images, without augmentation."
    return Table(f"Scores on the {split} images", columns, rows, [note])


def _class_tables(vision: VisionRecord, found: Sequence[tuple[VisionRow, Scores]]) -> list[Table]:
    """One table per task: share of each class's images that were recognised, a column per run."""
    tables = []
    for task in dict.fromkeys(row.task for row, _ in found):
        own = [(row, scores) for row, scores in found if row.task == task]
        shares = [(100 * scores.per_class).tolist() for _, scores in own]
        rows, notes = list(zip(vision.data[own[0][0].dataset].classes, *shares)), []
        if len(rows) > SHOWN_CLASSES:
            rows = sorted(rows, key=lambda row: sum(row[1:]))[:SHOWN_CLASSES]
            notes = [f"The {SHOWN_CLASSES} classes that are recognised worst; --json has all of them."]
        columns = ["Class", *(f"{row.group} {row.seed}" for row, _ in own)]
        tables.append(Table(f"Recognised of each class (%): {task}", columns, rows, notes))
    return tables


SCORING = Scoring(ImageScoring, score)
