"""Trained image classifiers of any run that `run_jobs` recorded: for evaluation, and for studies of their minima."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kansciml._errors import KansciError, UsageError
from kansciml.experiments.vision.jobs import VisionData, images_hash, network_of
from kansciml.experiments.vision.steps import EVALUATION_FACTOR, plain_batches, score
from kansciml.models.registry import find
from kansciml.runs.records import Record
from kansciml.runs.scoring import chosen_device, rows_with
from kansciml.runs.trained import LoadedModel, TrainedModel
from kansciml.tasks.vision.dataset import SPLITS, Images
from kansciml.tasks.vision.metrics import Scores, cross_entropy
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training._checkpoint import load_tensors

HELD_OUT = "test"
METRICS = ("top1", "top5", "loss", "train_loss")
CHUNK = 128
"""Images in one batch of those that a Hessian is taken over."""


def rows_of(record: Record) -> list[dict[str, Any]]:
    """The trained classifiers of a run, as rows of its record.

    Raises:
        KansciError: the run is of another kind, or not finished.
    """
    return rows_with(record, "image classifiers", "kansciml vision", ("network", "weights", "top1"))


def load_network(record: Record, row: Mapping[str, Any]) -> nn.Module:
    """The network of a row with its final weights (the averaged ones, where there was an average), in eval mode.

    Raises:
        KansciError: the file of weights is gone or damaged, or of another version's model.
    """
    path = Path(record.folder) / row["weights"]
    if not path.is_file():
        raise KansciError(f"{path} is missing: restore it, or train again with --force")
    network = find(row["model"])[0].build(network_of(row["model"], row["network"]))
    if row["precision"] == "64":
        network.double()
    try:
        network.load_state_dict(load_tensors(path).tensors)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1].strip()
        raise KansciError(f"{path} belongs to another version of {row['model']} ({reason}): train it again") from error
    return network.eval()


def evaluate_row(
    record: Record, row: Mapping[str, Any], images: Images, accelerator: str = "auto", batch_size: int | None = None
) -> Scores:
    """Scores of a trained network over `images` of its data set, as its record holds them for the test images.

    Raises:
        UsageError: an accelerator that is unknown, or not there. KansciError: as for `load_network`.
    """
    device = chosen_device(accelerator)
    dataset = get_dataset(row["dataset"])
    batch_size = batch_size or EVALUATION_FACTOR * row["batch_size"]
    batches = plain_batches(images, dataset, row["network"]["image_size"], batch_size, device)
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
        _require_same(record, dataset, "test_hash", images)
    return images


def trained_networks(record: Record) -> list[TrainedModel]:
    """The networks of a run whose training ended, for `kansciml hessian`.

    The loss is the mean cross-entropy, without smoothing or augmentation, over `VisionData.minimum`: training images
    that are the same for all models, at most 512.

    Raises:
        KansciError: the run is of another kind.
    """
    rows = rows_of(record)
    minimum = _Minimum(record)
    groups = {(row["task"], row["group"]) for row in rows}
    return [
        TrainedModel(
            name=row["id"],
            label=row["label"],
            group=row["group"],
            seed=row["seed"],
            load=_loader(record, row, minimum),
            task=row["task"],
            against="mlp" if row["group"] != "mlp" and (row["task"], "mlp") in groups else None,
            metrics={name: row[name] for name in METRICS},
            loss=row["minimum_loss"],
        )
        for row in rows
        if row["status"] == "finished"
    ]


def plain_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy over a batch of inputs and labels."""
    inputs, labels = batch
    return cross_entropy(module(inputs), labels)


class _Minimum:
    """Batches of the images at which minima are studied; read when the first model asks for them."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.found: dict[str, VisionData] = {}

    def batches(self, row: Mapping[str, Any], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        name = row["dataset"]
        if name not in self.found:
            described = self.record.result["data"][name]
            full = get_dataset(name).n_train
            subset = None if described["n_train"] == full else described["n_train"]
            data = VisionData.load(name, _data_dir(self.record), subset)
            _require_same(self.record, name, "minimum_hash", data.minimum)
            self.found[name] = data
        data = self.found[name]
        source = plain_batches(data.minimum, data.dataset, row["network"]["image_size"], CHUNK, torch.device("cpu"))
        return [(batch.inputs.to(dtype), batch.labels) for batch in source.epoch()]


def _loader(record: Record, row: Mapping[str, Any], minimum: _Minimum) -> Callable[[], LoadedModel]:
    def load() -> LoadedModel:
        network = load_network(record, row)
        return LoadedModel(network, plain_loss, minimum.batches(row, next(network.parameters()).dtype))

    return load


def _data_dir(record: Record) -> Path | None:
    found = record.config.get("data_dir")
    return Path(found) if found and Path(found).is_dir() else None


def _require_same(record: Record, dataset: str, what: str, images: Images) -> None:
    known = record.result["data"][dataset][what]
    if images_hash(images) != known:
        raise KansciError(
            f"the images of {dataset} are not those of the run in {record.folder}, or in another order: name the folder"
            " it was trained from with --data-dir, or train again"
        )
