"""Report of Figure 3 (``kansciml run fig3``): spectra, accuracy and parameters side by side. Reads the record only.

Expected of the record: ``result["data"]``, ``result["runs"]`` and their arrays as `kansciml.experiments.vision.report`
says, ``result["models"]``, ``result["verdicts"]`` and their arrays as `kansciml.experiments.hessian.report` does; the
name of a model is the id of its run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.analysis.comparison import ALPHA, REFUTED, SUPPORTED, UNDECIDED, Comparison
from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.experiments.vision.report import drawings
from kansciml.experiments.vision.report import summary as vision_summary
from kansciml.experiments.vision.tables import claims as accuracy_claims
from kansciml.reporting.claims import Claim, claim_table, counted
from kansciml.reporting.style import save_report
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.tables import Table, format_number

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


@dataclass(frozen=True)
class MixerClaim(Claim[VisionGroup]):
    """A claim of the paper on a KAN against its MLP; `found` are both medians, of the MLPs first.

    Args:
        name: a key of `CLAIMED`, ``"accuracy"`` or ``"parameters"``.
        resolved: of the pairs of one KAN and one MLP, the share in which an eigenvalue measure differs in the
            verdict's direction by more than the errors of its probes and of the quadrature; None of the others.
    """

    resolved: float | None = None


def overview_table(record: Record) -> Table:
    """What each kind of model reaches, holds, and how sharp its minima are: what the paper's figure shows."""
    vision, body = _read(record), []
    for group in vision.groups:
        measures = measures_of(record, group)
        values = [over_seeds(measures, name) for name in SHOWN]
        body.append(
            [vision.title(group.task), group.label, group.first.parameters, len(group.rows),
             _plus_minus(group.values(lambda row: row.percent)), group.median(lambda row: row.minimum_loss), *values]
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


def claims(record: Record) -> list[MixerClaim]:
    """The paper's claims on its Figure 3, decided by the seeds of this run.

    Raises:
        KansciError: the record is no finished run of fig3.
    """
    vision, found = _read(record), []
    for claim in accuracy_claims(vision):
        kans, mlps = claim.group, claim.reference
        key = kans.task, kans.name
        sharp = [row for row in record.result["verdicts"] if (row["task"], row["group"]) == key]
        found += [_sharpness(row, kans, mlps) for row in sharp if row["measure"] in CLAIMED]
        tops = [side.median(lambda row: row.percent) for side in (mlps, kans)]
        found.append(MixerClaim(claim.name, claim.text, kans, mlps, claim.outcome, tuple(tops)))
        sizes = [side.first.parameters for side in (mlps, kans)]
        more = counted(
            SUPPORTED if sizes[1] > sizes[0] else REFUTED,
            f"counted: {format_number(sizes[1] / sizes[0])} times as many",
        )
        found.append(MixerClaim("parameters", "more parameters", kans, mlps, more, tuple(sizes)))
    return found


def _sharpness(row: Mapping[str, Any], kans: VisionGroup, mlps: VisionGroup) -> MixerClaim:
    ways = {"sharper": "pairs_sharper", "flatter": "pairs_flatter"}
    resolved = row[ways[row["verdict"]]] / row["pairs"] if row["verdict"] in ways else None
    p_value = math.nan if row["p_value"] is None else row["p_value"]
    outcome = Comparison(
        WORDS[row["verdict"]], p_value, math.nan, math.nan, row["n_b"], row["n_a"], row["reason"]
    )  # the MLPs first, as in the other claims
    measure = row["measure"]
    return MixerClaim(measure, CLAIMED[measure], kans, mlps, outcome, (row["b"], row["a"]), resolved=resolved)


def claims_table(record: Record) -> Table:
    """`claims` as a table."""
    vision = _read(record)
    return claim_table(
        "Claims on Figure 3",
        ["Task", "KAN", "Claim: than the MLP"],
        ["MLP", "KAN "],
        [([vision.title(one.group.task), one.group.label, one.text], one) for one in claims(record)],
        [
            "The paper's claims on its Figure 3. MLP, KAN: medians over seeds. Verdict: exact two-sided Mann-Whitney U"
            f" test over seeds at level {ALPHA:g}; to decide takes at least 4 seeds a side. Of single models: 2"
            " standard errors of the probes, a statement on these two. A number of positive eigenvalues grows with the"
            " number of parameters by itself; their share of all does not. What other measures say is in the"
            " tables of verdicts.",
            "A verdict is on these models, images and epochs: smaller ones than the paper's do not decide its claim.",
        ],
        effect=False,
    )


def summary(record: Record) -> list[Table]:
    """Overview, claims, cost of the trainings, and the verdicts of all measures of sharpness.

    Raises:
        KansciError: the record is no finished run of fig3.
    """
    sharp = hessian.tables(record)[len(record.result["models"]) :]
    return [overview_table(record), claims_table(record), vision_summary(record)[1], *sharp]


def figure3(record: Record) -> Figure:
    """The spectra of every task (`hessian.report.spectra`), and below them accuracies, parameters, counts.

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
        groups = vision.of(task)
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
    """Write ``figure3``, the curves of each task (SVG, PNG and PDF), and ``tables`` (Markdown and JSON) into `folder`.

    Raises:
        KansciError: as for `summary`, or the folder cannot be written.
    """
    tables = [*summary(record), *hessian.tables(record)[: len(record.result["models"])]]
    return save_report(folder, tables, {"figure3": partial(figure3, record), **drawings(_read(record))})


def _read(record: Record) -> VisionRecord:
    vision = VisionRecord.read(record)
    if not {"models", "verdicts"} <= set(record.result):
        raise DamagedRecord(f"{record.folder} holds no spectra: expected a finished run of fig3; run it again")
    return vision


def measures_of(record: Record, group: VisionGroup) -> list[Mapping[str, Any]]:
    """The measures of every model of a group whose spectrum was taken."""
    names = {row.id for row in group.rows}
    return [row["sharpness"]["measures"] for row in record.result["models"] if row["name"] in names]


def over_seeds(measures: list[Mapping[str, Any]], name: str, digits: int = 4) -> str | None:
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


def _accuracy_line(group: VisionGroup) -> str:
    top1 = _plus_minus(group.values(lambda row: row.percent), 3)
    return f"{_short(group)}: {top1 + ' %' if top1 else 'diverged'}, {group.first.parameters:,} parameters"


def _count_line(record: Record, group: VisionGroup) -> str:
    count = over_seeds(measures_of(record, group), "positive_count", 3)
    return f"{_short(group)}: {count or 'none measured'} of {group.first.parameters:,} positive"


def _short(group: VisionGroup) -> str:
    """``KAN, splines`` of ``KAN, splines (G=5, S=3)``."""
    return group.label.partition(" (")[0]
