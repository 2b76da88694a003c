"""Table 1: vision transformers of DeiT's sizes on CIFAR-100, with MLPs, splines and RSWAF KANs.

Command: ``kansciml run table1 --preset small``.
Paper: "MLPs outperform KANs by a margin of 8-12 % while requiring significantly less parameters"; in the text 10 to
12 % for splines, 8 to 10 % for RSWAF. Its own rows say 10.9 and 12.6 (splines), 11.0 and 7.8 (RSWAF).
Two protocols: ``paper``, as the code that the paper names has it (KANs of hidden width 192 without biases on queries,
keys and values and without drop-path, all starting from ImageNet weights where given, which KANs have none of), and
``fair``: everything from scratch, the same biases and drop-path, and KANs with as many parameters, or operations, as
the MLPs. Parameters, operations and memory of all printed rows are computed in every preset; nothing is trained for
them. Expected, exactly: 5,543,716, 21,704,164 and 85,875,556 parameters with MLPs; KANs 14,384,164 and 39,385,060
(splines), 12,624,100 and 35,860,132 (RSWAF), of which 3,550,464 and 14,178,816 are MLPs that are never called.
Cost on one core: ``smoke`` half a minute; ``small`` (digits, a quarter of the width, 4 blocks) ten minutes; ``paper``
is for GPUs: 60 trainings of 300 epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kansciml._errors import UsageError, unknown_name
from kansciml.analysis.matching import MEASURES
from kansciml.experiments.minibatch.jobs import network_of
from kansciml.experiments.table1.costs import PRINTED, SIZES, costs, printed_variants, published_rows
from kansciml.experiments.table1.findings import findings
from kansciml.experiments.table1.record import SCRATCH
from kansciml.experiments.table1.report import render, summary
from kansciml.experiments.vision.config import VisionRunConfig
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.scores import SCORING
from kansciml.experiments.vision.trained import trained_networks
from kansciml.models.deit import KAN_HIDDEN
from kansciml.models.registry import find
from kansciml.runs import ranks
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import Record
from kansciml.runs.settings import COUNTS_IF_SET
from kansciml.runs.trained import TrainedModel

PROTOCOLS = ("paper", "fair")
HEAD_WIDTH = 64
"""Features per head, of all sizes."""


@dataclass(frozen=True)
class Table1Config:
    """Settings of Table 1; the defaults are the preset ``paper``."""

    sizes: tuple[str, ...] = SIZES
    """Sizes to train: tiny, small, base (of which there is the MLP alone)."""
    protocols: tuple[str, ...] = PROTOCOLS
    """paper, fair, or both."""
    match: tuple[str, ...] = MEASURES
    """What KANs and MLPs of protocol fair have as many of: params, flops, or both in turn."""
    seeds: int = 4
    """Number of seeds, one after the other. Fewer than 4 decide nothing."""
    first_seed: int = field(default=0, metadata=COUNTS_IF_SET)
    """The first of those seeds: several processes or machines can share them out."""
    weights: tuple[Path, ...] = ()
    """Pretrained weights for protocol paper, a file per size (default: all from scratch)."""
    dataset: str = "cifar100"
    """cifar100, cifar10, mnist or digits."""
    data_dir: Path | None = field(default=None, compare=False)
    """Folder with the unpacked official files (default: that in KANSCIML_DATA, else the cache, else a download)."""
    subset: int | None = None
    """Train on so many images, the same number of every class (default: all)."""
    image_size: int = 224
    """Height and width that images are scaled to."""
    patch: int = 16
    """Height and width of a patch."""
    depth: int = 12
    """Number of blocks."""
    shrink: int = 1
    """Divide all widths by this: a divisor of 64, the features per head."""
    epochs: int = 300
    """Passes over the training images."""
    batch_size: int = 144
    """Images per step."""
    learning_rate: float = 5e-4
    """Largest learning rate of AdamW."""
    weight_decay: float = 0.05
    """Of AdamW, on weights alone."""
    warmup: float = 1.0
    """Epochs in which the learning rate rises."""
    augmentation: str = "paper"
    """none, light (crop, flip), mixer (light, colour, erasing, CutMix) or paper (3-Augment, mixup .8, CutMix 1)."""
    label_smoothing: float = 0.1
    """Share of the target spread over all classes, in training."""
    precision: str = "32"
    """32 or bf16-mixed."""
    compile: bool = False
    """Run through torch.compile."""
    accelerator: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        for name, given, valid in (
            ("size", self.sizes, SIZES), ("protocol", self.protocols, PROTOCOLS), ("match", self.match, MEASURES)
        ):  # fmt: skip
            if not given or len(set(given)) < len(given):
                raise UsageError(f"got {name} {given}: expected one or more different of {', '.join(valid)}")
            for value in given:
                if value not in valid:
                    raise unknown_name(name, value, valid)
        if self.shrink < 1 or HEAD_WIDTH % self.shrink:
            raise UsageError(f"got shrink {self.shrink}: expected a divisor of {HEAD_WIDTH}, such as 4")
        if self.weights and "paper" not in self.protocols:
            raise UsageError("got weights without protocol paper, the only one that starts from them: leave them out")
        if self.weights and len(self.weights) != len(self.sizes):
            raise UsageError(
                f"got {len(self.weights)} files of weights for sizes {', '.join(self.sizes)}: expected one for each"
            )

    def classifier(self, size: str, variant: str, match: str = "none") -> VisionRunConfig:
        """The settings of one row's trainings, for `kansciml.experiments.vision.experiment.jobs`; fair if matched."""
        shrunk: dict[str, Any] = {}
        if self.shrink > 1:
            model, preset = find(f"deit-{size}")
            shrunk = {"width": model.config(preset).width // self.shrink}
            shrunk |= {} if variant == "mlp" or match != "none" else {"kan_hidden": (KAN_HIDDEN // self.shrink,)}
        paired = dict(zip(self.sizes, self.weights)) if match == "none" else {}
        same = (
            "dataset", "data_dir", "subset", "seeds", "first_seed", "image_size", "patch", "depth", "epochs",
            "batch_size", "learning_rate", "weight_decay", "warmup", "augmentation", "label_smoothing", "precision",
            "compile", "accelerator",
        )  # fmt: skip
        settings = {name: getattr(self, name) for name in same} | shrunk | {"clip": None}
        chosen = {"variant": variant, "match": match, "fair": match != "none", "weights": paired.get(size)}
        return with_settings(VisionRunConfig(f"deit-{size}"), chosen | settings)


def rows(config: Table1Config) -> Iterator[tuple[str, str, VisionRunConfig]]:
    """Protocol (``paper+fair`` where one training serves both), group, and settings of every row to train."""
    scratch = bool(config.weights)
    for size in config.sizes:
        for variant in printed_variants(size):
            mlp = variant == "mlp"
            if "paper" in config.protocols or (mlp and not scratch):
                both = mlp and not scratch
                yield "+".join(config.protocols) if both else "paper", variant, config.classifier(size, variant)
            if "fair" not in config.protocols:
                continue
            if mlp and scratch:
                yield "fair", SCRATCH, replace(config.classifier(size, variant), weights=None)
            for by in () if mlp else config.match:
                yield "fair", f"{variant}-{by}", config.classifier(size, variant, by)


def jobs(config: Table1Config) -> list[VisionJob]:
    """One job per row and seed."""
    return [
        replace(job, kind="scratch") if group == SCRATCH else job
        for _, group, settings in rows(config)
        for job in vision_jobs(settings)
    ]


def check(config: Table1Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for number, (_, _, settings) in enumerate(rows(config)):
        check_vision(with_settings(settings, {"data_dir": None}) if number else settings)  # read the data once


def deviations(config: Table1Config) -> list[str]:
    """In what a configuration differs from the paper's, in words; without pretrained weights its numbers differ too."""
    paper = Table1Config()
    names = (
        "dataset", "subset", "image_size", "patch", "depth", "shrink", "epochs", "batch_size", "learning_rate",
        "weight_decay", "warmup", "augmentation",
    )  # fmt: skip
    found = [
        f"{name.replace('_', ' ')} {getattr(config, name)} instead of {getattr(paper, name) or 'all'}"
        for name in names
        if getattr(config, name) != getattr(paper, name)
    ]
    return found + ([] if config.weights else ["no pretrained weights"])


def run(config: Table1Config, context: RunContext) -> Result:
    result = ImageTrainer(context).run(jobs(config)).result
    if ranks.rank() > 0:
        return result
    protocols = {(settings.network_name, group): protocol for protocol, group, settings in rows(config)}
    for row in result.result["runs"]:
        row["protocol"] = protocols[row["model"], row["group"]]
        row["size"] = row["model"].removeprefix("deit-")
        if row["group"] == SCRATCH:
            row["label"] += ", from scratch"
        needs = costs(row["model"], network_of(row["model"], row["network"]), row["batch_size"])
        row |= {name: needs[name] for name in ("flops", "step_bytes", "kan_hidden")}
    kans = sum(row.variant != "mlp" for row in PRINTED)
    with context.progress.task("table1: memory of the printed rows", len(PRINTED) + kans * len(MEASURES)) as task:
        result.result["published"] = published_rows(MEASURES, task.update)
    result.result["deviations"] = deviations(config)
    return result


def trained(record: Record) -> list[TrainedModel]:
    """The networks of a finished run, for `kansciml hessian`; those of protocol fair against MLPs from scratch."""
    models = trained_networks(record)
    scratch = {model.task for model in models if model.group == SCRATCH}

    def against(model: TrainedModel) -> str | None:
        if model.group == SCRATCH:
            return None
        fair = model.group.endswith(MEASURES)
        return SCRATCH if fair and model.task in scratch else model.against

    return [replace(model, against=against(model)) for model in models]


EXPERIMENT = Experiment(
    name="table1",
    title="Vision transformers on CIFAR-100: MLPs, splines and RSWAF KANs, as printed and on equal terms",
    item="Table 1",
    config=Table1Config,
    presets={
        "smoke": Table1Config(
            sizes=("tiny",),
            match=("params",),
            seeds=2,
            dataset="digits",
            subset=320,
            image_size=8,
            patch=2,
            depth=2,
            shrink=8,
            epochs=2,
            batch_size=64,
            learning_rate=1e-3,
            augmentation="light",
        ),
        "small": Table1Config(
            sizes=("tiny",),
            dataset="digits",
            image_size=8,
            patch=2,
            depth=4,
            shrink=4,
            epochs=30,
            batch_size=64,
            learning_rate=1e-3,
            augmentation="light",
        ),
        "paper": Table1Config(),
    },
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained,
    scoring=SCORING,
    findings=findings,
    order=6,
    captions={
        "table1": "Parameters (hatched: never called by the forward pass) and accuracies of Table 1's models, printed"
        " and here.",
        **CAPTIONS,
    },
)
