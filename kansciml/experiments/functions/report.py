"""Report of the comparison on functions (``kansciml run functions``): reads the record only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.exact_tests import ALPHA
from kansciml.experiments.functions.record import PAIRS, PROTOCOLS, VARIANTS, FunctionsRecord, Run, Verdict
from kansciml.reporting.claims import STANDS, effect_text
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import NETWORKS, PROTOCOL_MARKS
from kansciml.reporting.ratios import Ratio, height_of, limits, name_sides, ratio_keys, ratio_note, ratio_panel
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

KINDS = {"feynman": "Feynman formulas", "special": "special functions", "rough": "rough functions"}
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the budget at which verdicts are told."""
PAIR_MARKS = dict(zip(PAIRS, "sPoDv"))


def pairs_of(found: FunctionsRecord) -> list[tuple[str, str]]:
    """Pairs of variants that the record has."""
    return [pair for pair in PAIRS if set(pair) <= set(found.variants())]


def budget(found: FunctionsRecord) -> str:
    """``at most 750 iterations``, and how many trainings ended on a plateau."""
    ended = sum(run.ended == "converged" for run in found.runs)
    most = max(run.iterations for run in found.runs)
    return (
        f"{ended} of {len(found.runs)} trainings ended on a plateau, the others at their cap of {most} iterations:"
        " verdicts hold at this budget, and where the trainings would end is open."
    )


def wins_table(found: FunctionsRecord) -> Table:
    """How many functions each of two networks wins, by kind of function and noise."""
    groups = [(kind, noise) for kind in found.kinds for noise in found.noises]
    rows = []
    for a, b in pairs_of(found):
        for equal, title in PROTOCOLS.items():
            verdicts = found.verdicts(a, b, equal)
            cells = [_count([one for one in verdicts if (one.kind, one.noise) == group], a, b) for group in groups]
            rows.append([f"{VARIANTS[a]} : {VARIANTS[b]}", title, *cells, _count(verdicts, a, b)])
    heads = [f"{KINDS[kind]}, {_noise(noise)}" for kind, noise in groups]
    notes = (
        *_leading(found),
        "Cell: functions on which the first is better : on which the second is : undecided. Exact signed-rank test on"
        f" errors paired by {found.n_seeds} seeds, after Holm's correction over the functions and noises of a row, at"
        f" {ALPHA:g}.",
        budget(found),
    )
    return Table("Functions won", ["Networks", "Held equal", *heads, "all"], rows, notes)


def _leading(found: FunctionsRecord) -> list[str]:
    """``Equal parameters, no noise: KAN better on 12 of 23 functions, MLP on 6; ...``: of the first two networks."""
    told, (equal, title) = [], next(iter(PROTOCOLS.items()))
    for a, b in pairs_of(found)[:1]:
        for noise in found.noises:
            won = [one.winner for one in found.verdicts(a, b, equal) if one.noise == noise]
            counts = f"{VARIANTS[a]} better on {won.count(a)} of {len(won)} functions, {VARIANTS[b]} on {won.count(b)}"
            told.append(f"{_noise(noise)}: {counts}")
    return [f"{title[:1].upper()}{title[1:]}, {'; '.join(told)}."] if told else []


def _count(verdicts: Sequence[Verdict], a: str, b: str) -> str:
    won = [one.winner for one in verdicts]
    return f"{won.count(a)} : {won.count(b)} : {won.count('')}"


def _noise(noise: float) -> str:
    return f"noise {100 * noise:g} %" if noise else "no noise"


def errors_table(found: FunctionsRecord) -> Table:
    """Median errors of all networks with equal parameters, and of the MLP with the KAN's FLOPs."""
    variants = found.variants()
    extra = [variant for variant in variants if variant not in ("kan", "kan-refined")]
    rows = []
    for target in found.targets:
        for noise in found.noises:
            same = [_median(found.of(target.name, noise, variant, "params")) for variant in variants]
            more = [_median(found.of(target.name, noise, variant, "flops")) for variant in extra]
            rows.append([target.name, target.kind, target.inputs, noise, *same, *more])
    columns = ["Function", "Kind", "Inputs", "Noise", *(VARIANTS[one] for one in variants)]
    columns += [f"{VARIANTS[one]}, KAN's FLOPs" for one in extra]
    notes = [
        "Root mean square error on fresh points without noise, in standard deviations of the function; median over"
        f" {found.n_seeds} seeds.",
        *(f"{target.name}: {target.formula}" for target in found.targets),
    ]
    return Table("Errors", columns, rows, notes)


def _median(runs: Sequence[Run]) -> float:
    return float(np.median([run.error for run in runs]))


def verdict_tables(found: FunctionsRecord) -> list[Table]:
    """A table for each two networks: a row per function and noise."""
    tables = []
    for a, b in pairs_of(found):
        columns = {equal: found.verdicts(a, b, equal) for equal in PROTOCOLS}
        rows = []
        for place, one in enumerate(columns["params"]):
            ended = " / ".join(map(str, one.converged))
            rows.append([one.target, one.noise, ended, *(_cell(own[place]) for own in columns.values())])
        title = f"Error of the {VARIANTS[a]} over that of the {VARIANTS[b]}"
        notes = (
            f"Cell: ratio, its interval of {100 * (1 - ALPHA):g} %, and the verdict by itself; with {STANDS.strip()} it"
            " stands after Holm's correction over the column. Converged: trainings of each that ended on a plateau, at"
            " equal parameters.",
        )
        tables.append(Table(title, ["Function", "Noise", "Converged", *PROTOCOLS.values()], rows, notes))
    return tables


