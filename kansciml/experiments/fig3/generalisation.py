"""Whether sharp minima generalise worse: accuracy against sharpness over all models, and small against large batches.

Reads the record only. Section 2.2 of the paper: large batches converge to sharp minima and generalise worse, KANs
"exacerbate the issue", and "this sharpness strongly correlates with poor generalization performance".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from kansciml.analysis.exact_tests import RankCorrelation, holm, rank_correlation
from kansciml.analysis.hessian import compare_sharpness
from kansciml.analysis.paired import DIFFERENCE, compare
from kansciml.experiments.fig3.record import Fig3Record
from kansciml.experiments.hessian.claims import CLAIMED, EXACT, SharpnessClaim, family
from kansciml.experiments.vision.record import VisionGroup
from kansciml.experiments.vision.report import points
from kansciml.reporting.claims import claim_table, in_families
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.style import new_figure
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "positive_exact_share": "share of positive eigenvalues",
    "count_above_0.01_top": "eigenvalues above 1 % of the largest",
    "top": "largest eigenvalue",
    "trace": "trace",
    "adaptive_top": "largest eigenvalue of |w| H |w|",
}
"""What accuracies are correlated with; the first gives way to `positive_share` where not all eigenvalues are known."""
DRAWN = ("positive_exact_share", "top", "adaptive_top")
FEWEST = 5
"""Models of which a correlation is taken."""


@dataclass(frozen=True)
class Correlation:
    """Kendall's tau-b of a measure of sharpness with test accuracy: below 0 where sharper is worse.

    Args:
        measure, text: which. models: over which, in words; `within`: over the seeds of each kind, by ranks among them.
        found: tau, interval and p-value. adjusted_p: after Holm's correction over all of the table.
    """

    measure: str
    text: str
    models: str
    within: bool
    found: RankCorrelation
    adjusted_p: float


def correlations(fig3: Fig3Record) -> list[Correlation]:
    """Of every measure: over all models of each task, and within the kinds of all tasks."""
    rows: list[tuple[str, str, str, bool, RankCorrelation]] = []
    for name in measures_of(fig3):
        text = MEASURES.get(name, MEASURES["positive_exact_share"])
        known = {(group.task, group.name): pairs(fig3, group, name) for group in fig3.groups}
        tasks = {task: [own for (of, _), own in known.items() if of == task] for task in fig3.tasks}
        sets = [(fig3.title(task), False, np.concatenate(own)) for task, own in tasks.items()]
        ranked = [_ranks(own) for own in known.values() if len(own) > 1]
        sets += [("seeds of each kind", True, np.concatenate(ranked))] if ranked else []
        for models, within, both in sets:
            if len(both) >= FEWEST and np.ptp(both[:, 0]) > 0 and np.ptp(both[:, 1]) > 0:
                rows.append((name, text, models, within, rank_correlation(both[:, 0], both[:, 1])))
    adjusted = holm([row[-1].p_value for row in rows])
    return [Correlation(*row, one) for row, one in zip(rows, adjusted)]


def measures_of(fig3: Fig3Record) -> list[str]:
    """Names of `MEASURES` that all models have."""
    known = [one.sharpness.measures for one in fig3.hessian.models]
    exact = all("positive_exact_share" in own for own in known)
    names = [name if exact or name not in EXACT else EXACT[name] for name in MEASURES]
    return [name for name in names if all(name in own for own in known)]


def pairs(fig3: Fig3Record, group: VisionGroup, name: str) -> Float64[np.ndarray, "models 2"]:
    """A measure and the accuracy in percent, of each model of a group that has both."""
    of = {one.name: one.sharpness.measures for one in fig3.hessian.models}
    found = [
        (of[row.id][name].value, row.percent)
        for row in group.rows
        if row.id in of and name in of[row.id] and row.percent is not None
    ]
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _ranks(points: np.ndarray) -> np.ndarray:
    """Midranks of each column, from 0 to 1."""
    ordered = np.sort(points, axis=0)
    sides = [[np.searchsorted(ordered[:, k], points[:, k], side) for k in (0, 1)] for side in ("left", "right")]
    return (np.array(sides[0]) + np.array(sides[1]) - 1).T / (2 * max(len(points) - 1, 1))


def correlation_table(fig3: Fig3Record) -> Table:
    """`correlations` as a table."""
    rows = [(one, one.found) for one in correlations(fig3)]
    body = [
        [one.text, one.models, found.n, found.tau, found.low, found.high, found.p_value, one.adjusted_p]
        for one, found in rows
    ]
    notes = [
        "Kendall's tau-b of the measure with the test accuracy: -1 if the sharper model is always the worse one, 0 if"
        " nothing follows. Over all models of a task kinds and sizes differ too, which may make both; within the seeds"
        " of each kind, by ranks among them, nothing but chance does. p after Holm: over this table.",
    ]
    columns = ["Measure", "Models", "Number", "tau", "from", "to", "p", "p after Holm"]
    return Table("Does sharpness predict accuracy?", columns, body, notes)


def batch_claims(fig3: Fig3Record) -> list[SharpnessClaim[VisionGroup]]:
    """Of every kind trained with several sizes of batches: large ones give sharper minima and a lower accuracy."""
    found = []
    for small, large in batch_pairs(fig3.groups):
        sides = [fig3.sharpness(group) for group in (large, small)]
        names = CLAIMED.keys() - (EXACT.values() if fig3.exact else EXACT.keys())
        for one in compare_sharpness(*sides) if all(sides) else ():
            if one.measure in names:
                text = CLAIMED[one.measure]
                found.append(SharpnessClaim(one.measure, text, large, small, one.outcome, (one.b, one.a)))
        scores = [side.by_seed(points) for side in (large, small)]
        outcome = compare(*scores, below=0, scale=DIFFERENCE, text="lower with large batches")
        tops = tuple(side.median(lambda row: row.percent) for side in (small, large))
        found.append(SharpnessClaim("accuracy", "lower final accuracy (%)", large, small, outcome, tops))
    return in_families(found, family)


def batch_pairs(groups: Iterable[VisionGroup]) -> list[tuple[VisionGroup, VisionGroup]]:
    """Groups of one kind of one model, with the smallest and the largest batches that there are."""
    kinds: dict[tuple[str, str], list[VisionGroup]] = {}
    for group in groups:
        kinds.setdefault((group.first.model, group.name), []).append(group)
    sizes = [sorted(own, key=lambda group: group.first.batch_size) for own in kinds.values()]
    return [(own[0], own[-1]) for own in sizes if own[0].first.batch_size < own[-1].first.batch_size]


def batch_table(fig3: Fig3Record) -> Table | None:
    """`batch_claims` as a table; None where all batches are of one size."""
    found = batch_claims(fig3)
    if not found:
        return None
    sizes = [f"batches of {side.first.batch_size}" for side in (found[0].reference, found[0].group)]
    return claim_table(
        "Large batches against small ones",
        ["Task", "Model", "Claim: with large batches"],
        "Large - small",
        [([fig3.title(one.group.task), one.group.label, one.text], one) for one in found],
        ["Medians over seeds. The claims on eigenvalues are one family (section 2.2, after Keskar et al. 2016)."],
        sizes,
    )


def accuracy_against_sharpness(fig3: Fig3Record) -> Figure | None:
    """Test accuracy of every model against its sharpness: a row per task, a column per measure; None without any, or
    of fewer models than could show anything."""
    known = measures_of(fig3)
    shown = [name for name in (one if one in known else EXACT.get(one, one) for one in DRAWN) if name in known]
    if not shown or sum(len(group.rows) for group in fig3.groups) < FEWEST * len(fig3.tasks):
        return None
    figure = new_figure(0.3 + 2.0 * len(fig3.tasks))
    panels = figure.subplots(len(fig3.tasks), len(shown), sharex="col", squeeze=False)
    labels: dict[str, str] = {}
    for line, task in zip(panels, fig3.tasks):
        for axes, name in zip(line, shown):
            for group in fig3.of(task):
                style, drawn = fig3.styles[group.first.look], pairs(fig3, group, name)
                axes.plot(*drawn.T, style.marker, color=style.colour, markersize=4, alpha=0.8, markeredgewidth=0)
                labels.setdefault(group.first.look, group.first.plain_label)
            if not name.startswith("positive"):
                axes.set_xscale("log")
        line[0].set_ylabel("test accuracy (%)")
        line[len(shown) // 2].set_title(fig3.title(task))
    for axes, name in zip(panels[-1], shown):
        axes.set_xlabel(MEASURES.get(name, MEASURES["positive_exact_share"]))
    handles: Sequence = [key(fig3.styles[look], label, line=False) for look, label in labels.items()]
    place_legend(figure, handles, "mark: one seed")
    return figure
