"""Trained image classifiers of any run that kept them: for evaluation, and for studies of their minima."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.minibatch.trained import load_network, trained_models
from kansciml.experiments.vision.jobs import VisionData, images_hash
from kansciml.experiments.vision.record import VisionRecord, VisionRow
from kansciml.experiments.vision.steps import EVALUATION_FACTOR, plain_batches, score
from kansciml.runs.records import Record
from kansciml.runs.scoring import chosen_device
from kansciml.runs.trained import LoadedModel, TrainedModel
from kansciml.tasks.vision.dataset import SPLITS, Images
from kansciml.tasks.vision.metrics import Scores, cross_entropy
from kansciml.tasks.vision.registry import get_dataset

HELD_OUT = "test"
CHUNK = 128
"""Images in one batch of those that a Hessian is taken over."""


def evaluate_row(
    record: Record, row: VisionRow, images: Images, accelerator: str = "auto", batch_size: int | None = None
) -> Scores:
    """Scores of a trained network over `images` of its data set, as its record holds them for the test images.

    Raises:
        UsageError: an accelerator that is unknown, or not there. KansciError: as for `load_network`.
    """
    device, dataset = chosen_device(accelerator), get_dataset(row.dataset)
    size = batch_size or EVALUATION_FACTOR * row.batch_size
    batches = plain_batches(images, dataset, row.network["image_size"], size, device)
    return score(load_network(record, row).to(device), batches, dataset.classes)


def split_images(
    record: Record, dataset: str, split: str, data_dir: Path | None = None, progress: Any = None
) -> Images:
    """The images of a split, from `data_dir` or else from where the run had them; ``train``: all of them.

    Raises:
        UsageError: an unknown split, or no such files.
        KansciError: test images that are not those of the run.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    images = get_dataset(dataset).load(data_dir or _data_dir(record), split, progress)
    if split == HELD_OUT:
        _require_same(record, images, VisionRecord.data_in(record, dataset).test_hash, dataset)
    return images


def trained_networks(record: Record) -> list[TrainedModel]:
    """The networks of a run whose training ended, for `kansciml hessian`.

    The loss is the mean cross-entropy, without smoothing or augmentation, over `VisionData.minimum`: training images
    that are the same for all models, at most 512.

    Raises:
        KansciError: the run is of another kind.
    """
    found: dict[str, VisionData] = {}

    def load(row: VisionRow) -> LoadedModel:
        name = row.dataset
        if name not in found:
            known = VisionRecord.data_in(record, name)
            subset = None if known.n_train == get_dataset(name).n_train else known.n_train
            data = VisionData.load(name, _data_dir(record), subset)
            _require_same(record, data.minimum, known.minimum_hash, name)
            found[name] = data
        network, data = load_network(record, row), found[name]
        source = plain_batches(data.minimum, data.dataset, row.network["image_size"], CHUNK, torch.device("cpu"))
        dtype = next(network.parameters()).dtype
        return LoadedModel(network, plain_loss, [(batch.inputs.to(dtype), batch.labels) for batch in source.epoch()])

    def metrics(row: VisionRow) -> dict[str, float | None]:
        return {"top1": row.top1, "top5": row.top5, "loss": row.loss, "train_loss": row.train_loss}

    return trained_models(VisionRecord.rows(record), load, metrics)


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
