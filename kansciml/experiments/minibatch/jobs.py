"""One training on minibatches: which network, on which data, how. Nothing is trained here."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from kansciml._errors import UsageError
from kansciml.analysis.matching import MEASURES
from kansciml.experiments.minibatch.config import MinibatchConfig
from kansciml.models.base import Model, VariantConfig
from kansciml.models.registry import find, model_config
from kansciml.runs import ranks
from kansciml.runs.settings import COUNTS_IF_SET, config_hash, seed_range
from kansciml.training.loop import TrainConfig

NOT_SIZES = (
    "variant", "image_size", "channels", "classes", "grid", "spline_order", "grid_range", "kan_hidden", "fair",
    "placement", "drop_path", "resolution", "recompute", "residual",
)  # fmt: skip
"""Fields of a network's configuration that follow from the data, the variant or the group."""


class DataConfig(Protocol):
    """Where the data of a training come from."""

    @property
    def name(self) -> str:
        """In the record."""

    @property
    def n_train(self) -> int:
        """Number of training images or samples."""


Network = TypeVar("Network", bound=VariantConfig)
Source = TypeVar("Source", bound=DataConfig)
Own = TypeVar("Own", bound="TrainingJob[Any, Any]")


@dataclass(frozen=True)
class TrainingJob(ABC, Generic[Network, Source]):
    """One training.

    Args:
        model: name in the registry, such as ``mixer-nano``. network: its configuration.
        data: where the data come from, and how they are presented.
        seed: of the first weights, and of the order of the data and their augmentation.
        training: settings of the loop.
        kind: which of several of its variant: ``params`` or ``flops`` where the KANs have as many as the MLPs,
            ``time`` of a longer training.
    """

    model: str
    network: Network
    data: Source
    seed: int
    training: TrainConfig
    kind: str = field(default="", metadata=COUNTS_IF_SET)

    @classmethod
    def of(
        cls: type[Own],
        how: MinibatchConfig,
        model: str,
        data: Source,
        networks: Iterable[Network],
        match: str,
        **own: Any,
    ) -> list[Own]:
        """One job per network and seed of `how`, a network's seeds in a row; `match` of the KANs, `own` fields."""
        kinds = [(network, "" if network.variant == "mlp" or match == "none" else match) for network in networks]
        return [
            cls(model, network, data, seed, how.training, kind, **own)
            for network, kind in kinds
            for seed in seed_range(how)
        ]

    @property
    @abstractmethod
    def trait(self) -> str:
        """What labels say of the network beside its variant, such as ``residual``; or nothing."""

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Parameters and operations, by their names in the record; None where not known.

        Raises:
            UsageError: sizes that do not fit each other.
        """

    @property
    def task(self) -> str:
        """What is learned with which kind of model: groups of one task are compared."""
        return f"{self.data.name}-{self.model}"

    @property
    def group(self) -> str:
        """What the seeds of one kind of network have in common: ``kan-spline-params``."""
        return self.network.variant + (f"-{self.kind}" if self.kind else "")

    @property
    def id(self) -> str:
        return f"{self.task}.{self.group}.{self.seed}"

    @property
    def label(self) -> str:
        """For tables: ``KAN, splines (G=5, S=3), equal params``."""
        network, kind = self.network, "MLP"
        if network.kan_layer == "spline":
            kind = f"KAN, splines (G={network.kan_grid}, S={network.spline_order})"
        elif network.kan_layer is not None:
            kind = f"KAN, RSWAF (G={network.kan_grid})"
        equal = f", equal {self.kind}" if self.kind in MEASURES else ""
        return kind + equal + (f", {self.trait}" if self.trait else "")

    @property
    def family(self) -> tuple[Model, str]:
        """The family of models, and the preset of it."""
        return find(self.model, kind=None)

    @property
    def resized(self) -> dict[str, Any]:
        """Sizes in which the network differs from the model of its name."""
        model, preset = self.family
        own, values = asdict(model.config(preset)), asdict(self.network)
        return {name: values[name] for name in own if name not in NOT_SIZES and values[name] != own[name]}

    @property
    def steps(self) -> int:
        """Of all epochs together; an incomplete batch at the end of an epoch is left out."""
        return self.training.epochs * (self.data.n_train // self.training.batch_size)

    def identity(self, train_hash: str) -> str:
        """What a checkpoint has to agree with, besides the settings of the loop."""
        return f"{self.id} {config_hash('training', replace(self.same(), training=TrainConfig()))} {train_hash}"

    def same(self: Own) -> Own:
        """The job without what makes no difference to the training beside the hash of its data."""
        return self

    def build(self, log: Callable[[str], None] | None = None) -> nn.Module:
        """The network with its first weights; `log` is told what became of pretrained ones.

        Raises:
            UsageError: sizes that do not fit.
        """
        return self.family[0].build(self.network, torch.Generator().manual_seed(self.seed))


def check_jobs(jobs: Sequence[TrainingJob[Any, Any]]) -> None:
    """Raise UsageError for networks whose sizes do not fit, and batches that processes of a torchrun cannot share."""
    for job in {job.network: job for job in jobs}.values():
        job.sizes()
        batch, processes = job.training.batch_size, ranks.size()
        if batch % processes:
            raise UsageError(f"got batch_size {batch} on {processes} processes: expected a multiple of {processes}")


def network_of(model: str, values: Mapping[str, Any]) -> Any:
    """The configuration of a network as a record holds it. UsageError: an unknown model, or one of another version."""
    known: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    return model_config(model, **known)


def arrays_hash(first: np.ndarray, second: np.ndarray) -> str:
    """Sixteen hexadecimal digits of two arrays, with the shape of the first, in their order."""
    digest = hashlib.sha256(repr(first.shape).encode())
    for array in (first, second):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
