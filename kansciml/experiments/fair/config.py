"""Settings of the comparisons on equal terms, checked where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kansciml._errors import UsageError, check_names, unknown_name
from kansciml.experiments.fno.config import FnoRunConfig
from kansciml.experiments.fno.experiment import PAPER
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.ode.config import RunConfig
from kansciml.experiments.vision.config import ClassifierConfig, VisionRunConfig
from kansciml.ode import available_systems
from kansciml.runs.config_json import excerpt, with_settings
from kansciml.runs.settings import part
from kansciml.tasks.ode.registry import file_fingerprints
from kansciml.training.flat import FlatTraining

SYSTEMS = ("lotka", "fitzhugh", "rigid", "spiral", "pleiades")
IMAGES, DARCY = "images", "darcy"
PROTOCOLS = ("width", "params", "flops", "time")
"""Equal hidden widths; KANs shrunk to the MLPs' parameters, or operations; the cheaper model trained longer."""
LAYERS = ("spline", "rswaf")
MIXER = "mixer-nano"

_Ode: Any = excerpt(
    RunConfig(seeds=15, backend="torch", training=FlatTraining(5000, final_learning_rate=1e-3, lbfgs_steps=20000)),
    ("seeds", "first_seed", "backend", "sensealg", "rtol", "atol", "training"),
)
_Kan: Any = excerpt(ClassifierConfig(), ("grid", "spline_order"))
_Images: Any = excerpt(
    ClassifierConfig(),
    ("dataset", "data_dir", "subset", "patch", "width", "depth", "token_hidden", "channel_hidden", "epochs",
     "batch_size", "learning_rate", "warmup", "weight_decay", "augmentation", "label_smoothing"),
    prefix="images_",
)  # fmt: skip
_Darcy: Any = excerpt(
    with_settings(FnoRunConfig(), PAPER),
    ("model", "residual", "data", "test_data", "data_dir", "resolution", "subsample", "n_train", "n_test", "data_seed",
     "epochs", "batch_size", "learning_rate", "weight_decay", "width", "modes", "iterations", "projection"),
    prefix="darcy_",
)  # fmt: skip


class OdeSettings(_Ode):
    """How neural ODEs are trained, and the seeds of all."""


class KanSettings(_Kan):
    """The KANs of all tasks."""


class ImagesSettings(_Images):
    """Of the image classifiers."""


class DarcySettings(_Darcy):
    """Of the neural operators."""


@dataclass(frozen=True)
class FairConfig:
    """Settings of the comparisons on equal terms."""

    tasks: tuple[str, ...] = (*SYSTEMS, IMAGES, DARCY)
    """Systems of neural ODEs (names, or paths to .py files that define SYSTEM), images, darcy."""
    protocols: tuple[str, ...] = PROTOCOLS
    """width, params, flops (KANs shrunk to the MLPs' size), time."""
    layers: tuple[str, ...] = ("spline",)
    """KAN layers: spline, rswaf (images and darcy alone)."""
    alpha: float = 0.05
    """Level of the tests and, as 1 - alpha, of the intervals."""
    hidden: tuple[int, ...] = ()
    """Hidden widths of neural ODEs; none: each system's own (50)."""
    ode: OdeSettings = part(OdeSettings(), later=("backend", "sensealg"))
    kan: KanSettings = part(KanSettings())
    images: ImagesSettings = part(ImagesSettings())
    darcy: DarcySettings = part(DarcySettings())
    accelerator: str = "auto"
    """auto, cpu, cuda or mps, of images and darcy; neural ODEs run on the processor."""

    def __post_init__(self) -> None:
        check_names("task", self.tasks)
        for protocol in self.protocols:
            if protocol in ("params-up", "flops-up"):
                raise UsageError(f"protocol {protocol} is gone: params and flops shrink the KANs to the MLPs' size")
        check_names("protocol", self.protocols, PROTOCOLS)
        check_names("KAN layer", self.layers, LAYERS)
        for task in self.tasks:
            if task not in (IMAGES, DARCY) and not task.endswith(".py") and task not in available_systems():
                raise unknown_name("task", task, (*available_systems(), IMAGES, DARCY))
        if not 0 < self.alpha < 1:
            raise UsageError(f"got alpha {self.alpha}: expected a number between 0 and 1, such as 0.05")
        self.ode.whole()
        if "spline" not in self.layers and self.systems:
            raise UsageError(
                f"got layers {', '.join(self.layers)} with neural ODEs, whose KANs are splines: add spline"
            )

    @property
    def systems(self) -> tuple[str, ...]:
        """The tasks that are neural ODEs."""
        return tuple(task for task in self.tasks if task not in (IMAGES, DARCY))

    def inputs(self) -> list[str]:
        """What systems' files define: the data that they read count, not only their text."""
        return file_fingerprints(self.tasks)

    def classifier(self, variant: str, match: str = "none") -> VisionRunConfig:
        """Settings of a mixer. Raises UsageError for a value out of range."""
        config = VisionRunConfig(MIXER, VariantChoice(variant, match), classifier=self.images.whole())
        return with_settings(config, self._shared)

    def neural_operator(self, variant: str, match: str = "none") -> FnoRunConfig:
        """Settings of a neural operator. Raises UsageError for a value out of range."""
        return with_settings(self.darcy.whole(), {"variant": variant, "match": match, **self._shared})

    @property
    def _shared(self) -> dict[str, Any]:
        return {**vars(self.kan), "accelerator": self.accelerator}
