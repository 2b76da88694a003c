"""Errors of the neural operators of a run, at any resolution of its samples: ``kansciml evaluate results/fno/...``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kansciml._errors import UsageError
from kansciml.experiments.fno.record import FnoRecord
from kansciml.experiments.fno.trained import evaluate_row, samples_of, test_samples
from kansciml.experiments.minibatch.trained import chosen_rows, scored
from kansciml.runs.progress import Progress
from kansciml.runs.records import Record
from kansciml.runs.scoring import Scoring, ScoringOptions
from kansciml.runs.tables import Table


@dataclass(frozen=True, kw_only=True)
class OperatorScoring(ScoringOptions):
    """Which neural operators are scored, and on what."""

    subsample: tuple[int, ...] = ()
    """Every how many-th node of the test samples is kept; several in turn (default: as the run was tested)."""
    worst: int = 5
    """Test samples with the largest errors to list, of each model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.worst < 0:
            raise UsageError(f"got worst {self.worst}: expected 0 or more")
        if len(set(self.subsample)) < len(self.subsample):
            raise UsageError(f"got subsample {self.subsample}: expected different ones")


def score(record: Record, options: OperatorScoring, progress: Progress) -> tuple[dict[str, Any], list[Table]]:
    """Every chosen model over the test samples, at every resolution that was asked for.

    Raises:
        UsageError, KansciError: as `FnoRecord.rows`, `chosen_rows`, `test_samples` and `evaluate_row`.
    """
    rows = chosen_rows(FnoRecord.rows(record), options.model)
    samples = samples_of(record)
    factors = options.subsample or (samples.darcy.subsample, *samples.eval_subsamples)
    models: dict[str, dict[str, Any]] = {row.id: {**scored(row), "scores": []} for row in rows}
    with progress.task("evaluating", len(factors) * len(rows)) as bar:
        for factor in factors:
            data = test_samples(record, factor, options.data_dir)
            for row in rows:
                errors = evaluate_row(record, row, data, options.accelerator, options.batch_size)
                own = _document(errors, row.relative_l2_at.get(str(data.size)), options.worst)
                models[row.id]["scores"].append({"subsample": factor, "size": data.size, **own})
                bar.update(advance=1)
    found = list(models.values())
    tables = [_scores_table(found)] + ([_worst_table(found)] if options.worst else [])
    return {"split": "test", "models": found}, tables


def _document(errors: np.ndarray, recorded: float | None, worst: int) -> dict[str, Any]:
    order = np.argsort(-errors, kind="stable")[:worst]
    return {
        "n": len(errors),
        "relative_l2": float(errors.mean()),
        "median": float(np.median(errors)),
        "largest": float(errors.max()),
        "recorded": recorded,
        "worst": [{"sample": int(place), "relative_l2": float(errors[place])} for place in order],
        "errors": errors.tolist(),
    }


def _scores_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [one["id"], one["label"], one["parameters"], at["size"],
         *(at[key] for key in ("relative_l2", "median", "largest", "recorded"))]
        for one in found
        for at in one["scores"]
    ]  # fmt: skip
    columns = ["Run", "Model", "Parameters", "Nodes along a side", "Relative L2", "median", "largest", "recorded"]
    note = f"Mean, median and largest error of {found[0]['scores'][0]['n']} test samples; recorded: the mean."
    return Table("Relative L2 error on the test samples", columns, rows, [note])


def _worst_table(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [one["id"], at["size"], ", ".join(f"{bad['sample']} ({bad['relative_l2']:.3g})" for bad in at["worst"])]
        for one in found
        for at in one["scores"]
    ]
    note = "Samples are counted from 0, in the order of the data set."
    return Table("Worst test samples", ["Run", "Nodes along a side", "sample (relative L2)"], rows, [note])


SCORING = Scoring(OperatorScoring, score)
