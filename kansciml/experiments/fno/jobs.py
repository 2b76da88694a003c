"""One training of a neural operator: which network, on which samples, how. Nothing is trained here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from kansciml.analysis.matching import MEASURES, mixing_flops
from kansciml.experiments.fno.data import Fields, FieldsSpec
from kansciml.models.fno import FNOConfig
from kansciml.models.registry import find
from kansciml.runs.settings import COUNTS_IF_SET, config_hash
from kansciml.training.loop import TrainConfig

RESIDUAL = "-residual"
"""What the group of networks with residual connections ends with."""
NOT_SIZES = ("variant", "resolution", "grid", "spline_order", "grid_range", "kan_hidden", "fair", "recompute",
             "residual")  # fmt: skip
"""Fields of a network's configuration that the data, the variant, or the group say."""


@dataclass(frozen=True)
class FnoJob:
    """One training.

    Args:
        model: name in the registry, such as ``fno-wt``.
        network: its configuration.
        fields: the samples.
        seed: of the first weights and of the order of the samples.
        training: settings of the loop; its seed is replaced by `seed`.
        eval_subsamples: of the test samples, besides that of `fields`.
        kind: of which its variant is, where there are several: ``params`` or ``flops`` of what the KANs have as many
            as the MLPs, ``time`` of a longer training.
    """

    model: str
    network: FNOConfig
    fields: FieldsSpec
    seed: int
    training: TrainConfig
    eval_subsamples: tuple[int, ...] = ()
    kind: str = field(default="", metadata=COUNTS_IF_SET)

    def __post_init__(self) -> None:
        object.__setattr__(self, "training", replace(self.training, seed=self.seed))

    @property
    def task(self) -> str:
        """What is learned with which kind of model: groups of one task are compared."""
        return f"{self.fields.name}-{self.model}"

    @property
    def group(self) -> str:
        """What the seeds of one kind of model have in common: ``kan-spline-params-residual``."""
        kind = f"-{self.kind}" if self.kind else ""
        return self.network.variant + kind + (RESIDUAL if self.network.residual else "")

    @property
    def id(self) -> str:
        return f"{self.task}.{self.group}.{self.seed}"

    @property
    def label(self) -> str:
        """For tables: ``KAN, splines (G=5, S=3), residual``."""
        network = self.network
        kind = "MLP"
        if network.kan_layer is not None:
            order = f", S={network.spline_order}" if network.kan_layer == "spline" else ""
            name = "splines" if network.kan_layer == "spline" else "RSWAF"
            kind = f"KAN, {name} (G={network.kan_grid}{order})"
        equal = f", equal {self.kind}" if self.kind in MEASURES else ""
        return kind + equal + (", residual" if network.residual else "")

    @property
    def resized(self) -> dict[str, Any]:
        """Sizes in which the network differs from the model of its name."""
        model, preset = find(self.model, kind="operator")
        own, values = asdict(model.config(preset)), asdict(self.network)
        return {name: values[name] for name in own if name not in NOT_SIZES and values[name] != own[name]}

    @property
    def steps(self) -> int:
        """Of all epochs together; an incomplete batch at the end of an epoch is left out."""
        return self.training.epochs * (self.fields.darcy.n_train // self.training.batch_size)

    def identity(self, fields: Fields) -> str:
        """What a checkpoint has to agree with, besides the settings of the loop."""
        same = replace(self.fields, data=None, test_data=None)  # files count by the samples that are trained on
        own = replace(self, training=TrainConfig(), fields=same)
        return f"{self.id} {config_hash('fno', own)} {fields.described['train_hash']}"

    def build(self) -> nn.Module:
        """The network with its first weights.

        Raises:
            UsageError: sizes that do not fit.
        """
        model, _ = find(self.model, kind="operator")
        return model.build(self.network, torch.Generator().manual_seed(self.seed))

    def sizes(self) -> dict[str, Any]:
        """Parameters, those of lift and projection among them, and forward FLOPs of these per field; null if unknown.

        Raises:
            UsageError: sizes that do not fit each other.
        """
        with torch.device("meta"):
            network = find(self.model, kind="operator")[0].build(self.network)
        ends = sum(p.numel() for part in (network.lift, network.projection) for p in part.parameters())
        total = sum(p.numel() for p in network.parameters())
        return {"parameters": total, "ends_parameters": ends, "ends_flops": mixing_flops(self.network)}


def network_values(network: FNOConfig) -> dict[str, Any]:
    """The configuration of a network as a record holds it; `network_of` reads it."""
    return asdict(network)


def network_of(model: str, values: dict[str, Any], **changed: Any) -> FNOConfig:
    """The configuration that `network_values` wrote, with some fields changed.

    Raises:
        UsageError: an unknown model, or values of another version.
    """
    family, preset = find(model, kind="operator")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return family.config(preset, **(values | changed))
