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
"This issue of sharper minima doesn't seem to occur for larger models like DeiT" (section 4.2): the spectra of the
smallest size's trainings of protocol ``paper`` are measured where they end.
Cost on one core: ``smoke`` (digits) half a minute; ``small`` (25,000 images of CIFAR-100 at 32 x 32, patches of 4, a
quarter of the width, 2 blocks, 2 epochs, 12 seeds of each of 5 rows; MLPs are right on 11 %) 40 s a training, of RSWAF
KANs 85, 1.2 hours with the spectra; ``paper`` is for GPUs: 180 trainings of 300 epochs, and 36 spectra.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kansciml._errors import UsageError, check_names
from kansciml.analysis.matching import MEASURES
from kansciml.experiments.hessian.measure import HessianSettings, with_spectra
from kansciml.experiments.minibatch.config import VariantChoice
from kansciml.experiments.minibatch.jobs import network_of
from kansciml.experiments.table1.costs import PRINTED, SIZES, costs, published_rows
from kansciml.experiments.table1.findings import findings
from kansciml.experiments.table1.record import FAIR, PAPER, PROTOCOLS, SCRATCH, Table1Record, Table1Row
from kansciml.experiments.table1.report import render, summary
from kansciml.experiments.vision.comparisons import of_images
from kansciml.experiments.vision.config import ClassifierConfig, VisionRunConfig
from kansciml.experiments.vision.experiment import check as check_vision
from kansciml.experiments.vision.experiment import recipe
from kansciml.experiments.vision.jobs import VisionJob
from kansciml.experiments.vision.jobs import jobs as vision_jobs
from kansciml.experiments.vision.record import VisionRow
from kansciml.experiments.vision.report import CAPTIONS
from kansciml.experiments.vision.runs import ImageTrainer
from kansciml.experiments.vision.trained import SCORING, trained_where
from kansciml.models.deit import KAN_HIDDEN
from kansciml.models.registry import find
from kansciml.reporting.judging import shortfalls
from kansciml.runs import ranks
from kansciml.runs.archive import with_parts
from kansciml.runs.config_json import with_settings
from kansciml.runs.experiment import Experiment, Result, RunContext
from kansciml.runs.records import Record
from kansciml.runs.settings import part, settings_json
from kansciml.runs.trained import TrainedModel

HEAD_WIDTH = 64
"""Features per head, of all sizes."""
LATER = (
    "width", "token_hidden", "channel_hidden", "heads", "kernel", "drop_path", "placement", "kan_hidden", "grid",
    "spline_order", "grid_range", "min_lr", "schedule", "clip", "ema", "channels_last",
)  # fmt: skip
"""Settings of classifiers that Table 1 did not have at first."""
SETTING = (
    "dataset", "subset", "image_size", "patch", "depth", "shrink", "epochs", "batch_size", "learning_rate",
    "weight_decay", "warmup", "augmentation",
)  # fmt: skip
"""Settings in which a run may differ from the paper's."""


