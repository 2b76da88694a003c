"""Report of Table 1 (``kansciml run table1``): printed beside computed and measured. Reads the record only.

Expected of the record, besides what `kansciml.experiments.vision.report` says:

* ``result["published"]``: the rows of Table 1 and of the fair protocol, at the printed sizes: size, protocol
  (``paper``, ``fair``), group, label, variant, printed_parameters, printed_top1, printed_top5 (not of fair rows), dead
  (parameters that the printed number counts and no forward pass uses), parameters (those in use), kan_hidden, flops
  and mixing_flops (forward, per image, or null), step_bytes, kept_bytes (of a training step), batch.
* each of ``result["runs"]`` also: size, protocol (``paper``, ``fair``, or both with a ``+``), flops, step_bytes.
* ``result["deviations"]``: in what the trainings differ from the paper's, in words.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from kansciml.experiments.table1.claims import claims_table
from kansciml.experiments.table1.figure import overview
from kansciml.experiments.table1.record import SCRATCH, Table1Record, TrainedGroup, caveat, rows_of
from kansciml.experiments.vision.report import drawings
from kansciml.reporting.groups import over, plus_minus
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def size_table(record: Record) -> Table:
    """Parameters, operations and memory of all rows as printed and matched; nothing of it is measured by training."""
    rows = rows_of(record)
    reference = {row.published["size"]: row.published for row in rows if row.published["group"] == "mlp"}
    body = []
    for row in rows:
        own = row.published
        mlp = reference[own["size"]]
        printed = own.get("printed_parameters")
        body.append(
            [own["protocol"], own["size"], own["label"], own["kan_hidden"], _millions(printed),
             _millions(own["parameters"] + own["dead"]), _millions(own["dead"]), own["parameters"],
             own["parameters"] / mlp["parameters"], over(own["flops"], 1e9), over(own["flops"], mlp["flops"]),
             own["step_bytes"] / 1e6, own["step_bytes"] / mlp["step_bytes"]]
        )  # fmt: skip
    columns = ["Protocol", "Size", "Model", "KAN hidden", "Printed (M)", "Computed (M)", "of it dead (M)", "Used"]
    columns += ["/ MLP", "GFLOPs", "/ MLP ", "Step (MB)", "/ MLP  "]
    batch = rows[0].published["batch"]
    notes = [
        "At the printed sizes: 224 x 224 pixels, 100 classes. Dead: MLPs that the paper's source builds and never"
        " calls, which are in the printed numbers; a user pays for those used. GFLOPs: forward, per image: matrix"
        f" products, and all of MLPs or KANs. Step: peak of forward and backward pass at batch {batch} in float32,"
        " activations and gradients, of this package's layers in plain PyTorch, counted on tensors without data;"
        " parameters and AdamW's state apart.",
        "Fair: KANs with the MLPs' biases and drop-path, and a hidden width with as many parameters, or operations.",
    ]
    return Table("Table 1: what its models hold and need", columns, body, notes)


def accuracy_table(record: Record) -> Table:
    """Accuracy of every row, printed beside measured: mean over seeds +- its standard error."""
    body, diverged = [], []
    for row in rows_of(record):
        own, group = row.published, row.group
        body.append(_accuracies(row.key, own.get("printed_top1"), own.get("printed_top5"), group))
        if group is not None and group.n_diverged:
            diverged.append(f"{own['size']}, {own['label']}: {group.n_diverged} of {len(group.rows)} diverged.")
    for group in Table1Record.read(record).groups:
        if group.name == SCRATCH:
            body.append(_accuracies(("fair", group.first.size, group.label), None, None, group))
    columns = ["Protocol", "Size", "Model", "Top-1 printed (%)", "measured", "Top-5 printed (%)", "measured ", "Seeds"]
    columns += ["Parameters", "MFLOPs", "Step (MB)", "Step (s)"]
    notes = [
        f"Measured: {_setting(record)}; mean over the seeds that did not diverge, +- its standard error; test images,"
        " weights of the last step. A dash: not trained in this run. Parameters, MFLOPs and steps: of the trained"
        " models."
    ]
    return Table("Table 1: accuracy, printed beside measured", columns, body, notes + caveat(record) + diverged)


def summary(record: Record) -> list[Table]:
    """Sizes, accuracies and claims.

    Raises:
        KansciError: the record is no finished run of table1.
    """
    return [size_table(record), accuracy_table(record), claims_table(record)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``table1`` and the curves of each size (SVG, PNG and PDF), and ``tables`` (Markdown and JSON).

    Raises:
        KansciError: as for `summary`, or the folder cannot be written.
    """
    pictures = {"table1": partial(overview, record), **drawings(Table1Record.read(record))}
    return save_report(folder, summary(record), pictures)


def _accuracies(
    first: tuple[str, str, str], top1: float | None, top5: float | None, group: TrainedGroup | None
) -> list[Any]:
    if group is None:
        return [*first, top1, None, top5, *[None] * 6]
    own = group.first
    reached = (plus_minus(group.values(lambda row: row.percent)), plus_minus(group.values(lambda row: row.percent5)))
    return [
        *first, top1, reached[0], top5, reached[1], len(group.rows), own.parameters, over(own.flops, 1e6),
        over(own.step_bytes, 1e6), group.median(lambda row: row.seconds_per_step),
    ]  # fmt: skip


def _setting(record: Record) -> str:
    """``CIFAR-100 at 32 pixels, 10000 training images, 10 epochs, batches of 128``."""
    vision = Table1Record.read(record)
    row, data = vision.groups[0].first, vision.data_of(vision.groups[0])
    return (
        f"{data.title} at {row.network['image_size']} pixels, {data.n_train} training images, {row.steps} steps"
        f" in batches of {row.batch_size}"
    )


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6
