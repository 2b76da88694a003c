"""Scores of the image classifiers of a run, in all and class by class: ``kansciml evaluate results/vision/...``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kansciml.experiments.minibatch.trained import chosen_rows, scored
from kansciml.experiments.vision.record import ImagesRow, VisionRecord, VisionRow
from kansciml.experiments.vision.trained import HELD_OUT, evaluate_row, split_images
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.scoring import Scoring, ScoringOptions
from kansciml.runs.tables import Table
from kansciml.tasks.vision.dataset import Images
from kansciml.tasks.vision.metrics import Scores

SHOWN_CLASSES = 20
"""With more classes, the table shows only those that are recognised worst."""


@dataclass(frozen=True, kw_only=True)
class ImageScoring(ScoringOptions):
    """Which image classifiers are scored, and on what."""

    split: str = HELD_OUT
    """test, or train (all training images, without augmentation)."""


def score(record: Record, options: ImageScoring, progress: Progress) -> tuple[dict[str, Any], list[Table]]:
    """Every chosen model over the images of a split.

    Raises:
        UsageError, KansciError: as `VisionRecord.rows`, `chosen_rows`, `split_images` and `evaluate_row`.
    """
    rows = chosen_rows(VisionRecord.rows(record), options.model)
    found: list[dict[str, Any]] = []
    images: dict[str, Images] = {}
    with progress.task("evaluating", len(rows)) as bar:
        for row in rows:
            name = row.dataset
            if name not in images:
                images[name] = split_images(record, name, options.split, options.data_dir, progress)
            scores = evaluate_row(record, row, images[name], options.accelerator, options.batch_size)
            found.append(_document(VisionRecord.data_in(record, name), row, scores, options.split))
            bar.update(advance=1)
    return {"split": options.split, "models": found}, [_scores_table(found, options.split), *_class_tables(found)]


def _document(images: ImagesRow, row: VisionRow, scores: Scores, split: str) -> dict[str, Any]:
    recorded = {"top1": row.top1, "top5": row.top5, "loss": row.loss}
    return {
        **scored(row),
        "top1": scores.top1,
        "top5": scores.top5,
        "loss": scores.loss,
        "n": scores.n,
        "recorded": recorded if split == HELD_OUT else None,
        "per_class": dict(zip(images.classes, scores.per_class.tolist())),
        "confusion": scores.confusion,
    }


def _scores_table(found: Sequence[dict[str, Any]], split: str) -> Table:
    rows = []
    for one in found:
        recorded = one["recorded"] or {}
        row = [one["id"], one["label"], one["parameters"], 100 * one["top1"], 100 * one["top5"], one["loss"]]
        rows.append([*row, 100 * recorded["top1"] if recorded else None, recorded.get("loss")])
    columns = ["Run", "Model", "Parameters", "Top-1 (%)", "Top-5 (%)", "Loss", "recorded top-1", "recorded loss"]
    note = f"{found[0]['n']} {'test' if split == HELD_OUT else 'training'} images, without augmentation."
    return Table(f"Scores on the {split} images", columns, rows, [note])


def _class_tables(found: Sequence[dict[str, Any]]) -> list[Table]:
    """One table per task: share of each class's images that were recognised, a column per run."""
    tables = []
    for task in dict.fromkeys(one["task"] for one in found):
        own = [one for one in found if one["task"] == task]
        rows = [[name, *(100 * one["per_class"][name] for one in own)] for name in own[0]["per_class"]]
        notes = []
        if len(rows) > SHOWN_CLASSES:
            rows = sorted(rows, key=lambda row: sum(row[1:]))[:SHOWN_CLASSES]
            notes = [f"The {SHOWN_CLASSES} classes that are recognised worst; --json has all of them."]
        columns = ["Class", *(f"{one['group']} {one['seed']}" for one in own)]
        tables.append(Table(f"Recognised of each class (%): {task}", columns, rows, notes))
    return tables


SCORING = Scoring(ImageScoring, score)
