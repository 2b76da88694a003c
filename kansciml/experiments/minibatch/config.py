"""Settings that trainings of image classifiers and of neural operators have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kansciml._errors import UsageError, check_name
from kansciml.analysis.matching import MEASURES, matched
from kansciml.models.base import VARIANTS
from kansciml.models.registry import find
from kansciml.runs.settings import COUNTS_IF_SET, part
from kansciml.training.loop import TrainConfig

SETS = {"both": ("mlp", "kan-spline"), "all": VARIANTS}


@dataclass(frozen=True)
class VariantChoice:
    """Which variants of a model are trained."""

    variant: str = "both"
    """mlp, kan-spline, kan-rswaf, both (mlp and kan-spline), or all."""
    match: str = "none"
    """Hidden widths of the KANs: none (as published), or params or flops, for as many of them as the MLPs have."""

    def __post_init__(self) -> None:
        check_name("variant", self.variant, (*VARIANTS, *SETS))
        check_name("match", self.match, ("none", *MEASURES))
        if self.match != "none" and self.variant == "mlp":
            raise UsageError(f"got match {self.match} with variant mlp: expected a KAN variant, which is matched to it")

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants to train, the MLP first."""
        return SETS.get(self.variant, (self.variant,))


@dataclass(frozen=True)
class KanConfig:
    """The KANs in the place of a model's MLPs."""

    kan_hidden: tuple[int, ...] | None = None
    """Hidden width of each kind of KAN (default: the model's)."""
    grid: int | None = None
    """Grid intervals of splines (default 5), or points of RSWAF (8)."""
    spline_order: int = 3
    """Order of the splines."""
    grid_range: tuple[float, float] | None = None
    """Interval that the grid covers (default: the layer's)."""


@dataclass(frozen=True)
class MinibatchConfig:
    """What all trainings on minibatches have: seeds, KANs, and the training loop."""

    seeds: int = 1
    """Number of seeds, one after the other. Fewer than 6 decide nothing, 12 decide one claim of a hundred."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    kan: KanConfig = part(KanConfig())
    training: TrainConfig = part(TrainConfig())

    def check_batch(self, n: int, what: str) -> None:
        """Refuse a batch of more than the `n` training images or samples."""
        if self.training.batch_size > n:
            raise UsageError(f"got batch_size {self.training.batch_size}: expected at most the {n} training {what}")

    def build_config(self, model: str, kind: str, variant: str, match: str, options: Mapping[str, Any]) -> Any:
        """The configuration of a network: `options` that are not None, and for KANs those of `kan`.

        Raises:
            UsageError: sizes that do not fit, or that this model does not have, or cannot be matched.
        """
        if match != "none" and self.kan.kan_hidden is not None:
            raise UsageError(f"got match {match} and kan_hidden {self.kan.kan_hidden}: expected one of them")
        family, preset = find(model, kind=kind)
        given = {name: value for name, value in options.items() if value is not None}
        config = family.config(preset, variant, **given, **(asdict(self.kan) if variant != "mlp" else {}))
        return config if variant == "mlp" or match == "none" else matched(config, match)
