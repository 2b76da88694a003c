"""Settings of the training loop, checked where they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kansciml._errors import UsageError, unknown_name
from kansciml.training.optim import SCHEDULES

PRECISIONS = ("32", "bf16-mixed", "64")
ACCELERATORS = ("auto", "cpu", "cuda", "mps")
STRATEGIES = ("auto", "ddp")

EXECUTION = (
    "compile",
    "log_every",
    "tensorboard",
    "checkpoint_epochs",
    "checkpoint_steps",
    "checkpoint_minutes",
    "accelerator",
    "devices",
    "strategy",
)
"""Fields that say how a run is executed, not what it computes: a resumed run may change them."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training.

    Args:
        epochs: passes over the batches (default 10).
        batch_size: samples in one step of all devices together (default 128). The caller makes the batches; here it
            describes the run.
        learning_rate: the largest one (default 1e-3).
        weight_decay: of AdamW, on weights alone (default 0.05; see `kansciml.training.optim.parameter_groups`).
        betas: of AdamW (default 0.9, 0.999).
        warmup_epochs: epochs, also parts of one, in which the learning rate rises (default 0).
        schedule: ``"cosine"`` (default), ``"constant"`` or ``"onecycle"`` (see `kansciml.training.optim.rate`).
        min_lr: learning rate at the end (default 0).
        clip_norm: largest norm of the gradient, None: not clipped (default 1.0).
        ema_decay: keep an exponential moving average of the weights, which is what `evaluate` sees; None: not
            (default).
        precision: ``"32"`` (default), ``"bf16-mixed"`` (weights in float32, autocast to bfloat16) or ``"64"``.
        compile: run the model through torch.compile (default no).
        channels_last: four-dimensional weights and inputs in channels-last layout (default no).
        seed: of dropout, drop-path and all else that draws from torch's global generator inside a step (default 0).
        log_every: steps between two rows of the log, and between two readings of the device (default 50).
        tensorboard: write TensorBoard events too (default no).
        monitor: metric that says which epoch is best: a key of `evaluate`'s result, or without `evaluate` of the
            training metrics (default ``"loss"``).
        monitor_mode: ``"min"`` (default) or ``"max"``.
        checkpoint_epochs: epochs between two checkpoints (default 1; 0: none).
        checkpoint_steps: steps between two checkpoints, in addition (default 0: none).
        checkpoint_minutes: minutes after which a checkpoint is due at the next row of the log (default 10; 0: none).
        accelerator: ``"auto"`` (default), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: devices of this machine (default 1). Under torchrun its number of processes counts instead.
        strategy: ``"auto"`` (default: DDP on several devices) or ``"ddp"``.

    Raises:
        UsageError: a value out of range or an unknown name.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    min_lr: float = 0.0
    clip_norm: float | None = 1.0
    ema_decay: float | None = None
    precision: str = "32"
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    log_every: int = 50
    tensorboard: bool = False
    monitor: str = "loss"
    monitor_mode: str = "min"
    checkpoint_epochs: int = 1
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name, valid in (
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("accelerator", ACCELERATORS),
            ("strategy", STRATEGIES),
            ("monitor_mode", ("min", "max")),
        ):
            if getattr(self, name) not in valid:
                raise unknown_name(name, getattr(self, name), valid)
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("log_every", 1),
            ("devices", 1),
            ("checkpoint_epochs", 0),
            ("checkpoint_steps", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"got {name} {value!r}: expected a whole number of at least {least}")
        for name in ("weight_decay", "warmup_epochs", "min_lr", "checkpoint_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"got {name} {getattr(self, name)}: expected a finite number of at least 0")
        if not 0 < self.learning_rate < math.inf or self.min_lr > self.learning_rate:
            raise UsageError(
                f"got learning_rate {self.learning_rate}, min_lr {self.min_lr}: expected a positive learning rate and"
                " a min_lr that is not larger"
            )
        if self.warmup_epochs > self.epochs:
            raise UsageError(f"got warmup_epochs {self.warmup_epochs}: expected at most the {self.epochs} epochs")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"got betas {self.betas}: expected two numbers in [0, 1)")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise UsageError(f"got clip_norm {self.clip_norm}: expected a positive number, or none to leave it out")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"got ema_decay {self.ema_decay}: expected a number in (0, 1), or none to leave it out")
