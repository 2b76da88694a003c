"""Report of the study of refinement (``kansciml run refine``): reads the record only."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.exact_tests import ALPHA
from kansciml.analysis.paired import SUPPORTED, UNDECIDED
from kansciml.experiments.functions.record import FunctionsRecord, Run
from kansciml.experiments.refine.record import COSTS, OPTIMISERS, Matched, RefineRecord, title
from kansciml.reporting.claims import STANDS, effect_text
from kansciml.reporting.legends import key, place_legend
from kansciml.reporting.palette import REFINED, SEQUENCE, VariantStyle, variant_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 60
"""Costs at which medians over seeds are drawn."""


def errors_table(found: RefineRecord) -> Table:
    """Median errors at the end, and what the trainings took."""
    rows = []
    for variant in found.variants:
        for how, name in OPTIMISERS.items():
            runs = [found.of(target, (variant, how)) for target in found.targets]
            every = [run for own in runs for run in own]
            spent = [float(np.median([run.curve[of][-1] for run in every])) for of in ("flops", "seconds")]
            errors = [float(np.median([run.error for run in own])) for own in runs]
            rows.append([title(variant), name, every[0].n_parameters, *errors, *spent])
    columns = ["Network", "Optimiser", "Parameters", *found.targets, "FLOPs of training", "Seconds"]
    n = found.found.n_seeds
    note = f"Root mean square error on fresh points, in standard deviations of the function, after the same number of\
 iterations; median over {n} seeds. Of a system: of its training data, relative to their scale. Parameters: at the end,\
 on the first function."
    return Table("Errors at the end of training", columns, rows, [note])


def verdict_tables(found: RefineRecord) -> list[Table]:
    """A table per question, a row per pair of trainings, a column per function and cost."""
    tables = []
    for question, pairs in found.pairs().items():
        by = {cost: found.matched(question, cost) for cost in COSTS}
        rows = []
        for a, b in pairs:
            how = OPTIMISERS[a[1]] if a[1] == b[1] else "L-BFGS : Adam"
            names = f"{title(a[0])} : {title(b[0])}" if a[0] != b[0] else title(a[0])
            own = [one for cost in COSTS for one in by[cost] if (one.a, one.b) == (a, b)]
            rows.append([names, how, *map(_cell, own)])
        columns = [question, "Optimiser", *(f"{name}, {said}" for said in COSTS.values() for name in found.targets)]
        notes = (
            "Cell: ratio of the errors, first over second, when both have cost as much as the one that ended on less;"
            f" its interval of {100 * (1 - ALPHA):g} % over {found.found.n_seeds} paired seeds; < or >: lower or higher"
            f" by itself, with {STANDS.strip()} after Holm's correction over the table's columns of that cost.",
        )
        tables.append(Table(f"{question}?", columns, rows, notes))
    return tables


def _cell(one: Matched) -> str:
    mark = {SUPPORTED: " <", UNDECIDED: ""}.get(one.outcome.verdict, " >")
    return f"{effect_text(one.outcome, 2)}{mark}{STANDS * (one.outcome.corrected != UNDECIDED)}"


def styles(found: RefineRecord) -> dict[str, VariantStyle]:
    """Look of each network: fixed grids from pale to dark."""
    made = {"refined": VariantStyle(title("refined"), REFINED, "-", "v")}
    tones = np.linspace(0, len(SEQUENCE) - 1, len(found.fixed)).round().astype(int)
    for variant, tone in zip(found.fixed, tones):
        made[variant] = VariantStyle(title(variant), SEQUENCE[tone], (0, (5, 1.5)), "o")
    return {**made, **variant_styles(["mlp"])}


def refine_figure(found: RefineRecord) -> Figure:
    """Median error against FLOPs of training, a column per function, a row per optimiser."""
    looks = styles(found)
    named = {one.name: one.formula.partition(",")[0] for one in found.found.targets if one.kind == "system"}
    figure = new_figure(3.9)
    grid = figure.subplots(len(OPTIMISERS), len(found.targets), sharex=True, sharey="col", squeeze=False)
    for row, (how, name) in zip(grid, OPTIMISERS.items()):
        for axes, target in zip(row, found.targets):
            for variant in found.variants:
                cost, error = median_curve(found.of(target, (variant, how)))
                width = 1.8 if variant == "refined" else 1.1
                axes.plot(cost, error, color=looks[variant].colour, linestyle=looks[variant].line, linewidth=width)
            axes.set(xscale="log", yscale="log")
            if how == "lbfgs":
                axes.set_title(named.get(target, target))
        row[0].set_ylabel(f"error, {name}")
    grid[-1, len(found.targets) // 2].set_xlabel("FLOPs of training")
    handles = [key(looks[variant], mark=False) for variant in found.variants]
    place_legend(figure, handles, f"medians over {found.found.n_seeds} seeds", columnspacing=1.2)
    return figure


def median_curve(runs: list[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Costs (K,) that all seeds that did not diverge have reached, and the median error (K,) over all seeds then,
    infinite of one that diverged; K = 0 if all did."""
    known = [run for run in runs if run.status == "finished"]
    if not known:
        return np.empty(0), np.empty(0)
    first, last = max(run.curve["flops"][0] for run in known), min(run.curve["flops"][-1] for run in known)
    costs = np.geomspace(first, last, POINTS)
    logs = [np.interp(np.log(costs), np.log(run.curve["flops"]), np.log(run.curve["error"])) for run in known]
    lost = [np.full(POINTS, np.inf)] * (len(runs) - len(known))
    return costs, np.exp(np.median([*logs, *lost], axis=0))


def summary(record: Record) -> list[Table]:
    """Errors at the end, then the answers at equal cost."""
    found = RefineRecord(FunctionsRecord.read(record))
    return [errors_table(found), *verdict_tables(found)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``refine`` (SVG, PNG, PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    found = RefineRecord(FunctionsRecord.read(record))
    return save_report(folder, summary(record), {"refine": partial(refine_figure, found)})
