"""Report of trained image classifiers (``kansciml vision``, Table 1, Figure 3): reads the record only.

Of the record's result, ``data`` holds `ImagesRow` by name and ``runs`` `VisionRow`. Arrays of a run, (epochs,):
``<id>.epoch``, ``.step``, ``.loss``, ``.accuracy`` (training), ``.test_loss``, ``.test_top1``, ``.test_top5``,
``.learning_rate``, ``.images_per_s``, ``.train_s`` (seconds without evaluations); and ``.confusion`` (classes,
classes), rows true.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.experiments.vision.figures import accuracy_against_cost, curves
from kansciml.experiments.vision.record import ImagesRecord, V, VisionRecord
from kansciml.experiments.vision.tables import accuracy_table, cost_table, verdict_table
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "curves": "Course of the trainings.",
    "curves_*": "Course of the trainings ({}).",
    "accuracy_against_cost": "Test accuracy against what the models cost.",
    "accuracy_against_cost_*": "Test accuracy against what the models cost ({}).",
}
"""Of the pictures of `drawings`."""


def summary(record: Record) -> list[Table]:
    """Tables of accuracy and of cost, and the verdict on the paper's claim where there are MLPs and KANs."""
    vision = VisionRecord.read(record)
    verdict = verdict_table(vision)
    return [accuracy_table(vision), cost_table(vision), *([verdict] if verdict else [])]


def render(record: Record, folder: Path) -> list[Path]:
    """Write `drawings` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), drawings(VisionRecord.read(record)))


def drawings(vision: ImagesRecord[V]) -> dict[str, Callable[[], Figure | None]]:
    """The pictures ``curves`` and ``accuracy_against_cost``, with the task in their stems where there are several."""
    found: dict[str, Callable[[], Figure | None]] = {}
    for task in vision.tasks:
        for draw in (curves, accuracy_against_cost):
            found[f"{draw.__name__}{vision.suffix(task)}"] = partial(draw, vision, task)
    return found
