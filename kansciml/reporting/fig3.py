"""Report of Figure 3 (``kansciml run fig3``): spectra, accuracy and parameters side by side. Reads the record only.

Expected of the record: ``result["data"]``, ``result["runs"]`` and their arrays as `kansciml.reporting.vision` says,
``result["models"]``, ``result["verdicts"]`` and their arrays as `kansciml.reporting.hessian` does; the name of a model
is the id of its run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml._errors import KansciError
from kansciml.analysis.comparison import ALPHA, REFUTED, SUPPORTED, UNDECIDED, compare_losses
from kansciml.reporting import hessian
from kansciml.reporting.records import Record
from kansciml.reporting.style import publication_style, save_figure
from kansciml.reporting.tables import Table, format_number, save_tables
from kansciml.reporting.vision import render as render_vision
from kansciml.reporting.vision import summary as vision_summary
from kansciml.reporting.vision_runs import REFERENCE, Group, VisionRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = {"sharper": SUPPORTED, "flatter": REFUTED, "undecided": UNDECIDED}
POSITIVE = ("positive_count", "positive_share")
SHOWN = (*POSITIVE, "count_above_0.01_top", "top", "adaptive_top", "negative_mass")
CLAIMED = {
    "positive_count": "more positive eigenvalues",
    "positive_share": "more positive eigenvalues, of all",
    "count_above_0.01_top": "more eigenvalues above 1 % of the largest",
}
LINE_HEIGHT = 0.13
"""Inches of a line of text below a panel."""


def overview_table(record: Record) -> Table:
    """What each kind of model reaches, holds, and how sharp its minima are: what the paper's figure shows."""
    vision, body = _read(record), []
    for group in vision.groups:
        measures = _measures(record, group)
        values = [_over_seeds(measures, name) for name in SHOWN]
        body.append(
            [vision.title(group.task), group.label, group.value("parameters"), len(group.rows),
             _plus_minus([100 * value for value in group.values("top1")]), group.median("minimum_loss"), *values]
        )  # fmt: skip
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "Loss", "Positive eigenvalues", "of all"]
    columns += ["> 1 % of the largest", "Largest", "largest of |w| H |w|", "Negative mass"]
    notes = [
        "Top-1: test images, mean over seeds +- standard error. Loss: median, mean cross-entropy over at most 512"
        " training images, of which the spectra take all or the first. Positive: above 1e-6 of the largest. Measures:"
        " mean over seeds +- standard error, of a single seed over its probes, and half the width of what the"
        " quadrature leaves open. Negative mass: share of sum |eigenvalue| below zero. Largest of |w| H |w|: does not"
        " change when layers of a ReLU network are rescaled.",
    ]
    return Table("Figure 3: accuracy, parameters and spectra", columns, body, notes)


def claim_table(record: Record) -> Table:
    """The paper's claims on its Figure 3, decided by the seeds of this run."""
    vision, body = _read(record), []
    for task in vision.tasks:
        groups = vision.of(task)
        reference = groups.get(REFERENCE)
        for group in groups.values():
            if reference is None or group is reference:
                continue
            first = [vision.title(task), group.label]
            sharp = [row for row in record.result["verdicts"] if (row["task"], row["group"]) == (task, group.name)]
            for row in sharp:
                if row["measure"] in CLAIMED:
                    found = [WORDS[row["verdict"]], row["b"], row["a"], row["p_value"], f"{row['n_b']} / {row['n_a']}"]
                    body.append([*first, CLAIMED[row["measure"]], *found, row["reason"]])
            lower = compare_losses(reference.errors, group.errors)
            tops = [100 * side.median("top1") for side in (reference, group)]
            body.append([*first, "lower final accuracy (%)", lower.verdict, *tops, lower.p_value,
                         f"{lower.n_a} / {lower.n_b}", lower.reason])  # fmt: skip
            sizes = [side.value("parameters") for side in (reference, group)]
            verdict = SUPPORTED if sizes[1] > sizes[0] else REFUTED
            ratio = f"counted: {format_number(sizes[1] / sizes[0])} times as many"
            body.append([*first, "more parameters", verdict, *sizes, None, None, ratio])
    columns = ["Task", "KAN", "Claim: than the MLP", "Verdict", "MLP", "KAN ", "p", "Seeds", "Why"]
    notes = [
        "The paper's claims on its Figure 3. MLP, KAN: medians over seeds. Verdict: exact two-sided Mann-Whitney U test"
        f" over seeds at level {ALPHA:g}; to decide takes at least 4 seeds a side. Of single models: 2 standard errors"
        " of the probes, a statement on these two. A number of positive eigenvalues grows with the number of parameters"
        " by itself; their share of all does not. What other measures say is in the tables of verdicts.",
        "A verdict is on these models, images and epochs: smaller ones than the paper's do not decide its claim.",
    ]
    return Table("Claims on Figure 3", columns, body, notes)


