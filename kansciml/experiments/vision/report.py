"""Report of trained image classifiers (``kansciml vision``, Table 1, Figure 3): reads the record only.

Of the record's result, ``data`` holds `ImagesRow` by name and ``runs`` `VisionRow`. Arrays of a run, (epochs,):
``<id>.epoch``, ``.step``, ``.loss``, ``.accuracy`` (training), ``.test_loss``, ``.test_top1``, ``.test_top5``,
``.learning_rate``, ``.images_per_s``, ``.train_s`` (seconds without evaluations), ``.cpu_s`` (those of the
processor, on one alone); and ``.confusion`` (classes,
classes), rows true.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.paired import DIFFERENCE, compare
from kansciml.experiments.minibatch import figures as drawn
from kansciml.experiments.minibatch import record as minibatch
from kansciml.experiments.minibatch.figures import TIMES, TITLE, Column, Curve, legend, time_of
from kansciml.experiments.vision.record import ImagesRecord, V, VisionRecord, VisionRow
from kansciml.reporting.claims import POINTS, Claim, claim_table, in_families
from kansciml.reporting.groups import Group, diverged_notes, over
from kansciml.reporting.style import new_figure, save_report
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
FEWEST = 6
"""Trained networks of which a scatter is drawn."""
ROWS = (Curve("loss", "training loss", log=True), Curve("test_top1", "test accuracy (%)", scale=100))


def accuracy_table(vision: ImagesRecord[V]) -> Table:
    """What each kind of model reaches on the test images."""
    rows = []
    for group in vision.groups:
        row = [vision.title(group.task), group.label, group.first.parameters, len(group.rows)]
        row += [group.median(lambda row: row.percent), *group.spread(lambda row: row.percent)]
        row += [group.median(lambda row: row.percent5), 100 * group.median(lambda row: row.best_top1)]
        row += [group.median(lambda row: row.loss), group.median(lambda row: row.train_loss), group.first.epochs]
        rows.append(row)
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "min", "max", "Top-5 (%)", "best epoch (%)"]
    notes = [
        "Test images; median over the seeds that did not diverge. Scores are of the weights of the last step (their"
        " average, where there is one), not of the best epoch. Best epoch: chosen by the test images, so too good."
        " Train loss: mean over the last epoch, with augmentation and label smoothing."
    ]
    columns += ["Test loss", "Train loss", "Epochs"]
    return Table("Accuracy", columns, rows, notes + diverged_notes(vision.groups))


def cost_table(vision: ImagesRecord[V]) -> Table:
    """What each kind of model costs, and in units of the MLP."""

    def further(own: V, base: V | None) -> tuple[object, ...]:
        flops = own.mixing_flops
        return own.printed, None if flops is None else flops / 1e6, over(flops, base.mixing_flops if base else None)

    note = (
        "Printed: by the paper, for this very configuration. MFLOPs: forward, per image, of the MLPs or of the KANs in"
        " their place alone. "
    )
    columns = ("printed", "MFLOPs", "FLOPs over MLP")
    return minibatch.cost_table(vision, "Images", lambda row: row.images_per_s, columns, further, note)


def claims(vision: ImagesRecord[V]) -> list[Claim[Group[V]]]:
    """That the MLP ends at a higher accuracy than each of the KANs of its task."""
    found = []
    for group, base in vision.pairs():
        sides = (one.by_seed(points) for one in (group, base))
        outcome = compare(*sides, below=0, scale=DIFFERENCE, text="KAN lower")
        found.append(Claim("accuracy", "lower final accuracy (%)", group, base, outcome))
    return in_families(found)


def points(row: VisionRow) -> float:
    """Top-1 accuracy in percent; minus infinity if the training diverged."""
    return 100 * (1 - row.error)


def verdict_table(vision: ImagesRecord[V]) -> Table | None:
    """Does the MLP end at a higher test accuracy than the KAN? None where there are not both."""
    found = claims(vision)
    if not found:
        return None
    return claim_table(
        "Claim: the KAN ends at a lower test accuracy than the MLP",
        ["Task", "Model", "Paper"],
        POINTS,
        [([vision.title(claim.group.task), claim.group.label, claim.paper], claim) for claim in found],
        ["Paper: Pal & Das (2024, section 4.2) claim it of all their vision tasks."],
    )


def curves(vision: ImagesRecord[V], task: str) -> Figure:
    """Training loss and test accuracy, against epochs and against seconds of training."""
    groups = vision.of(task)
    figure = drawn.curves(vision, task, ROWS, [Column("", groups), Column("", groups, over_time=True)])
    ends = [np.nanmax(seconds) for seconds in (group.curves(time_of(groups)) for group in groups) if seconds.size]
    if ends and max(ends) > 8 * min(ends):
        figure.axes[-1].set_xscale("log")
    return figure


def accuracy_against_cost(vision: ImagesRecord[V], task: str) -> Figure | None:
    """Test accuracy of every seed against parameters, and against seconds of training in all; None of fewer than three
    kinds of networks or of a few of them, which a table tells better."""
    groups = [group for group in vision.of(task) if group.n_diverged < len(group.rows)]
    if len(groups) < 3 or sum(len(group.rows) for group in groups) < FEWEST:
        return None
    clock = time_of(groups)
    figure = new_figure(2.3)
    panels = figure.subplots(1, 2, sharey=True)
    for group in groups:
        style = vision.styles[group.first.look]
        top1, parameters = group.values(lambda row: row.percent), group.values(lambda row: row.parameters)
        seconds = [group.arrays[f"{row.id}.{clock}"][-1] for row in group.rows if not row.diverged]
        for axes, costs in zip(panels, (parameters, seconds)):
            axes.plot(costs, top1, style.marker, color=style.colour, markersize=4, alpha=0.8, markeredgewidth=0)
    for axes, name in zip(panels, ("parameters", TIMES[clock])):
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.12)
        axes.set_xlabel(name)
    panels[0].set_ylabel("test accuracy (%)")
    figure.suptitle(vision.title(task), fontsize=TITLE)
    legend(figure, vision, task, "mark: one seed", line=False)
    return figure


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
