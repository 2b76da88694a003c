"""Settings of a training of neural operators on Darcy flow, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from kansciml._errors import UsageError
from kansciml.experiments.minibatch.config import MinibatchConfig, VariantChoice
from kansciml.models.fno import FNOConfig
from kansciml.models.registry import find
from kansciml.runs.settings import part
from kansciml.tasks.darcy.config import DarcyConfig, check_subsample
from kansciml.training.loop import TrainConfig


@dataclass(frozen=True)
class SamplesConfig:
    """Where the samples of Darcy flow come from: generated, or from released files."""

    darcy: DarcyConfig = part(
        DarcyConfig(subsample=10, n_train=256, n_test=64), later=("low", "high", "tau", "alpha", "forcing", "solver")
    )
    data: Path | None = None
    """Released MATLAB file of training samples (default: samples are generated)."""
    test_data: Path | None = None
    """Released MATLAB file of test samples (default: those of --data that follow the training samples)."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder of generated data sets (default: as kansciml darcy has it, the user's cache)."""
    eval_subsamples: tuple[int, ...] = ()
    """Other subsamples at which the trained networks are tested too: 2 tests at 211 of 421."""

    def __post_init__(self) -> None:
        if self.test_data is not None and self.data is None:
            raise UsageError("got test_data without data: expected both files, or neither")
        for path in (self.data, self.test_data):
            if path is not None and not path.expanduser().is_file():
                raise UsageError(f"{path} does not exist: expected a MATLAB file with variables coeff and sol")
        for factor in self.eval_subsamples:
            check_subsample(self.darcy.resolution, factor)
        if len({self.darcy.subsample, *self.eval_subsamples}) != 1 + len(self.eval_subsamples):
            raise UsageError(
                f"got subsample {self.darcy.subsample}, eval_subsamples {self.eval_subsamples}: expected different ones"
            )

    @property
    def name(self) -> str:
        """``darcy43``."""
        return f"darcy{self.darcy.size}"

    @property
    def n_train(self) -> int:
        """Number of training samples."""
        return self.darcy.n_train

    def at(self, subsample: int) -> SamplesConfig:
        """The same samples on another grid alone."""
        return replace(self, darcy=replace(self.darcy, subsample=subsample), eval_subsamples=())

    def for_tests(self) -> SamplesConfig:
        """Without training samples, where they are not needed for themselves: generated ones."""
        return self if self.data is not None else replace(self, darcy=replace(self.darcy, n_train=0))


@dataclass(frozen=True)
class OperatorSizes:
    """Sizes and options of neural operators; those that are not given are the model's."""

    width: int | None = None
    """Features per point (default: the model's, 32)."""
    modes: tuple[int, int] | None = None
    """Fourier modes along each side (default: the model's, 12 12)."""
    iterations: int | None = None
    """Times the blocks are applied (default: the model's, 12 of fno-wt)."""
    blocks: int | None = None
    """Blocks of three Fourier layers (default: the model's, 1)."""
    projection: int | None = None
    """Hidden width of the projection (default: the model's, 128); that of its KAN is --kan-hidden."""
    recompute: bool = False
    """Keep only the state between the iterations, and compute the rest again for the backward pass: less memory."""


@dataclass(frozen=True)
class OperatorConfig(MinibatchConfig):
    """How neural operators are trained, whichever their lift and projection."""

    training: TrainConfig = part(
        TrainConfig(batch_size=16, weight_decay=1e-4, clip=None), later=("ema", "channels_last")
    )
    model: str = "fno-wt"
    """fno-wt (weight-tied), fno-deq (in equilibrium), fno-injection, fno-plain or fno-original."""
    samples: SamplesConfig = part(SamplesConfig())
    sizes: OperatorSizes = part(OperatorSizes())

    def __post_init__(self) -> None:
        find(self.model, kind="operator")
        if self.training.channels_last:
            raise UsageError("got channels_last: expected images, since the spectral weights of operators have none")
        darcy = self.samples.darcy
        for name, n, least in (("n_train", darcy.n_train, 2), ("n_test", darcy.n_test, 1)):
            if n < least:
                raise UsageError(f"got {name} {n}: expected at least {least}")
        self.check_batch(darcy.n_train, "samples")

    def network(self, variant: str, match: str = "none", residual: bool = False) -> FNOConfig:
        """Configuration of a network for the samples.

        Raises:
            UsageError: sizes that do not fit or cannot be matched, or more modes than one of the grids has.
        """
        darcy = self.samples.darcy
        options = {**vars(self.sizes), "residual": residual, "resolution": darcy.size}
        network: FNOConfig = self.build_config(self.model, "operator", variant, match, options)
        for factor in (darcy.subsample, *self.samples.eval_subsamples):
            network.check_side(self.samples.at(factor).darcy.size, f"subsample {factor}")
        return network


@dataclass(frozen=True)
class FnoRunConfig:
    """Settings of `kansciml fno`."""

    choice: VariantChoice = part(VariantChoice(), later=("match",))
    residual: bool = False
    """Add the state to the output of every block: z <- z + block(z)."""
    operator: OperatorConfig = part(OperatorConfig())

    def network(self, variant: str) -> FNOConfig:
        """Configuration of the network, as `OperatorConfig.network`."""
        return self.operator.network(variant, self.choice.match, self.residual)