@dataclass(frozen=True)
class Table1Config:
    """Settings of Table 1; the defaults are the preset ``paper``."""

    sizes: tuple[str, ...] = SIZES
    """Sizes to train: tiny, small, base (of which there is the MLP alone)."""
    protocols: tuple[str, ...] = PROTOCOLS
    """paper, fair, or both."""
    match: tuple[str, ...] = MEASURES
    """What KANs and MLPs of protocol fair have as many of: params, flops, or both in turn."""
    weights: tuple[Path, ...] = ()
    """Pretrained weights for protocol paper, a file per size (default: all from scratch)."""
    shrink: int = 1
    """Divide all widths by this: a divisor of 64, the features per head."""
    spectra: HessianSettings = HessianSettings(steps=80, probes=5, samples=512)
    """Of the Hessians where the trainings of the smallest size end, of protocol paper."""
    classifier: ClassifierConfig = part(
        with_settings(
            ClassifierConfig(),
            {**recipe("deit-tiny", "cifar100"), "seeds": 12, "dataset": "cifar100", "patch": 16, "depth": 12},
        ),
        later=LATER,
    )

    def __post_init__(self) -> None:
        check_names("size", self.sizes, SIZES)
        check_names("protocol", self.protocols, PROTOCOLS)
        check_names("measure", self.match, MEASURES)
        if self.shrink < 1 or HEAD_WIDTH % self.shrink:
            raise UsageError(f"got shrink {self.shrink}: expected a divisor of {HEAD_WIDTH}, such as 4")
        if self.weights and PAPER not in self.protocols:
            raise UsageError("got weights without protocol paper, the only one that starts from them: leave them out")
        if self.weights and len(self.weights) != len(self.sizes):
            raise UsageError(
                f"got {len(self.weights)} files of weights for sizes {', '.join(self.sizes)}: expected one for each"
            )

    def trainings(self, size: str, variant: str, match: str = "none") -> VisionRunConfig:
        """The settings of one row's trainings; fair if matched."""
        shrunk: dict[str, object] = {}
        if self.shrink > 1:
            model, preset = find(f"deit-{size}")
            shrunk["width"] = model.config(preset).width // self.shrink
            if variant != "mlp" and match == "none":
                shrunk["kan_hidden"] = (KAN_HIDDEN // self.shrink,)
        return VisionRunConfig(
            f"deit-{size}",
            VariantChoice(variant, match),
            fair=match != "none",
            weights=dict(zip(self.sizes, self.weights)).get(size) if match == "none" else None,
            classifier=with_settings(self.classifier, shrunk),
        )


@dataclass(frozen=True)
class RowTrainings:
    """The trainings of one row: the protocol is both, with a ``+``, where one training serves both."""

    protocol: str
    size: str
    settings: VisionRunConfig
    scratch: bool = False

    def jobs(self) -> list[VisionJob]:
        """One job per seed."""
        return [replace(job, kind="scratch") if self.scratch else job for job in vision_jobs(self.settings)]

    def row(self, row: VisionRow) -> Table1Row:
        """What the record says of one of them."""
        needs = costs(row.model, network_of(row.model, row.network), row.batch_size)
        own = vars(row) | {"label": f"{row.label}, from scratch" if self.scratch else row.label}
        return Table1Row(
            **own, size=self.size, protocol=self.protocol, flops=needs.flops, step_bytes=needs.step_bytes,
            kan_hidden=needs.kan_hidden,
        )  # fmt: skip


def rows(config: Table1Config) -> Iterator[RowTrainings]:
    """Every row to train."""
    for size, variant in [(size, row.variant) for size in config.sizes for row in PRINTED if row.size == size]:
        own = config.trainings(size, variant)
        if variant == "mlp" and not config.weights:
            yield RowTrainings("+".join(config.protocols), size, own)
            continue
        if PAPER in config.protocols:
            yield RowTrainings(PAPER, size, own)
        if FAIR in config.protocols and variant == "mlp":
            yield RowTrainings(FAIR, size, replace(own, weights=None), scratch=True)
        elif FAIR in config.protocols:
            yield from (RowTrainings(FAIR, size, config.trainings(size, variant, by)) for by in config.match)


def jobs(config: Table1Config) -> list[VisionJob]:
    """One job per row and seed."""
    return [job for row in rows(config) for job in row.jobs()]


def check(config: Table1Config) -> None:
    """Raise UsageError for whatever is wrong with a configuration before a folder is made for it."""
    for number, row in enumerate(rows(config)):
        read = {"data_dir": None} if number else {}  # the data are looked at once
        check_vision(with_settings(row.settings, read))


def deviations(config: Table1Config) -> list[str]:
    """In what a configuration differs from the paper's, in words; without pretrained weights its numbers differ too."""
    paper = settings_json(Table1Config())
    found = shortfalls(settings_json(config), {}, {name: paper[name] for name in SETTING})
    return found + ([] if config.weights else ["no pretrained weights"])


def run(config: Table1Config, context: RunContext) -> Result:
    owners = [row for row in rows(config) for _ in row.jobs()]
    made = ImageTrainer(context).run(jobs(config))
    result = made.result
    if ranks.rank() == 0:
        result = replace(made, rows=[owner.row(row) for owner, row in zip(owners, made.rows, strict=True)]).result
        todo = sum(1 if row.variant == "mlp" else 1 + len(MEASURES) for row in PRINTED)
        with context.progress.task("table1: memory of the printed rows", todo) as task:
            published = [row.to_json() for row in published_rows(MEASURES, task.update)]
        result = replace(result, result={**result.result, "published": published, "deviations": deviations(config)})
    smallest = min(config.sizes, key=SIZES.index)
    variants = {row.variant for row in PRINTED}
    return with_spectra(
        "table1", config, result, config.spectra, context,
        lambda one: one.group in variants and one.task.endswith(f"deit-{smallest}"),
    )  # fmt: skip


def trained(record: Record) -> list[TrainedModel]:
    """The networks of a finished run, for `kansciml hessian`; those of protocol fair against MLPs from scratch."""
    table1 = Table1Record.read(record)
    rows = [row for group in table1.groups for row in group.rows]
    fair = {row.id for row in rows if row.protocol == FAIR and row.size in table1.scratch}
    models = [replace(one, against=SCRATCH) if one.name in fair else one for one in trained_where(record)]
    return [replace(one, against=None) if one.group == SCRATCH else one for one in models]


NARROW = {
    "image_size": 32, "patch": 4, "subset": 25_000, "depth": 2, "epochs": 2, "batch_size": 32, "learning_rate": 1e-3,
    "warmup": 0.1, "augmentation": "light", "spectra.steps": 20, "spectra.probes": 2, "spectra.deflate": 3,
    "spectra.samples": 32,
}  # fmt: skip
DIGITS = {
    "dataset": "digits", "image_size": 8, "patch": 2, "batch_size": 64, "learning_rate": 1e-3, "augmentation": "light",
    "spectra.steps": 6, "spectra.probes": 2, "spectra.deflate": 1, "spectra.samples": 16, "spectra.exact": "never",
}  # fmt: skip

EXPERIMENT = Experiment(
    name="table1",
    title="Vision transformers on CIFAR-100: MLPs, splines and RSWAF KANs, as printed and on equal terms",
    item="Table 1",
    config=Table1Config,
    presets={
        "smoke": with_settings(
            Table1Config(sizes=("tiny",), match=("params",), shrink=8),
            {**DIGITS, "seeds": 2, "subset": 320, "depth": 2, "epochs": 2},
        ),
        "small": with_settings(Table1Config(sizes=("tiny",), match=("params",), shrink=4), NARROW),
        "paper": Table1Config(),
    },
    costs={"small": "an hour and a quarter of one core"},
    run=run,
    render=render,
    summary=summary,
    check=check,
    trained=trained,
    scoring=SCORING,
    findings=findings,
    comparisons=lambda record: of_images(Table1Record.read(record)),
    order=6,
    unshown=with_parts("confusion"),
    captions={
        "table1": "Parameters (hatched: never called by the forward pass) and accuracies of Table 1's models, printed"
        " and here.",
        "spectra": "Densities of the Hessian's eigenvalues where the trainings of the smallest size end.",
        **CAPTIONS,
    },
)
