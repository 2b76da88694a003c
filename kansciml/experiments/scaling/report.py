"""Report of the study of size (``kansciml run scaling``): reads the record only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import REFUTED, SUPPORTED, UNDECIDED, Comparison
from kansciml.experiments.scaling.record import MODELS, ScalingRecord
from kansciml.reporting.claims import STANDS, effect_text
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import VariantStyle, variant_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHO = {SUPPORTED: "KAN's error falls faster", REFUTED: "MLP's error falls faster", UNDECIDED: UNDECIDED}
COLUMNS = 4


def exponents_table(found: ScalingRecord) -> Table:
    """Exponents of both networks on every task, which is larger, and what is left of it without the ends."""
    rows, ends, lasting = [], found.without_ends(), found.lasting()
    for task, outcome in found.faster().items():
        own = [effect_text(found.exponent(task, model), 2) for model in MODELS]
        others = [effect_text(one, 2) + STANDS * (one.corrected != UNDECIDED) for one in ends[task]]
        difference = effect_text(outcome, 2) + STANDS * (outcome.corrected != UNDECIDED)
        rows.append([found.titles[task], *own, difference, outcome.adjusted_p, *others, WHO[lasting[task]]])
    columns = ["Task", *(f"{name}, exponent" for name in MODELS.values()), "KAN - MLP", "p adjusted"]
    columns += ["without the smallest", "without the largest", "Verdict"]
    n = found.n_seeds
    said = list(lasting.values())
    notes = (
        f"Errors of KANs fall faster with size on {said.count(SUPPORTED)} of {len(said)} tasks, those of MLPs on"
        f" {said.count(REFUTED)}; {said.count(UNDECIDED)} are undecided.",
        f"Exponent a of error ~ P^-a, P parameters, fitted to each of {n} seeds; estimate and interval of"
        f" {100 * (1 - ALPHA):g} % over the seeds. With * a difference stands after Holm's correction over the tasks,"
        " by exact signed-rank tests of exponents paired by seed. The verdict is of a law over all sizes: it takes all"
        " three differences on one side, each with *.",
        f"{_ended(found)} All sizes had the same iterations: exponents are of this budget.",
    )
    return Table("Does error fall faster with the size of KANs?", columns, rows, notes)


def ratios_table(found: ScalingRecord) -> Table:
    """Who errs less at each size."""
    outcomes = found.lower()
    rows = [[found.titles[task], *(_ratio(outcomes[task, limit]) for limit in found.limits)] for task in found.tasks]
    note = (
        f"Error of the KAN over that of the MLP, paired over {found.n_seeds} seeds; below 1 the KAN errs less. With *"
        f" this stands after Holm's correction over all {len(outcomes)}."
    )
    return Table(
        "Who errs less at each size", ["Task", *(f"{limit} parameters" for limit in found.limits)], rows, [note]
    )


def _ratio(outcome: Comparison) -> str:
    return format_number(outcome.effect, 2) + STANDS * (outcome.corrected != UNDECIDED)


def _ended(found: ScalingRecord) -> str:
    ended = sum(point.ended == "converged" for point in found.points)
    return f"{ended} of {len(found.points)} trainings ended on a plateau, the others at their cap or in noise."


def errors_table(found: ScalingRecord) -> Table:
    """Median errors of every size."""
    rows = []
    for task in found.tasks:
        for model, name in MODELS.items():
            own = {point.limit: point for point in found.of(task, model)}
            cells = []
            for limit in found.limits:
                errors = [point.error for point in found.of(task, model) if point.limit == limit]
                cells.append(float(np.median(errors)) if errors else None)
            rows.append([found.titles[task], name, own[min(own)].label, own[max(own)].label, *cells])
    columns = ["Task", "Network", "Smallest", "Largest", *(f"{limit} parameters" for limit in found.limits)]
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
    """Exponents and what they decide, who errs less, then the errors."""
    found = ScalingRecord.read(record)
    return [exponents_table(found), ratios_table(found), errors_table(found)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``scaling`` (SVG, PNG, PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    found = ScalingRecord.read(record)
    return save_report(folder, summary(record), {"scaling": partial(scaling_figure, found)})
