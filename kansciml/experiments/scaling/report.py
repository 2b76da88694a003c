"""Report of the study of size (``kansciml run scaling``): reads the record only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import REFUTED, SUPPORTED, UNDECIDED
from kansciml.experiments.scaling.record import MODELS, ScalingRecord
from kansciml.reporting.claims import STANDS, effect_text
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import VariantStyle, variant_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHO = {SUPPORTED: "KAN's error falls faster", REFUTED: "MLP's error falls faster", UNDECIDED: UNDECIDED}
COLUMNS = 4


def exponents_table(found: ScalingRecord) -> Table:
    """Exponents of both networks on every task, and which is larger."""
    rows = []
    for task, outcome in found.faster().items():
        own = [effect_text(found.exponent(task, model), 2) for model in MODELS]
        said = WHO[outcome.verdict] + STANDS * (outcome.corrected != UNDECIDED)
        rows.append([found.titles[task], *own, effect_text(outcome, 2), outcome.p_value, outcome.adjusted_p, said])
    columns = ["Task", *(f"{name}, exponent" for name in MODELS.values()), "KAN - MLP", "p", "p adjusted", "Verdict"]
    n = found.n_seeds
    notes = (
        f"Exponent a of error ~ P^-a, P parameters, fitted to each of {n} seeds; estimate and interval of"
        f" {100 * (1 - ALPHA):g} % over the seeds. The verdict is of exact signed-rank tests of exponents paired by"
        " seed, by itself; with * it stands after Holm's correction over the tasks.",
        f"{_ended(found)} All sizes had the same iterations: exponents are of this budget.",
    )
    return Table("Does error fall faster with the size of KANs?", columns, rows, notes)


def _ended(found: ScalingRecord) -> str:
    ended = sum(point.ended == "converged" for point in found.points)
    return f"{ended} of {len(found.points)} trainings ended on a plateau, the others at their cap or in noise."


def errors_table(found: ScalingRecord) -> Table:
    """Median errors of every size."""
    rows = []
    limits = sorted({point.limit for point in found.points})
    for task in found.tasks:
        for model, name in MODELS.items():
            own = {point.limit: point for point in found.of(task, model)}
            cells = []
            for limit in limits:
                errors = [point.error for point in found.of(task, model) if point.limit == limit]
                cells.append(float(np.median(errors)) if errors else None)
            rows.append([found.titles[task], name, own[min(own)].label, own[max(own)].label, *cells])
    columns = ["Task", "Network", "Smallest", "Largest", *(f"{limit} parameters" for limit in limits)]
    note = "Root mean square error, relative (functions: on fresh points; systems: on the training span); medians."
    return Table("Errors by size", columns, rows, [note])


def scaling_figure(found: ScalingRecord) -> Figure:
    """A panel per task: errors against parameters."""
    columns = min(COLUMNS, len(found.tasks))
    rows = -(-len(found.tasks) // columns)
    figure = new_figure(0.3 + 1.9 * rows)
    panels = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for axes, task in zip(panels, found.tasks):
        _panel(axes, found, task)
    for axes in panels[len(found.tasks) :]:
        axes.remove()
    for axes in panels[max(len(found.tasks) - columns, 0) : len(found.tasks)]:
        axes.set_xlabel("parameters")
    for axes in panels[: len(found.tasks) : columns]:
        axes.set_ylabel("relative error")
    n = found.n_seeds
    note = f"marks: {n} seed{'s' * (n != 1)}; lines: medians; a: exponent with its {100 * (1 - ALPHA):g} % interval"
    place_legend(figure, [key(style) for style in _styles().values()], note)
    return figure


def _styles() -> Mapping[str, VariantStyle]:
    return variant_styles(MODELS)


def _panel(axes: Axes, found: ScalingRecord, task: str) -> None:
    for place, (model, style) in enumerate(_styles().items()):
        own = [point for point in found.of(task, model) if np.isfinite(point.error)]
        axes.plot(
            [point.n_parameters for point in own], [point.error for point in own], style.marker, color=style.colour,
            markersize=2.2, alpha=0.35, markeredgewidth=0,
        )  # fmt: skip
        sizes, errors = found.medians(task, model)
        axes.plot(sizes, errors, color=style.colour, linestyle=style.line)
        said = found.exponent(task, model)
        if said.n_pairs:
            axes.annotate(
                f"a = {effect_text(said, 2)}", (0.03, 0.03 + 0.1 * (1 - place)), xycoords="axes fraction", fontsize=6,
                color=style.colour,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", title=found.titles[task])
    low, high = axes.get_ylim()
    axes.set_ylim(low / (high / low) ** 0.3, high)  # room for the exponents


def summary(record: Record) -> list[Table]:
    """Exponents and what they decide, then the errors."""
    found = ScalingRecord.read(record)
    return [exponents_table(found), errors_table(found)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``scaling`` (SVG, PNG, PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    found = ScalingRecord.read(record)
    return save_report(folder, summary(record), {"scaling": partial(scaling_figure, found)})
