"""One training of a neural operator. Nothing is trained here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from kansciml.analysis.matching import mixing_size
from kansciml.experiments.fno.config import FnoRunConfig, SamplesConfig
from kansciml.experiments.fno.record import RESIDUAL
from kansciml.experiments.minibatch.jobs import TrainingJob
from kansciml.models.fno import FNOConfig
from kansciml.runs.settings import seed_range


@dataclass(frozen=True)
class FnoJob(TrainingJob[FNOConfig, SamplesConfig]):
    """One training of a neural operator."""

    @property
    def trait(self) -> str:
        return RESIDUAL if self.network.residual else ""

    @property
    def group(self) -> str:
        """What the seeds of one kind of network have in common: ``kan-spline-params-residual``."""
        return super().group + (f"-{RESIDUAL}" if self.network.residual else "")

    def same(self) -> FnoJob:
        # files count by the samples that are trained on
        return replace(self, data=replace(self.data, data=None, test_data=None))

    def sizes(self) -> dict[str, Any]:
        """Parameters, those of lift and projection among them, and forward FLOPs of these per sample, or None."""
        with torch.device("meta"):
            network = self.family[0].build(self.network)
        sizes = {name: p.numel() for name, p in network.named_parameters()}
        ends = sum(size for name, size in sizes.items() if name.startswith(("lift.", "projection.")))
        return {
            "parameters": sum(sizes.values()), "ends_parameters": ends, "ends_flops": mixing_size(self.network, "flops")
        }  # fmt: skip


def jobs(config: FnoRunConfig) -> list[FnoJob]:
    """One job per variant and seed, a variant's seeds in a row. Raises UsageError for whatever is wrong."""
    operator, match = config.operator, config.choice.match
    return [
        FnoJob(
            model=operator.model,
            network=network,
            data=operator.samples,
            seed=seed,
            training=operator.training,
            kind="" if network.variant == "mlp" or match == "none" else match,
        )
        for network in map(config.network, config.choice.variants)
        for seed in seed_range(config)
    ]
