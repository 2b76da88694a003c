"""Report of trained image classifiers (``kansciml vision``, Table 1, Figure 3): reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``result["data"][name]``: name, title, citation, classes (names), n_train, n_test, n_minimum, and train_hash,
  test_hash, minimum_hash of pixels and labels. "Minimum": the training images on which sharpness is measured.
* ``result["runs"]``: id, task (data set and model: groups of one task are compared), dataset, model, resized (sizes
  other than the model's own), variant (``mlp``, ``kan-spline``, ``kan-rswaf``), group (the variant, or with
  ``-params``, ``-flops`` where sizes are matched), label, seed, status ("finished" or "diverged"), message; parameters
  (all that are used), printed and dead (by the paper, null for other configurations), mixing_flops (forward, per image,
  or null); top1, top5, loss over n_test test images; train_loss, train_accuracy of the last epoch; minimum_loss;
  best_top1, best_epoch; epochs, steps, images_per_s, seconds_per_step, peak_memory_mb, wall_s, batch_size, precision,
  processes; network (its configuration) and weights (a safetensors file, from the record's folder).
* arrays per run, (epochs,): ``<id>.epoch``, ``.step``, ``.loss``, ``.accuracy`` (training), ``.test_loss``,
  ``.test_top1``, ``.test_top5``, ``.learning_rate``, ``.images_per_s``, ``.train_s`` (seconds without evaluations); and
  ``.confusion`` (classes, classes), rows true.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.experiments.vision.figures import accuracy_against_cost, curves
from kansciml.experiments.vision.record import VisionRecord
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
    """Tables of accuracy and of cost, and the verdict on the paper's claim where there are MLPs and KANs.

    Raises:
        KansciError: the record holds no trained image classifiers.
    """
    vision = VisionRecord.read(record)
    verdict = verdict_table(vision)
    return [accuracy_table(vision), cost_table(vision), *([verdict] if verdict else [])]


def render(record: Record, folder: Path) -> list[Path]:
    """Write all pictures (SVG, PNG and PDF) and tables (Markdown and JSON) into `folder`; returns their paths.

    ``curves`` and ``accuracy_against_cost``, with the task in their names where there are several, and ``tables``.

    Raises:
        KansciError: the record holds no trained image classifiers, or the folder cannot be written.
    """
    vision = VisionRecord.read(record)
    return save_report(folder, summary(record), drawings(vision))


def drawings(vision: VisionRecord) -> dict[str, Callable[[], Figure | None]]:
    """The pictures by their stems, with the task in them where there are several."""
    found: dict[str, Callable[[], Figure | None]] = {}
    for task in vision.tasks:
        for draw in (curves, accuracy_against_cost):
            found[f"{draw.__name__}{vision.suffix(task)}"] = partial(draw, vision, task)
    return found
