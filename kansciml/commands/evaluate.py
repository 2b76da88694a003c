"""``kansciml evaluate RUN``: scores of a run's trained image classifiers, per class, from the weights it kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from kansciml._errors import UsageError
from kansciml.commands._output import JsonFlag, Output, parse, wants_help

SUMMARY = "scores of the image classifiers of a run: kansciml evaluate results/vision/..."
SHOWN_CLASSES = 20
"""With more classes, the table shows only those that are recognised worst."""


def _arguments() -> type:
    """The flags. Made when called: tyro is slow to import."""
    import tyro

    run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Folder of a finished run.")]
    flags = (
        ("data_dir", Path | None, None, "Folder of the data set (default: where the run had it)."),
        ("split", str, "test", "test, or train (all training images, without augmentation)."),
        ("model", str | None, None, "Only models of this id, group (mlp, kan-spline ...) or task; default: all."),
        ("batch_size", int | None, None, "Images at once (default: as at the end of training)."),
        ("accelerator", str, "auto", "auto, cpu, cuda or mps."),
    )
    fields = [("run", run, dataclasses.field())]
    fields += [
        (name, Annotated[kind, tyro.conf.arg(help=text)], dataclasses.field(default=value))
        for name, kind, value, text in flags
    ]
    made = dataclasses.make_dataclass("Arguments", fields, bases=(_Json,), frozen=True, kw_only=True)
    made.__doc__ = "Evaluate the trained image classifiers of a finished run."
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Json(JsonFlag):
    """Output."""


def main(arguments: Sequence[str], out: Output) -> int:
    if not arguments or (arguments[0].startswith("-") and not wants_help(arguments)):
        raise UsageError("evaluate wants the folder of a finished run first, such as results/vision/1a2b3c4d5e6f")
    from kansciml.experiments._vision_trained import chosen_rows, evaluate_row, rows_of, split_images
    from kansciml.reporting.progress import Progress
    from kansciml.reporting.records import load_record

    options = parse(_arguments(), arguments, "evaluate")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"got batch_size {options.batch_size}: expected at least 1")
    record = load_record(options.run)
    rows = chosen_rows(rows_of(record), options.model)
    found: list[dict[str, Any]] = []
    images: dict[str, Any] = {}
    with Progress() as progress, progress.task("evaluating", len(rows)) as bar:
        for row in rows:
            name = row["dataset"]
            if name not in images:
                images[name] = split_images(record, name, options.split, options.data_dir, progress)
            scores = evaluate_row(record, row, images[name], options.accelerator, options.batch_size)
            found.append(_document(record, row, scores, options.split))
            bar.update(advance=1)
    document = {"folder": str(record.folder), "split": options.split, "models": found}
    out.result(document, [_scores_table(found, options.split), *_class_tables(found)])
    return 0


def _document(record: Any, row: dict[str, Any], scores: Any, split: str) -> dict[str, Any]:
    names = record.result["data"][row["dataset"]]["classes"]
    return {
        "id": row["id"],
        "task": row["task"],
        "group": row["group"],
        "label": row["label"],
        "seed": row["seed"],
        "parameters": row["parameters"],
        "top1": scores.top1,
        "top5": scores.top5,
        "loss": scores.loss,
        "n": scores.n,
        "recorded": {key: row[key] for key in ("top1", "top5", "loss")} if split == "test" else None,
        "per_class": dict(zip(names, scores.per_class.tolist())),
        "confusion": scores.confusion,
    }


def _scores_table(found: Sequence[dict[str, Any]], split: str) -> Any:
    from kansciml.reporting.tables import Table

    rows = []
    for one in found:
        recorded = one["recorded"] or {}
        row = [one["id"], one["label"], one["parameters"], 100 * one["top1"], 100 * one["top5"], one["loss"]]
        rows.append([*row, 100 * recorded["top1"] if recorded else None, recorded.get("loss")])
    columns = ["Run", "Model", "Parameters", "Top-1 (%)", "Top-5 (%)", "Loss", "recorded top-1", "recorded loss"]
    note = f"{found[0]['n']} {'test' if split == 'test' else 'training'} images, without augmentation."
    return Table(f"Scores on the {split} images", columns, rows, [note])


def _class_tables(found: Sequence[dict[str, Any]]) -> list[Any]:
    """One table per task: share of each class's images that were recognised, a column per run."""
    from kansciml.reporting.tables import Table

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
