"""The training loop of ``kansciml vision``, and a bare PyTorch loop of the same training.

Both take the same steps: one model, one optimiser (fused AdamW, decay on weights alone), gradients clipped at norm 1, a
cosine with a warm-up, random images in the same order without augmentation. The bare loop has nothing more: its images
are normalised beforehand, and it keeps no losses. Ours makes its batches from bytes, keeps losses, accuracy and
gradient norms, looks for numbers that are not finite, and can be stopped and resumed.
"""

from __future__ import annotations

import copy
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kansciml.benchmarks import _measuring as measuring
from kansciml.benchmarks._measuring import Report
from kansciml.tasks.vision.batches import Batch, Batches
from kansciml.tasks.vision.dataset import Dataset, Images
from kansciml.tasks.vision.metrics import cross_entropy
from kansciml.tasks.vision.registry import get_dataset
from kansciml.training.loop import LoopConfig, train
from kansciml.training.optim import adamw, rate

DATASET = "cifar10"
BARE, LOOP = "bare PyTorch loop", "kansciml.training.loop"
WARM_UP = 0.25
"""Share of the epoch in which the learning rate rises."""


class Taken(NamedTuple):
    """Seconds of processor time: of all steps, and of everything else (setup, checkpoints, the log's file)."""

    steps_s: float
    rest_s: float


@dataclass(frozen=True, eq=False)
class Work:
    """One epoch of a training: of a copy of `network`, on `batches` in their order."""

    network: nn.Module
    batches: Batches
    config: LoopConfig

    @classmethod
    def make(cls, network: nn.Module, batch_size: int, steps: int) -> Work:
        """Random images, as many as the steps need."""
        dataset = get_dataset(DATASET)
        images = random_images(dataset, batch_size * steps)
        config = LoopConfig(epochs=1, batch_size=batch_size, warmup=WARM_UP, accelerator="cpu")
        return cls(network, Batches(images, dataset, batch_size, drop_last=True), config)

    @property
    def images(self) -> int:
        """Images in the epoch."""
        return len(self.batches) * self.config.batch_size

    def runs(self) -> dict[str, Callable[[], Taken]]:
        """Both trainings, from the same weights."""
        inputs, labels = normalised(self.batches)
        return {
            BARE: lambda: bare(copy.deepcopy(self.network), inputs, labels, self.batches.order(0), self.config),
            LOOP: lambda: looped(copy.deepcopy(self.network), self.batches, self.config),
        }


def random_images(dataset: Dataset, count: int) -> Images:
    """Random images and labels of the sizes of a data set."""
    rng = np.random.default_rng(0)
    shape = (count, dataset.channels, dataset.size, dataset.size)
    return Images(rng.integers(0, 256, shape, dtype=np.uint8), rng.integers(0, dataset.classes, count))


def normalised(batches: Batches) -> tuple[Tensor, Tensor]:
    """All images as the network is given them, and their labels, in the order of the data set."""
    found = list(batches.epoch())
    back = torch.argsort(batches.order(0)[: len(found) * batches.batch_size])
    return torch.cat([batch.inputs for batch in found])[back], torch.cat([batch.labels for batch in found])[back]


def bare(network: nn.Module, inputs: Tensor, labels: Tensor, order: Tensor, config: LoopConfig) -> Taken:
    """Train in place for one epoch, as a short script would."""
    began = time.process_time()
    total = len(order) // config.batch_size
    warmup = round(config.warmup * total)
    optimiser = adamw(network, config.learning_rate, config.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate(min(step, total - 1), total, peak=1.0, warmup=warmup, schedule=config.schedule)
    )
    network.train()
    ready = time.process_time()
    for rows in order[: total * config.batch_size].split(config.batch_size):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        scheduler.step()
    done = time.process_time()
    return Taken(done - ready, ready - began)


def looped(network: nn.Module, batches: Batches, config: LoopConfig) -> Taken:
    """Train in place for one epoch by `kansciml.training.loop`, with its files in a folder that is deleted."""
    marks: list[float] = []

    def evaluate(module: nn.Module) -> dict[str, Any]:  # it comes right after the last step
        marks.append(time.process_time())
        return {"loss": 0.0}

    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        epoch = _Epoch(batches, marks)
        train(network, config, batches=lambda _: epoch, loss=classification, evaluate=evaluate, folder=Path(folder))
        done = time.process_time()
    first, last = marks
    return Taken(last - first, done - began - (last - first))


def classification(module: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
    """Mean cross-entropy, and how many images were recognised: what ``kansciml vision`` trains with."""
    logits = module(batch.inputs)
    right = (logits.detach().argmax(1) == batch.labels).sum()
    return cross_entropy(logits, batch.targets), {"count": len(batch.labels), "accuracy": right}


class _Epoch:
    """The batches in the form the loop wants; writes down when the first is asked for."""

    def __init__(self, batches: Batches, marks: list[float]) -> None:
        self.batches, self.marks = batches, marks

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.marks.append(time.process_time())
        yield from self.batches.epoch()


def throughput(work: Work, rounds: int, report: Report = measuring.silent) -> list[dict[str, Any]]:
    """A row per loop: images per second of processor time, over the bare loop's, and milliseconds beside the steps.

    The loops take turns in `rounds` timed rounds; each trains once before.
    """
    runs = work.runs()
    taken: dict[str, list[Taken]] = {name: [] for name in runs}

    def train_by(name: str) -> None:
        taken[name].append(runs[name]())

    measuring.in_turns({name: functools.partial(train_by, name) for name in runs}, rounds, report)
    seconds = {name: np.array([one.steps_s for one in values[1:]]) for name, values in taken.items()}
    return [
        {
            "loop": name,
            **measuring.quartiles("images_", work.images / values, "per_s", 1.0),
            "over_bare": measuring.ratio(seconds[BARE], values),
            "rest_ms": 1e3 * float(np.median([one.rest_s for one in taken[name][1:]])),
        }
        for name, values in seconds.items()
    ]
