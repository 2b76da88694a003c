"""Report of Table 1 (``kansciml run table1``): printed beside computed and measured. Reads the record only."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from kansciml.experiments.table1.claims import claims_table
from kansciml.experiments.table1.figure import overview
from kansciml.experiments.table1.record import FAIR, Table1Record
from kansciml.experiments.vision.report import drawings
from kansciml.reporting.groups import diverged_notes, over, plus_minus
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table


def size_table(table1: Table1Record) -> Table:
    """Parameters, operations and memory of all rows as printed and matched; nothing of it is measured by training."""
    body = []
    for row in table1.published:
        mlp = table1.mlps[row.size]
        body.append(
            [*row.key, row.kan_hidden, row.printed_parameters / 1e6, (row.parameters + row.dead) / 1e6, row.dead / 1e6,
             row.parameters, row.parameters / mlp.parameters, over(row.flops, 1e9), over(row.flops, mlp.flops),
             row.step_bytes / 1e6, row.step_bytes / mlp.step_bytes]
        )  # fmt: skip
    columns = ["Protocol", "Size", "Model", "KAN hidden", "Printed (M)", "Computed (M)", "of it dead (M)", "Used"]
    columns += ["/ MLP", "GFLOPs", "/ MLP ", "Step (MB)", "/ MLP  "]
    batch = table1.published[0].batch
    notes = [
        "At the printed sizes: 224 x 224 pixels, 100 classes. Dead: MLPs that the paper's source builds and never"
        " calls, which are in the printed numbers; a user pays for those used. GFLOPs: forward, per image: matrix"
        f" products, and all of MLPs or KANs. Step: peak of forward and backward pass at batch {batch} in float32,"
        " activations and gradients, of this package's layers in plain PyTorch, counted on tensors without data;"
        " parameters and AdamW's state apart.",
        "Fair: KANs with the MLPs' biases and drop-path, and a hidden width with as many parameters, or operations.",
    ]
    return Table("Table 1: what its models hold and need", columns, body, notes)


def accuracy_table(table1: Table1Record) -> Table:
    """Accuracy of every row, printed beside measured: mean over seeds +- its standard error."""
    rows = [(row.key, row.printed_top1, row.printed_top5, row.trained) for row in table1.published]
    rows += [((FAIR, size, group.label), math.nan, math.nan, group) for size, group in table1.scratch.items()]
    body = []
    for key, top1, top5, group in rows:
        if group is None:
            body.append([*key, top1, None, top5, *[None] * 6])
            continue
        own = group.first
        body.append(
            [*key, top1, plus_minus(group.values(lambda row: row.percent)), top5,
             plus_minus(group.values(lambda row: row.percent5)), len(group.rows), own.parameters,
             over(own.flops, 1e6), over(own.step_bytes, 1e6), group.median(lambda row: row.seconds_per_step)]
        )  # fmt: skip
    columns = ["Protocol", "Size", "Model", "Top-1 printed (%)", "measured", "Top-5 printed (%)", "measured ", "Seeds"]
    columns += ["Parameters", "MFLOPs", "Step (MB)", "Step (s)"]
    notes = [
        f"Measured: {_setting(table1)}; mean over the seeds that did not diverge, +- its standard error; test images,"
        " weights of the last step. A dash: not trained in this run. Parameters, MFLOPs and steps: of the trained"
        " models."
    ]
    notes += [*table1.caveat, *diverged_notes(table1.groups)]
    return Table("Table 1: accuracy, printed beside measured", columns, body, notes)


def summary(record: Record) -> list[Table]:
    """Sizes, accuracies and claims.

    Raises:
        KansciError: the record is no finished run of table1.
    """
    table1 = Table1Record.read(record)
    return [size_table(table1), accuracy_table(table1), claims_table(table1)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``table1`` and the curves of each size (SVG, PNG and PDF), and ``tables`` (Markdown and JSON).

    Raises:
        KansciError: as for `summary`, or the folder cannot be written.
    """
    table1 = Table1Record.read(record)
    return save_report(folder, summary(record), {"table1": partial(overview, table1), **drawings(table1)})


def _setting(table1: Table1Record) -> str:
    """``CIFAR-100 at 32 pixels, 10000 training images, 10 epochs, batches of 128``."""
    group = table1.groups[0]
    row, data = group.first, table1.data_of(group)
    return (
        f"{data.title} at {row.network['image_size']} pixels, {data.n_train} training images, {row.steps} steps"
        f" in batches of {row.batch_size}"
    )
