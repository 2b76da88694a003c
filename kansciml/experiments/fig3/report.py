"""Report of Figure 3 (``kansciml run fig3``): spectra, accuracy and parameters side by side. Reads the record only."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.analysis.paired import REFUTED, SUPPORTED
from kansciml.experiments.fig3.generalisation import accuracy_against_sharpness, batch_table, correlation_table
from kansciml.experiments.fig3.record import Fig3Record
from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.hessian.claims import EXACT, SharpnessClaim, family, sharpness_claims
from kansciml.experiments.vision.record import VisionGroup
from kansciml.experiments.vision.report import claims as accuracy_claims
from kansciml.experiments.vision.report import drawings
from kansciml.experiments.vision.report import summary as vision_summary
from kansciml.reporting.claims import claim_table, counted, in_families
from kansciml.reporting.groups import plus_minus
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = {
    "positive_exact": "Positive eigenvalues",
    "positive_exact_share": "of all",
    "zero_exact": "Zero",
    "count_above_0.01_top": "> 1 % of the largest",
    "top": "Largest",
    "adaptive_top": "largest of |w| H |w|",
    "negative_mass": "Negative mass",
}
"""Measure -> heading."""


def overview_table(fig3: Fig3Record) -> Table:
    """What each kind of model reaches, holds, and how sharp its minima are: what the paper's figure shows."""
    body = [
        [fig3.title(group.task), group.label, group.first.parameters, len(group.rows),
         plus_minus(group.values(lambda row: row.percent)), group.median(lambda row: row.minimum_loss),
         100 * fig3.flattened(group), *(_cell(fig3, group, name) for name in COLUMNS)]
        for group in fig3.groups
    ]  # fmt: skip
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "Loss", "Flattened (%)", *COLUMNS.values()]
    notes = [
        "Top-1: test images, mean over seeds +- standard error. Loss: median, mean cross-entropy over at most 512"
        " training images, of which the spectra take all or the first. Flattened: trainings whose loss fell by less"
        " than 1 % over the last fifth of the epochs. Positive, zero: of all eigenvalues where they are known, beyond"
        " and within rounding (`model tables`), else by quadrature, above 1e-6 of the largest. Measures:"
        " mean over seeds +- standard error, of a single seed over its probes, and half the width of what the"
        " quadrature leaves open. Negative mass: share of sum |eigenvalue| below zero. Largest of |w| H |w|: does not"
        " change when layers of a ReLU network are rescaled.",
        "Over n images of c classes the Gauss-Newton part of a Hessian has a rank of at most n (c - 1): numbers of"
        " positive eigenvalues belong to the images that they were counted over.",
    ]
    return Table("Figure 3: accuracy, parameters and spectra", columns, body, notes)


def _cell(fig3: Fig3Record, group: VisionGroup, name: str) -> str | None:
    return fig3.measured(group, name) or (fig3.measured(group, EXACT[name]) if name in EXACT else None)


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
    further = [batch_table(fig3), correlation_table(fig3)]
    kept = [table for table in further if table is not None and table.rows]
    return [overview_table(fig3), claims_table(fig3), *kept, cost, *hessian.verdict_tables(fig3.hessian)]


def figure3(fig3: Fig3Record) -> Figure:
    """The spectra of every task (`hessian.report.spectra`), and beside them the accuracy of every seed against
    parameters, where there are several.

    Call it within `publication_style`.
    """
    titles = {task: fig3.title(task) for task in fig3.tasks}
    labels = {group.name: group.label for group in fig3.groups}
    several = any(len(group.rows) > 1 for group in fig3.groups)
    return hessian.spectra(fig3.hessian, titles, labels, partial(_accuracies, fig3) if several else None)


def _accuracies(fig3: Fig3Record, axes: Axes, task: str) -> None:
    for group in fig3.of(task):
        style, top1 = fig3.styles[group.first.look], group.values(lambda row: row.percent)
        at = [group.first.parameters] * len(top1)
        axes.plot(at, top1, style.marker, color=style.colour, markersize=3.5, alpha=0.6, markeredgewidth=0)
    axes.set(xscale="log", ylabel="test accuracy (%)", title="Accuracy")
    axes.margins(x=0.25)
    if task == fig3.tasks[-1]:
        axes.set_xlabel("parameters")


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``figure3``, the curves of each task (SVG, PNG, PDF), and ``tables`` (Markdown and JSON) into `folder`."""
    fig3 = Fig3Record.read(record)
    tables = [*summary(record), *map(hessian.model_table, fig3.hessian.models)]
    own = {draw.__name__: partial(draw, fig3) for draw in (figure3, accuracy_against_sharpness)}
    return save_report(folder, tables, own | drawings(fig3))
