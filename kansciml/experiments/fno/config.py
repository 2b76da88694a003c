"""Settings of a training of neural operators on Darcy flow, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.analysis.matching import MEASURES, matched
from kansciml.experiments.fno.data import FieldsSpec
from kansciml.layers.spectral_conv import fourier_basis
from kansciml.models.base import VARIANTS
from kansciml.models.fno import FNOConfig
from kansciml.models.registry import find
from kansciml.runs.settings import COUNTS_IF_SET
from kansciml.tasks.darcy.config import DarcyConfig, check_subsample
from kansciml.training.loop import TrainConfig

SETS = {"both": ("mlp", "kan-spline"), "all": VARIANTS}
SIZES = ("width", "modes", "iterations", "blocks", "projection", "kan_hidden")
"""Fields that are passed on to the model where they are given."""
KAN_SIZES = ("grid", "spline_order", "grid_range")


@dataclass(frozen=True)
class FnoRunConfig:
    """Settings of `kansciml fno`."""

    model: str = "fno-wt"
    """fno-wt (weight-tied), fno-deq (in equilibrium), fno-injection, fno-plain or fno-original."""
    variant: str = "both"
    """Lift and projection: mlp, kan-spline, kan-rswaf, both (mlp and kan-spline), or all."""
    residual: bool = False
    """Add the state to the output of every block: z <- z + block(z)."""
    data: Path | None = None
    """Released MATLAB file of training samples (default: samples are generated)."""
    test_data: Path | None = None
    """Released MATLAB file of test samples (default: those of --data that follow the training samples)."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder of generated data sets (default: as kansciml darcy has it, the user's cache)."""
    resolution: int = 421
    """Nodes along each side of the grid on which the equation is solved, or of the file."""
    subsample: int = 10
    """Every how many-th node is trained on: of 421, 5 leaves 85, 10 leaves 43, 15 leaves 29."""
    eval_subsamples: tuple[int, ...] = ()
    """Other subsamples at which the trained networks are tested too: 2 tests at 211 of 421."""
    n_train: int = 256
    """Training samples."""
    n_test: int = 64
    """Test samples."""
    data_seed: int = 0
    """Seed of generated samples."""
    seeds: int = 1
    """Number of seeds, one after the other."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    epochs: int = 10
    """Passes over the training samples."""
    batch_size: int = 16
    """Samples in one step of all devices together."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    min_lr: float = 0.0
    """Learning rate at the end."""
    schedule: str = "cosine"
    """cosine, constant or onecycle."""
    warmup: float = 0.0
    """Epochs in which the learning rate rises."""
    weight_decay: float = 1e-4
    """Of AdamW, on weights alone."""
    clip: float | None = None
    """Largest norm of the gradient."""
    width: int | None = None
    """Features per point (default: the model's, 32)."""
    modes: tuple[int, int] | None = None
    """Fourier modes along each side (default: the model's, 12 12)."""
    iterations: int | None = None
    """Times the blocks are applied (default: the model's, 12 of fno-wt)."""
    blocks: int | None = None
    """Blocks of three Fourier layers (default: the model's, 1)."""
    projection: int | None = None
    """Hidden width of the projection (default: the model's, 128)."""
    kan_hidden: tuple[int, ...] | None = None
    """Hidden width of the projection's KAN (default: that of the MLP)."""
    grid: int | None = None
    """Grid intervals of splines (default 5), or points of RSWAF (8)."""
    spline_order: int = 3
    """Order of the splines."""
    grid_range: tuple[float, float] | None = None
    """Interval that the grid covers (default: the layer's)."""
    match: str = field(default="none", metadata=COUNTS_IF_SET)
    """Hidden width of the projection's KAN: none (the MLP's), or params or flops, for as many of them in lift and
    projection as the MLPs have there."""
    recompute: bool = False
    """Keep only the state between the iterations, and compute the rest again for the backward pass: less memory."""
    precision: str = "32"
    """32, bf16-mixed or 64."""
    compile: bool = False
    """Run through torch.compile."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps; several devices: torchrun --nproc-per-node 4 -m kansciml fno ..."""
    tensorboard: bool = field(default=False, compare=False)
    """Write TensorBoard events too."""

    def __post_init__(self) -> None:
        find(self.model, kind="operator")
        if self.variant not in (*VARIANTS, *SETS):
            raise unknown_name("variant", self.variant, (*VARIANTS, *SETS))
        if self.match not in ("none", *MEASURES):
            raise unknown_name("match", self.match, ("none", *MEASURES))
        if self.match != "none" and self.variant == "mlp":
            raise UsageError(f"got match {self.match} with variant mlp: expected a KAN variant, which is matched to it")
        if self.match != "none" and self.kan_hidden is not None:
            raise UsageError(f"got match {self.match} and kan_hidden {self.kan_hidden}: expected one of them")
        for name, least in (("seeds", 1), ("n_train", 2), ("n_test", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"got {name} {getattr(self, name)}: expected at least {least}")
        if self.batch_size > self.n_train:
            raise UsageError(f"got batch_size {self.batch_size}: expected at most the {self.n_train} training samples")
        if self.test_data is not None and self.data is None:
            raise UsageError("got test_data without data: expected both files, or neither")
        for path in (self.data, self.test_data):
            if path is not None and not path.expanduser().is_file():
                raise UsageError(f"{path} does not exist: expected a MATLAB file with variables coeff and sol")
        for factor in self.eval_subsamples:
            check_subsample(self.resolution, factor)
        if len({self.subsample, *self.eval_subsamples}) != 1 + len(self.eval_subsamples):
            raise UsageError(
                f"got subsample {self.subsample}, eval_subsamples {self.eval_subsamples}: expected different ones"
            )
        self.fields()
        self.training()

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants to train, the MLP first."""
        return SETS.get(self.variant, (self.variant,))

    def fields(self) -> FieldsSpec:
        """The samples.

        Raises:
            UsageError: a subsample that does not divide resolution - 1, or another value out of range.
        """
        darcy = DarcyConfig(self.resolution, self.subsample, self.n_train, self.n_test, self.data_seed)
        return FieldsSpec(darcy, self.data, self.test_data, self.data_dir)

    def training(self) -> TrainConfig:
        """Settings of the loop.

        Raises:
            UsageError: a value out of range.
        """
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup,
            schedule=self.schedule,
            min_lr=self.min_lr,
            clip_norm=self.clip,
            precision=self.precision,
            compile=self.compile,
            accelerator=self.accelerator,
            tensorboard=self.tensorboard,
            monitor="relative_l2",
            checkpoint_epochs=max(1, self.epochs // 10),  # and every ten minutes, and when interrupted
        )

    def network(self, variant: str) -> FNOConfig:
        """Configuration of the network.

        Raises:
            UsageError: sizes that do not fit or cannot be matched, or more modes than one of the grids has.
        """
        model, preset = find(self.model, kind="operator")
        options: dict[str, Any] = {
            name: getattr(self, name)
            for name in SIZES
            if getattr(self, name) is not None and (name != "kan_hidden" or variant != "mlp")
        }
        if variant != "mlp":
            options |= {name: getattr(self, name) for name in KAN_SIZES}
        spec = self.fields()
        options |= {"residual": self.residual, "recompute": self.recompute, "resolution": spec.darcy.size}
        network = model.config(preset, variant, **options)
        for factor in (self.subsample, *self.eval_subsamples):
            points = spec.at(factor).darcy.size + network.padding
            try:
                fourier_basis((points, points), network.modes)
            except ValueError as error:
                raise UsageError(f"subsample {factor}, with padding {network.padding}: {error}") from None
        return network if variant == "mlp" or self.match == "none" else matched(network, self.match)
