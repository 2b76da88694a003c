"""Report on the sharpness of trained models (``kansciml hessian``): reads the record only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.analysis.hessian import Estimate, kinds
from kansciml.experiments.hessian.record import GroupVerdict, HessianRecord, MeasuredModel
from kansciml.reporting.claims import TEST
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import VariantStyle, variant_styles
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

TITLES = {"plain": "Hessian H", "adaptive": "adaptive, |w| H |w|", "filter": "filter-normalised"}
DRAWN = {"plain": "top", "adaptive": "adaptive_top"}
"""Spectra of the picture, and the measure that is marked in each."""
RESOLVED = 1e-6
"""Share of the largest eigenvalue below which the axis is linear: eigenvalues are not told from zero there."""
WIDTH_DECADES = 0.12
"""Standard deviation of the kernel that smooths the densities."""
POINTS = 600
NARROW = 0.55
"""Width of a panel beside the spectra, over theirs."""
BRIEF = 12
"""Rows of a first look."""
HEADLINES = ("top", "adaptive_top", "trace", "adaptive_trace", "filter_top", "positive_share")
"""Measures of a first look: of the Hessian, and of the forms that scaling layers leaves unchanged."""
NOTE = "band: lowest to highest seed, or 2 standard errors over the probes of one; mark: largest eigenvalue"
VERDICT_NOTES = (
    "Sharper: the measure is larger. A pair of models is decided if it differs by more than 2 standard errors (a"
    f" statement on these two), several seeds by an {TEST}, at 0.05. A dash: describes the spectrum, no verdict.",
    "Unchanged by: loss (the loss times a number), layers (a ReLU layer times a and the next over a), size (more"
    " parameters of the same kind). A comparison of KAN with MLP differs in all three.",
    "Difference, from, to: Hodges-Lehmann estimate with the interval that the test does not reject. After Holm:"
    " corrected over the measures of this table that are judged. Pairs: of the pairs of one seed, those in which the"
    " first is larger by 2 standard errors, and smaller.",
)


def tables(record: Record) -> list[Table]:
    """A table per model, and one of verdicts for each two groups compared."""
    measured = HessianRecord.read(record)
    return [*map(model_table, measured.models), *verdict_tables(measured)]


def brief(record: Record) -> list[Table]:
    """What `tables` say first, in at most `BRIEF` rows: of each two groups compared a table under the line that sums up
    its verdicts, with the measures of `HEADLINES`; without two groups, a row per model."""
    measured = HessianRecord.read(record)
    pairs = _compared(measured)
    rest = "; --all prints every measure of every model, as does tables.md"
    if not pairs:
        body = [_first_measures(row) for row in measured.models[:BRIEF]]
        note = f"{len(body)} of {len(measured.models)} models{rest}"
        columns = ["Model", "Parameters", "Loss", "Largest eigenvalue", "Trace"]
        return [Table("Nothing to compare: models of one group", columns, body, [note])]
    found = [_brief_table(rows, max(1, BRIEF // len(pairs))) for rows in pairs[:BRIEF]]
    shown, every = sum(len(table.rows) for table in found), sum(map(len, pairs))
    return [*found[:-1], replace(found[-1], notes=[f"{shown} of {every} verdicts{rest}"])]


def _first_measures(row: MeasuredModel) -> list[Any]:
    known = row.sharpness.measures
    return [row.name, row.n_parameters, row.sharpness.loss, *(known[name].value for name in ("top", "trace"))]


def _brief_table(rows: Sequence[GroupVerdict], most: int) -> Table:
    """The first `most` of `HEADLINES`, under the line that sums up all verdicts on two groups."""
    by_name = {one.outcome.measure: one.outcome for one in rows}
    chosen = [by_name[name] for name in HEADLINES if name in by_name][:most]
    several = max(chosen[0].n_a, chosen[0].n_b) > 1
    body = [
        [one.text, TITLES[one.spectrum], one.a, one.b, one.ratio, one.verdict, *[one.corrected] * several]
        for one in chosen
    ]
    columns = ["Measure", "Of", rows[0].label, rows[0].against_label, "Ratio", "Verdict", *["After Holm"] * several]
    task = f"{rows[0].task}: " if rows[0].task else ""
    return Table(task + _summed_up(rows), columns, body)


def verdict_tables(measured: HessianRecord) -> list[Table]:
    """All verdicts on each two groups compared."""
    return [_verdict_table(rows) for rows in _compared(measured)]


def _compared(measured: HessianRecord) -> list[list[GroupVerdict]]:
    """The verdicts on each two groups compared."""
    pairs: dict[tuple[str, str], list[GroupVerdict]] = {}
    for one in measured.verdicts:
        pairs.setdefault((one.task, one.group), []).append(one)
    return list(pairs.values())


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``spectra`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, tables(record), {"spectra": partial(spectra, HessianRecord.read(record))})


def spectra(
    measured: HessianRecord,
    titles: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    beside: Callable[[Axes, str], None] | None = None,
) -> Figure:
    """Densities of eigenvalues on a symlog axis, of H and of its adaptive form: a row per task, a line per group.

    Line: mean over seeds (and probes). Band: from lowest to highest seed or, of a single one, two standard errors over
    its probes. Call it within `publication_style`.

    Args:
        titles: of tasks, on a line of their own above the first panel (default: the task, above every panel).
        beside: draws one more, narrow panel of a task.
        labels: of groups in the legend (default: the name of the style, and the label that all models share).
    """
    models = measured.models
    shown = [name for name in DRAWN if any(measured.spectrum(one, name) is not None for one in models)]
    tasks = list(dict.fromkeys(one.task for one in models))
    styles = variant_styles(one.group for one in models)
    figure = new_figure(0.2 + 2.2 * len(tasks))
    widths = [1.0] * len(shown) + [NARROW] * (beside is not None)
    panels = figure.subplots(len(tasks), len(widths), squeeze=False, width_ratios=widths)
    drawn: dict[str, Line2D] = {}
    for row, task in zip(panels, tasks):
        for axes, name in zip(row, shown):
            drawn |= _panel(axes, measured, [one for one in models if one.task == task], name, styles)
            axes.set_title(f"{task}: {TITLES[name]}" if task and titles is None else TITLES[name])
        if titles:  # on a line above the panel's own title, over all panels: as a title it would push them apart
            row[0].set_title(f"\n{row[0].get_title()}")
            line = row[0].annotate(
                titles[task], (0, 1), xycoords=("axes fraction", row[0].title), va="top",
                fontsize=row[0].title.get_fontsize(), annotation_clip=False,
            )  # fmt: skip
            line.set_in_layout(False)
        row[0].set_ylabel("share of eigenvalues per decade")
        if beside is not None:
            beside(row[-1], task)
    for axes in panels[-1, : len(shown)]:
        axes.set_xlabel("eigenvalue")
    for group, line in drawn.items():
        line.set_label(labels[group] if labels else _label(styles[group], models, group))
    place_legend(figure, list(drawn.values()), NOTE)
    return figure


def _label(style: VariantStyle, models: Sequence[MeasuredModel], group: str) -> str:
    """``MLP: 2-50-2``: what the style is called, and the label of the models where they have one in common."""
    labels = {one.label.removeprefix(style.name).strip() for one in models if one.group == group} - {""}
    return f"{style.name}: {labels.pop()}" if len(labels) == 1 else style.name


def _panel(
    axes: Axes, measured: HessianRecord, rows: Sequence[MeasuredModel], name: str, styles: Mapping[str, VariantStyle]
) -> dict[str, Line2D]:
    """Draw the groups of one task; returns a line per group."""
    sources = {row.name: source for row in rows if (source := measured.spectrum(row, name)) is not None}
    if not sources:
        axes.set_visible(False)
        return {}
    low = min(float(nodes.min()) for nodes, _ in sources.values())
    high = max(float(nodes.max()) for nodes, _ in sources.values())
    unit = 10.0 ** math.floor(math.log10(RESOLVED * max(high, -low, 1e-300)))
    ends = symlog(np.array([min(low, 0.0), max(high, 0.0)]), unit) + np.array([-1, 1]) * 4 * WIDTH_DECADES
    at = np.linspace(ends[0], ends[1], POINTS)
    drawn, floor = {}, min(1.0 / row.n_parameters for row in rows)
    for group in dict.fromkeys(row.group for row in rows if row.name in sources):
        style = styles[group]
        own = [row for row in rows if row.group == group and row.name in sources]
        curves = [density(*sources[row.name], at, unit) for row in own]  # each (probes, points)
        means = np.array([curve.mean(0) for curve in curves])
        if len(means) > 1:
            lower, upper = means.min(0), means.max(0)
        else:
            count = len(curves[0])
            error = curves[0].std(0, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(len(at))
            lower, upper = means[0] - 2 * error, means[0] + 2 * error
        axes.fill_between(at, np.maximum(lower, floor / 10), np.maximum(upper, floor / 10), color=style.colour,
                          alpha=0.18, linewidth=0)  # fmt: skip
        (drawn[group],) = axes.plot(at, np.maximum(means.mean(0), floor / 10), color=style.colour, linestyle=style.line)
        tops = np.array([row.sharpness.measures[DRAWN[name]].value for row in own])
        axes.plot(symlog(tops, unit), np.full(len(tops), floor / 2), style.marker, color=style.colour)
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor / 4)
    axes.set_xlim(*ends)
    _ticks(axes, ends, unit)
    return drawn


def density(nodes: np.ndarray, weights: np.ndarray, at: np.ndarray, unit: float) -> np.ndarray:
    """Share of eigenvalues per decade at places on the symlog axis, one row per probe."""
    places = symlog(nodes, unit)
    norm = WIDTH_DECADES * math.sqrt(2 * math.pi)
    return np.array(
        [np.exp(-0.5 * ((at[:, None] - place) / WIDTH_DECADES) ** 2) @ weight / norm
         for place, weight in zip(places, weights)]
    )  # fmt: skip


def symlog(values: np.ndarray, unit: float) -> np.ndarray:
    """sign(v) log10(1 + |v| / unit): linear below `unit`, decades above."""
    return np.sign(values) * np.log10(1 + np.abs(values) / unit)


def _ticks(axes: Axes, ends: np.ndarray, unit: float) -> None:
    first = round(math.log10(unit))
    step = max(1, math.ceil((ends[1] - min(ends[0], 0)) / 6))
    powers = [first + k for k in range(step, 40, step)]
    ticks = [(0.0, "0")]
    ticks += [(float(symlog(np.array(10.0**p), unit)), f"$10^{{{p}}}$") for p in powers]
    ticks += [(-place, f"$-10^{{{p}}}$") for (place, _), p in zip(ticks[1:], powers)]
    kept = [(place, text) for place, text in ticks if ends[0] <= place <= ends[1]]
    axes.set_xticks([place for place, _ in kept], [text for _, text in kept])


def model_table(row: MeasuredModel) -> Table:
    """All measures of a model."""
    own = row.sharpness
    cells: dict[str, dict[str, str]] = {}
    for kind in kinds(own.relative, own.absolute):
        if kind.name in own.measures:
            cells.setdefault(kind.text, {})[kind.spectrum] = _plus_minus(own.measures[kind.name])
        if kind.name in own.sampled and kind.spectrum == "plain":
            cells.setdefault(kind.text, {})["sampled"] = _plus_minus(own.sampled[kind.name])
    headings = {**TITLES, "sampled": "Hessian H, by quadrature"}
    found = [name for name in headings if any(name in line for line in cells.values())]
    method = "all eigenvalues" if own.exact else "Lanczos quadrature, value +- standard error over the probes"
    notes = [
        f"{row.n_parameters} parameters; {method}. Loss {format_number(own.loss)} (record:"
        f" {format_number(row.recorded_loss)})."
    ]
    if own.zero is not None and own.asymmetry is not None:
        notes.append(
            f"Of all eigenvalues, those of at most {own.zero:.1e} are zero to rounding: the larger of n eps |H| and"
            f" |H - H^T| / 2. The products were symmetric to {own.asymmetry:.1e} of |H| (Frobenius)."
        )
    if not own.exact:
        notes.append("In brackets: bounds on what the quadrature cannot resolve; more steps narrow them.")
    body = [[text, *(line.get(name) for name in found)] for text, line in cells.items()]
    return Table(f"{row.name}: {row.label}", ["Measure", *(headings[name] for name in found)], body, notes)


def _plus_minus(estimate: Estimate) -> str:
    """``40.0 +- 1.0 [30.0, 50.0]``; an error of nothing but rounding, and bounds within it, are left out."""
    value, error, width = estimate.value, estimate.standard_error, estimate.upper - estimate.lower
    text = format_number(value)
    if estimate.probes and error > 1e-6 * abs(value):
        text += f" +- {format_number(error, 2)}"
    if width > max(0.02 * abs(value), 0.0 if math.isnan(error) else error):
        text += f" [{format_number(estimate.lower)}, {format_number(estimate.upper)}]"
    return text


def _summed_up(rows: Sequence[GroupVerdict]) -> str:
    """How many verdicts on two groups say what, in a line."""
    outcomes = [row.outcome for row in rows]
    words = ("sharper", "flatter", "undecided")
    every = [sum(one.verdict == word for one in outcomes) for word in words]
    robust = [sum(one.verdict == word for one in outcomes if "layers" in one.invariant) for word in words]
    told = (
        f"{rows[0].label} is sharper than {rows[0].against_label} by {every[0]} measures, flatter by {every[1]},"
        f" undecided by {every[2]}; of those that scaling layers leaves unchanged: {robust[0]}, {robust[1]},"
        f" {robust[2]}."
    )
    if max(outcomes[0].n_a, outcomes[0].n_b) > 1:
        stand = sum(one.corrected in words[:2] for one in outcomes)
        told += f" {stand} of these verdicts stand after Holm's correction."
    return told


def _verdict_table(rows: Sequence[GroupVerdict]) -> Table:
    first, outcomes = rows[0], [row.outcome for row in rows]
    label, against = first.label, first.against_label
    several = max(outcomes[0].n_a, outcomes[0].n_b) > 1
    body = []
    for one in outcomes:
        cells = [one.text, TITLES[one.spectrum], ", ".join(one.invariant) or "nothing", one.a, one.b, one.ratio]
        if several:
            told = one.outcome
            cells += [told.effect, told.low, told.high, told.p_value, told.adjusted_p if one.verdict else None]
            cells += [f"{one.pairs_sharper} / {one.pairs_flatter} of {one.pairs}"]
        verdicts = [one.verdict or "-", *[one.corrected or "-"] * several]
        body.append([*cells, *verdicts, one.outcome.why if one.verdict else ""])
    columns = ["Measure", "Of", "Unchanged by", label, against, "Ratio"]
    columns += ["Difference", "from", "to", "p", "p after Holm", "Pairs"] * several
    columns += ["Verdict", *["After Holm"] * several, "Why"]
    title = f"{first.task}: is {label} sharper than {against}?" if first.task else f"Is {label} sharper than {against}?"
    return Table(title, columns, body, [_summed_up(rows), *VERDICT_NOTES[: 3 if several else 2]])
