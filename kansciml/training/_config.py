"""Settings of the training loop, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from kansciml._errors import UsageError, unknown_name
from kansciml.training.optim import SCHEDULES

PRECISIONS = ("32", "bf16-mixed", "64")
ACCELERATORS = ("auto", "cpu", "cuda", "mps")

EXECUTION = (
    "compile", "log_every", "tensorboard", "checkpoint_epochs", "checkpoint_steps", "checkpoint_minutes", "accelerator",
)  # fmt: skip
"""Fields that say how a run is executed, not what it computes: a resumed run may change them."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training that its user chooses.

    Raises:
        UsageError: a value out of range or an unknown name.
    """

    epochs: int = 10
    """Passes over the training samples."""
    batch_size: int = 128
    """Samples in one step of all devices together."""
    learning_rate: float = 1e-3
    """Largest learning rate of AdamW."""
    min_lr: float = 0.0
    """Learning rate at the end."""
    schedule: str = "cosine"
    """cosine, constant or onecycle."""
    warmup: float = 0.0
    """Epochs, also parts of one, in which the learning rate rises."""
    weight_decay: float = 0.05
    """Of AdamW, on weights alone."""
    clip: float | None = 1.0
    """Largest norm of the gradient."""
    ema: float | None = None
    """Decay of an average of the weights that is evaluated and kept instead of the last ones, such as 0.999."""
    precision: str = "32"
    """32, bf16-mixed (weights in float32, autocast to bfloat16) or 64."""
    compile: bool = False
    """Run through torch.compile."""
    channels_last: bool = False
    """Channels-last layout of images and convolutions."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps; several devices: torchrun --nproc-per-node 4 -m kansciml ..."""
    tensorboard: bool = field(default=False, compare=False)
    """Write TensorBoard events too."""

    def __post_init__(self) -> None:
        _check_names(self, schedule=SCHEDULES, precision=PRECISIONS, accelerator=ACCELERATORS)
        _check_whole(self, epochs=1, batch_size=1)
        _check_at_least_0(self, "weight_decay", "warmup", "min_lr")
        if not 0 < self.learning_rate < math.inf or self.min_lr > self.learning_rate:
            raise UsageError(
                f"got learning_rate {self.learning_rate}, min_lr {self.min_lr}: expected a positive learning rate and"
                " a min_lr that is not larger"
            )
        if self.warmup > self.epochs:
            raise UsageError(f"got warmup {self.warmup}: expected at most the {self.epochs} epochs")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise UsageError(f"got clip {self.clip}: expected a positive number, or none to leave it out")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"got ema {self.ema}: expected a number in (0, 1), or none to leave it out")


@dataclass(frozen=True)
class LoopConfig(TrainConfig):
    """`TrainConfig` with what the caller of the loop decides: seed, log, checkpoints, what is best.

    Args:
        seed: of dropout, drop-path and all else that draws from torch's global generator inside a step (default 0).
        log_every: steps between two rows of the log, and between two readings of the device (default 50).
        monitor: metric that says which epoch is best: a key of `evaluate`'s result, or without `evaluate` of the
            training metrics (default ``"loss"``).
        monitor_mode: ``"min"`` (default) or ``"max"``.
        checkpoint_epochs: epochs between two checkpoints (default 1; 0: none).
        checkpoint_steps: steps between two checkpoints, in addition (default 0: none).
        checkpoint_minutes: minutes after which a checkpoint is due at the next row of the log (default 10; 0: none).
    """

    seed: int = 0
    log_every: int = 50
    monitor: str = "loss"
    monitor_mode: str = "min"
    checkpoint_epochs: int = 1
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names(self, monitor_mode=("min", "max"))
        _check_whole(self, log_every=1, checkpoint_epochs=0, checkpoint_steps=0, seed=0)
        _check_at_least_0(self, "checkpoint_minutes")


def _check_names(config: TrainConfig, **valid: Sequence[str]) -> None:
    for name, names in valid.items():
        if getattr(config, name) not in names:
            raise unknown_name(name, getattr(config, name), names)


def _check_whole(config: TrainConfig, **least: int) -> None:
    for name, smallest in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise UsageError(f"got {name} {value!r}: expected a whole number of at least {smallest}")


def _check_at_least_0(config: TrainConfig, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise UsageError(f"got {name} {getattr(config, name)}: expected a finite number of at least 0")
