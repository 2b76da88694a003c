"""Settings of the comparisons on equal terms, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.ode import available_systems
from kansciml.runs.config_json import with_settings
from kansciml.runs.settings import COUNTS_IF_SET, seed_range
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.training.flat import FlatTraining

SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
IMAGES, DARCY = "images", "darcy"
TASKS = (*SYSTEMS, IMAGES, DARCY)
PROTOCOLS = ("width", "params", "flops", "time")
"""Equal hidden widths; KANs shrunk to the MLPs' parameters, or operations; the cheaper model trained longer."""
GROWN = ("params-up", "flops-up")
"""MLPs widened to the parameters, or operations, of the KANs of equal width."""
LAYERS = ("spline", "rswaf")
MIXER = "mixer-nano"


@dataclass(frozen=True)
class FairConfig:
    """Settings of the comparisons on equal terms."""

    tasks: tuple[str, ...] = TASKS
    """Systems of neural ODEs (names, or paths to .py files that define SYSTEM), images, darcy."""
    protocols: tuple[str, ...] = (*PROTOCOLS, *GROWN)
    """width, params, flops (KANs shrunk to the MLPs' size), params-up, flops-up (MLPs grown to the KANs'), time."""
    layers: tuple[str, ...] = ("spline",)
    """KAN layers: spline, rswaf (images and darcy alone)."""
    seeds: int = 15
    """Number of seeds, one after the other. Fewer than 6 decide nothing."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    alpha: float = 0.05
    """Level of the tests and, as 1 - alpha, of the intervals."""
    hidden: tuple[int, ...] = ()
    """Hidden widths of neural ODEs; none: each system's own (50)."""
    grid: int | None = None
    """Grid intervals of splines (default 5), or points of RSWAF (8)."""
    spline_order: int = 3
    """Order of the splines."""
    rtol: float = 1e-7
    """Relative tolerance of the ODE solver in training."""
    atol: float = 1e-7
    """Absolute tolerance of the ODE solver in training."""
    training: FlatTraining = FlatTraining(adam_steps=5000, final_learning_rate=1e-3, lbfgs_steps=20000)
    """Of neural ODEs: Adam, then L-BFGS."""
    images_dataset: str = "digits"
    """digits, mnist, cifar10 or cifar100."""
    images_data_dir: Path | None = field(default=None, compare=False)
    """Folder with the unpacked official files (default: that in KANSCIML_DATA, else the cache, else a download)."""
    images_subset: int | None = None
    """Train on so many images, the same number of every class (default: all)."""
    images_patch: int | None = None
    """Height and width of a patch of the mixer (default: 4)."""
    images_width: int | None = None
    """Features per patch (default: 128)."""
    images_depth: int | None = None
    """Number of blocks (default: 8)."""
    images_token_hidden: int | None = None
    """Hidden width over patches (default: 512)."""
    images_channel_hidden: int | None = None
    """Hidden width over features (default: 64)."""
    images_epochs: int = 20
    """Passes over the training images."""
    images_batch_size: int = 128
    """Images in one step."""
    images_learning_rate: float = 1e-3
    """Largest learning rate of AdamW, on a cosine."""
    images_warmup: float = 1.0
    """Epochs in which the learning rate rises."""
    images_weight_decay: float = 0.05
    """Of AdamW, on weights alone."""
    images_augmentation: str = "light"
    """none, light (crop, flip), mixer (light, colour, erasing, CutMix) or paper (3-Augment, mixup, CutMix)."""
    images_label_smoothing: float = 0.0
    """Share of the target spread over all classes, in training."""
    darcy_model: str = "fno-wt"
    """fno-wt (weight-tied), fno-injection, fno-plain or fno-original."""
    darcy_residual: bool = False
    """Add the state to the output of every block."""
    darcy_data: Path | None = None
    """Released MATLAB file of training samples (default: samples are generated)."""
    darcy_test_data: Path | None = None
    """Released MATLAB file of test samples (default: those of the same file that follow the training samples)."""
    darcy_data_dir: Path | None = field(default=None, compare=False)
    """Folder of generated data sets (default: as kansciml darcy has it, the user's cache)."""
    darcy_resolution: int = 421
    """Nodes along each side of the grid on which the equation is solved, or of the file."""
    darcy_subsample: int = 5
    """Every how many-th node is trained on: of 421, 5 leaves 85, 10 leaves 43, 15 leaves 29."""
    darcy_n_train: int = 1024
    """Training samples."""
    darcy_n_test: int = 500
    """Test samples."""
    darcy_data_seed: int = 0
    """Seed of generated samples."""
    darcy_epochs: int = 500
    """Passes over the training samples."""
    darcy_batch_size: int = 32
    """Samples in one step."""
    darcy_learning_rate: float = 1e-3
    """Largest learning rate of AdamW, on a cosine."""
    darcy_weight_decay: float = 1e-4
    """Of AdamW, on weights alone."""
    darcy_width: int | None = None
    """Features per point (default: 32)."""
    darcy_modes: tuple[int, int] | None = None
    """Fourier modes along each side (default: 12 12)."""
    darcy_iterations: int | None = None
    """Times the blocks are applied (default: 12 of fno-wt)."""
    darcy_projection: int | None = None
    """Hidden width of the projection (default: 128)."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps, of images and darcy; neural ODEs run on the processor."""

    def __post_init__(self) -> None:
        _check_names("task", self.tasks, None)
        _check_names("protocol", self.protocols, (*PROTOCOLS, *GROWN))
        _check_names("KAN layer", self.layers, LAYERS)
        for task in self.tasks:
            if task not in (IMAGES, DARCY) and not task.endswith(".py") and task not in available_systems():
                raise unknown_name("task", task, (*available_systems(), IMAGES, DARCY))
        if self.seeds < 1:
            raise UsageError(f"got seeds {self.seeds}: expected at least 1, and at least 6 to decide anything")
        seed_range(self)
        if not 0 < self.alpha < 1:
            raise UsageError(f"got alpha {self.alpha}: expected a number between 0 and 1, such as 0.05")
        for name in ("rtol", "atol"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"got {name} {getattr(self, name)}: expected a number between 0 and 1, such as 1e-7")
        if "spline" not in self.layers and set(self.tasks) - {IMAGES, DARCY}:
            raise UsageError(
                f"got layers {', '.join(self.layers)} with neural ODEs, whose KANs are splines: add spline"
            )

    def inputs(self) -> list[str]:
        """What systems' files define: the data that they read count, not only their text."""
        return file_fingerprints(self.tasks)

    def images(self, variant: str, match: str = "none") -> VisionRunConfig:
        """Settings of a mixer, for one seed.

        Raises:
            UsageError: a value out of range.
        """
        return with_settings(VisionRunConfig(MIXER), {"variant": variant, "match": match, **self._of(IMAGES)})

    def darcy(self, variant: str, match: str = "none") -> FnoRunConfig:
        """Settings of a neural operator, for one seed.

        Raises:
            UsageError: a value out of range.
        """
        return with_settings(FnoRunConfig(), {"variant": variant, "match": match, **self._of(DARCY)})

    def _of(self, prefix: str) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name.startswith(f"{prefix}_")}
        same = ("grid", "spline_order", "accelerator")
        return {name.removeprefix(f"{prefix}_"): value for name, value in own.items()} | {
            name: getattr(self, name) for name in same
        }


def _check_names(kind: str, names: tuple[str, ...], valid: tuple[str, ...] | None) -> None:
    if not names or len(set(names)) < len(names):
        raise UsageError(f"got {kind}s {', '.join(names) or '(none)'}: expected one or more different ones")
    for name in names:
        if valid is not None and name not in valid:
            raise unknown_name(kind, name, valid)