def _cell(one: Verdict) -> str:
    return f"{effect_text(one.outcome, 2)} {one.told}{STANDS * one.confirmed}"


def budget_table(found: FunctionsRecord) -> Table:
    """How the functions won move with the budget, at equal parameters."""
    rows = []
    for a, b in pairs_of(found):
        for equal, title in (("params", "equal evaluations"), ("time", "equal time")):
            shares = [found.verdicts(a, b, equal, share) for share in SHARES]
            for noise in dict.fromkeys(one.noise for one in shares[0]):
                cells = [_count([one for one in own if one.noise == noise], a, b) for own in shares]
                rows.append([f"{VARIANTS[a]} : {VARIANTS[b]}", title, noise, *cells])
    heads = [f"{share:.1%} of it" if share < 1 else "whole budget" for share in SHARES]
    notes = (
        "As in the table of functions won, all kinds, at equal parameters: where the errors of a seed are"
        " compared after a share of what the first of the two had spent when it ended.",
    )
    return Table("Functions won, by budget", ["Networks", "Held equal", "Noise", *heads], rows, notes)


def models_table(found: FunctionsRecord) -> Table:
    """Sizes of the networks and what their training took."""
    rows = []
    for inputs in sorted({target.inputs for target in found.targets}):
        names = [target.name for target in found.targets if target.inputs == inputs]
        for variant, match in ((variant, match) for variant in found.variants() for match in ("params", "flops")):
            own = [run for run in found.runs if (run.variant, run.match) == (variant, match) and run.target in names]
            if own:
                first = own[0]
                spent = [float(np.median([value(run) for run in own])) for value in (_evaluations, _seconds)]
                title = PROTOCOLS[match]
                rows.append([inputs, VARIANTS[variant], title, first.label, first.n_parameters, first.flops, *spent])
    columns = ["Inputs", "Network", "Held equal", "Widths", "Parameters", "FLOPs", "Evaluations", "Seconds"]
    notes = (
        "FLOPs: of one evaluation at one point, the mean over its grids; all G + S splines of an input are counted, of"
        " which kernels may skip those that are zero: equal FLOPs favour the MLP, equal time does not. Evaluations of"
        " loss and gradient, and seconds of the processor: medians.",
    )
    return Table("Networks, and what their training took", columns, rows, notes)


def _evaluations(run: Run) -> float:
    return run.curve["evaluations"][-1]


def _seconds(run: Run) -> float:
    return run.seconds


def functions_figure(found: FunctionsRecord) -> Figure:
    """KAN against MLP on every function, a panel per noise, a mark per protocol."""
    series = [(PROTOCOL_MARKS[equal], found.verdicts("kan", "mlp", equal)) for equal in PROTOCOLS]
    keys = ratio_keys({title: PROTOCOL_MARKS[equal] for equal, title in PROTOCOLS.items()})
    return _figure(
        found, series, keys, "error of the KAN / error of the MLP", ("KAN better", "MLP better"), ("kan", "mlp")
    )


def models_figure(found: FunctionsRecord) -> Figure:
    """All pairs of networks at equal parameters, in the colour of the winner."""
    from matplotlib.patches import Patch

    series = [(PAIR_MARKS[pair], found.verdicts(*pair, "params")) for pair in pairs_of(found)]
    marks = {f"{VARIANTS[a]} / {VARIANTS[b]}": PAIR_MARKS[a, b] for a, b in pairs_of(found)}
    better = [Patch(color=NETWORKS[one], label=f"{VARIANTS[one]} better") for one in found.variants()]
    ends = "first better", "second better"
    return _figure(found, series, [*ratio_keys(marks), *better], "ratio of errors, equal parameters", ends, ("", ""))


def _figure(
    found: FunctionsRecord,
    series: Sequence[tuple[str, Sequence[Verdict]]],
    keys: Sequence[Artist],
    title: str,
    ends: tuple[str, str],
    colours: tuple[str, str],
) -> Figure:
    """A panel per noise, a row per function."""
    every = [(one, Ratio(one.outcome, marker, one.a, one.b)) for marker, verdicts in series for one in verdicts]
    panels = [
        [(target.name, [ratio for one, ratio in every if (one.target, one.noise) == (target.name, noise)])
         for target in found.targets]
        for noise in found.noises
    ]  # fmt: skip
    figure = new_figure(height_of(panels[0]) + 0.6)
    shape = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, noise, rows in zip(shape, found.noises, panels):
        ratio_panel(axes, rows, limits([ratio.outcome for _, ratio in every]), sides=colours)
        name_sides(axes, *ends, colours)
        axes.set_title(_noise(noise), pad=12)
        axes.set_xlabel(title)
    place_legend(figure, keys, ratio_note(ALPHA, found.n_seeds))
    return figure


def summary(record: Record) -> list[Table]:
    """Functions won, errors, how the verdicts move with the budget, every verdict, and the networks."""
    found = FunctionsRecord.read(record)
    tables = [wins_table(found), errors_table(found), budget_table(found)]
    return [*tables, *verdict_tables(found), models_table(found)]


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``functions``, ``functions_models`` (SVG, PNG, PDF) and ``tables`` into `folder`; returns their paths."""
    found = FunctionsRecord.read(record)
    drawings = {}
    if ("kan", "mlp") in pairs_of(found):
        drawings["functions"] = partial(functions_figure, found)
    if pairs_of(found):
        drawings["functions_models"] = partial(models_figure, found)
    return save_report(folder, summary(record), drawings)