def summary(record: Record) -> list[Table]:
    """Overview, claims, cost of the trainings, and the verdicts of all measures of sharpness.

    Raises:
        KansciError: the record is no finished run of fig3.
    """
    sharp = hessian.tables(record)[len(record.result["models"]) :]
    return [overview_table(record), claim_table(record), vision_summary(record)[1], *sharp]


def figure3(record: Record) -> Figure:
    """The spectra of every task (`kansciml.reporting.hessian.spectra`), and below them accuracies, parameters, counts.

    Call it within `publication_style`.
    """
    vision = _read(record)
    figure = hessian.spectra(record)
    per_task = len(figure.axes) // len(vision.tasks)
    labels = {group.name: group.label for group in vision.groups}
    drawn = dict.fromkeys(row["group"] for row in record.result["models"])
    for text, name in zip(figure.legends[0].get_texts(), drawn):
        text.set_text(labels[name])
    lines = 0
    for number, task in enumerate(vision.tasks):
        groups = list(vision.of(task).values())
        left, *others = figure.axes[number * per_task : (number + 1) * per_task]
        left.set_title(f"{vision.title(task)}\n{left.get_title().rpartition(': ')[2]}")
        left.set_xlabel("\n".join(["eigenvalue", *map(_accuracy_line, groups)]))
        for axes in others:
            axes.set_title(axes.get_title().rpartition(": ")[2])
            axes.set_xlabel("\n".join(["eigenvalue", *(_count_line(record, group) for group in groups)]))
        lines += len(groups) + 2
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LINE_HEIGHT * lines)
    return figure


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``figure3``, the curves of each task (SVG and PNG), and ``tables`` (Markdown and JSON) into `folder`.

    Raises:
        KansciError: as for `summary`, or the folder cannot be written.
    """
    found = summary(record)
    with publication_style():
        figure = figure3(record)
    paths = save_figure(figure, folder, "figure3")
    paths += [path for path in render_vision(record, folder) if path.stem != "tables"]
    models = hessian.tables(record)[: len(record.result["models"])]
    return paths + save_tables([*found, *models], folder, "tables")


def _read(record: Record) -> VisionRecord:
    vision = VisionRecord.read(record)
    if not {"models", "verdicts"} <= set(record.result):
        raise KansciError(f"{record.folder} holds no spectra: expected a finished run of fig3; run it again")
    return vision


def _measures(record: Record, group: Group) -> list[Mapping[str, Any]]:
    """The measures of every model of a group whose spectrum was taken."""
    names = {row["id"] for row in group.rows}
    return [row["sharpness"]["measures"] for row in record.result["models"] if row["name"] in names]


def _over_seeds(measures: list[Mapping[str, Any]], name: str, digits: int = 4) -> str | None:
    """Mean +- standard error over the seeds, or over the probes of one, with what the quadrature leaves open."""
    found = [one[name] for one in measures if name in one]
    if len(found) == 1:  # whose standard error includes that
        return _with_error(found[0]["value"], found[0]["standard_error"], digits)
    bounds = [(one["upper"] - one["lower"]) / 2 for one in found if None not in (one["lower"], one["upper"])]
    return _plus_minus([one["value"] for one in found], digits, float(np.mean(bounds)) if bounds else 0.0)


def _plus_minus(values: list[float], digits: int = 4, further: float = 0.0) -> str | None:
    """Mean +- its standard error over `values`, to which an error that all of them share is added."""
    if not values:
        return None
    error = math.hypot(float(np.std(values, ddof=1)) / math.sqrt(len(values)), further) if len(values) > 1 else None
    return _with_error(float(np.mean(values)), error, digits)


def _with_error(value: float, error: float | None, digits: int) -> str:
    """``90.81 +- 0.12``; an error of nothing but rounding is left out."""
    if error is not None and error <= 1e-6 * abs(value):
        error = None
    return format_number(value, digits) + ("" if not error or math.isnan(error) else f" +- {format_number(error, 2)}")


def _accuracy_line(group: Group) -> str:
    top1 = _plus_minus([100 * value for value in group.values("top1")], 3)
    return f"{_short(group)}: {top1 + ' %' if top1 else 'diverged'}, {group.value('parameters'):,} parameters"


def _count_line(record: Record, group: Group) -> str:
    count = _over_seeds(_measures(record, group), "positive_count", 3)
    return f"{_short(group)}: {count or 'none measured'} of {group.value('parameters'):,} positive"


def _short(group: Group) -> str:
    """``KAN, splines`` of ``KAN, splines (G=5, S=3)``."""
    return group.label.partition(" (")[0]
