"""Report of Figure 3 (``kansciml run fig3``): spectra, accuracy and parameters side by side. Reads the record only."""

from __future__ import annotations

import math
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import REFUTED, SUPPORTED
from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.hessian.claims import SharpnessClaim, family, sharpness_claims
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.experiments.vision.report import claims as accuracy_claims
from kansciml.experiments.vision.report import drawings
from kansciml.experiments.vision.report import summary as vision_summary
from kansciml.reporting.claims import claim_table, counted, in_families
from kansciml.reporting.groups import mean_error, plus_minus
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = {
    "positive_count": "Positive eigenvalues",
    "positive_share": "of all",
    "count_above_0.01_top": "> 1 % of the largest",
    "top": "Largest",
    "adaptive_top": "largest of |w| H |w|",
    "negative_mass": "Negative mass",
}
"""Measure -> heading."""
LINE_HEIGHT = 0.13
"""Inches of a line of text below a panel."""


def overview_table(fig3: Fig3Record) -> Table:
    """What each kind of model reaches, holds, and how sharp its minima are: what the paper's figure shows."""
    body = [
        [fig3.title(group.task), group.label, group.first.parameters, len(group.rows),
         plus_minus(group.values(lambda row: row.percent)), group.median(lambda row: row.minimum_loss),
         *(fig3.measured(group, name) for name in COLUMNS)]
        for group in fig3.groups
    ]  # fmt: skip
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "Loss", *COLUMNS.values()]
    notes = [
        "Top-1: test images, mean over seeds +- standard error. Loss: median, mean cross-entropy over at most 512"
        " training images, of which the spectra take all or the first. Positive: above 1e-6 of the largest. Measures:"
        " mean over seeds +- standard error, of a single seed over its probes, and half the width of what the"
        " quadrature leaves open. Negative mass: share of sum |eigenvalue| below zero. Largest of |w| H |w|: does not"
        " change when layers of a ReLU network are rescaled.",
    ]
    return Table("Figure 3: accuracy, parameters and spectra", columns, body, notes)


def claims(fig3: Fig3Record) -> list[SharpnessClaim[VisionGroup]]:
    """The paper's claims on its Figure 3, decided by the seeds of this run; `found` are medians, effects KAN - MLP.

    Their names: those of `sharpness_claims`, ``"accuracy"`` and ``"parameters"``.
    """
    found = []
    for claim in accuracy_claims(fig3):
        kans, mlps = claim.group, claim.reference
        found += sharpness_claims(fig3.hessian, kans, mlps)
        tops = [side.median(lambda row: row.percent) for side in (mlps, kans)]
        found.append(SharpnessClaim(claim.name, claim.text, kans, mlps, claim.outcome, tuple(tops)))
        few, many = mlps.first.parameters, kans.first.parameters
        reason = f"counted: {format_number(many / few)} times as many"
        more = counted(SUPPORTED if many > few else REFUTED, reason)
        found.append(SharpnessClaim("parameters", "more parameters", kans, mlps, more, (few, many)))
    return in_families(found, family)


def claims_table(fig3: Fig3Record) -> Table:
    """`claims` as a table."""
    return claim_table(
        "Claims on Figure 3",
        ["Task", "KAN", "Claim: than the MLP"],
        "KAN - MLP",
        [([fig3.title(one.group.task), one.group.label, one.text], one) for one in claims(fig3)],
        [
            "MLP, KAN: medians over seeds. Of single models: 2 standard errors of the probes, a statement on these two."
            " The claims on eigenvalues are one family. A number of positive eigenvalues grows with the"
            " number of parameters by itself; their share of all does not. What other measures say is in the"
            " tables of verdicts.",
            "A verdict is on these models, images and epochs: smaller ones than the paper's do not decide its claim.",
        ],
        ["MLP", "KAN "],
    )


def summary(record: Record) -> list[Table]:
    """Overview, claims, cost of the trainings, and the verdicts of all measures of sharpness."""
    fig3 = Fig3Record.read(record)
    cost = vision_summary(record)[1]
    return [overview_table(fig3), claims_table(fig3), cost, *hessian.verdict_tables(fig3.hessian)]


def figure3(fig3: Fig3Record) -> Figure:
    """The spectra of every task (`hessian.report.spectra`), and below them accuracies, parameters, counts.

    Call it within `publication_style`.
    """
    titles = {task: fig3.title(task) for task in fig3.tasks}
    figure = hessian.spectra(fig3.hessian, titles, {group.name: group.label for group in fig3.groups})
    per_task = len(figure.axes) // len(fig3.tasks)
    for number, task in enumerate(fig3.tasks):
        names = {fig3.styles[group.first.look].name: group for group in fig3.of(task)}
        left, *others = figure.axes[number * per_task : (number + 1) * per_task]
        left.set_xlabel("\n".join(["eigenvalue", *(f"{name}: {_accuracy(one)}" for name, one in names.items())]))
        for axes in others:
            axes.set_xlabel("\n".join(["eigenvalue", *(f"{name}: {_count(fig3, one)}" for name, one in names.items())]))
    width, height = figure.get_size_inches()
    lines = len(fig3.groups) + 2 * len(fig3.tasks)
    figure.set_size_inches(width, height + LINE_HEIGHT * lines)
    return figure


def _accuracy(group: VisionGroup) -> str:
    top1 = plus_minus(group.values(lambda row: row.percent))
    return f"{top1 + ' %' if top1 else 'diverged'}, {group.first.parameters:,} parameters"


def _count(fig3: Fig3Record, group: VisionGroup) -> str:
    count = fig3.measured(group, "positive_count", 3)
    return f"{count or 'none measured'} of {group.first.parameters:,} positive"


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``figure3``, the curves of each task (SVG, PNG, PDF), and ``tables`` (Markdown and JSON) into `folder`."""
    fig3 = Fig3Record.read(record)
    tables = [*summary(record), *map(hessian.model_table, fig3.hessian.models)]
    return save_report(folder, tables, {"figure3": partial(figure3, fig3), **drawings(fig3)})


class Fig3Record(VisionRecord):
    """Trainings, and spectra of what they ended at; the name of a measured model is the id of its training."""

    @cached_property
    def hessian(self) -> HessianRecord:
        """What was measured. Raises DamagedRecord: the record has none of it."""
        return HessianRecord.read(self.record)

    def measured(self, group: VisionGroup, name: str, digits: int = 4) -> str | None:
        """A measure's mean +- standard error over the seeds, or over the probes of one; None where there is none.

        The error includes what the quadrature leaves open; one of nothing but rounding is left out.
        """
        ids = {row.id for row in group.rows}
        models = [one.sharpness.measures for one in self.hessian.models if one.name in ids]
        found = [measures[name] for measures in models if name in measures]
        if not found:
            return None
        value, error = mean_error([one.value for one in found])
        error = math.hypot(error, float(np.mean([one.upper - one.lower for one in found])) / 2)
        if len(found) == 1:  # whose standard error includes that
            error = found[0].standard_error
        return format_number(value, digits) + (f" +- {format_number(error, 2)}" if error > 1e-6 * abs(value) else "")
