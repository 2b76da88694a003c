"""Report on the sharpness of trained models (``kansciml hessian``): reads the record only.

Expected of the record, besides what `kansciml.runs.records` says:

* ``result["models"]``: name, run, task, group, label, seed, against (a group, or null), n_parameters, recorded_loss,
  ``sharpness``: loss, exact, ``measures`` and ``sampled`` (name: value, standard_error, probes, lower, upper).
* ``result["verdicts"]``: task, group, label, against, against_label, and the fields of a `SharpnessVerdict`.
* arrays per model and spectrum (plain, adaptive, filter): ``<run>.<name>.<spectrum>.nodes`` and ``.weights``
  (probes, steps), ``.locked`` (r,), and where all eigenvalues are known ``.eigenvalues`` (n,).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kansciml.reporting.style import VariantStyle, new_figure, save_report, variant_styles
from kansciml.runs.records import DamagedRecord, Record
from kansciml.runs.tables import Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"plain": "Hessian H", "adaptive": "adaptive, |w| H |w|", "filter": "filter-normalised"}
SHOWN = ("plain", "adaptive")
RESOLVED = 1e-6
"""Share of the largest eigenvalue below which the axis is linear: eigenvalues are not told from zero there."""
WIDTH_DECADES = 0.12
"""Standard deviation of the kernel that smooths the densities."""
POINTS = 600
VERDICT_NOTES = (
    "Sharper: the measure is larger. A pair of models is decided if it differs by more than 2 standard errors (a"
    " statement on these two), several seeds by an exact two-sided Mann-Whitney U test at 0.05, which takes 4 seeds a"
    " side; with that many measures, one in twenty decides by chance. A dash: describes the spectrum, no verdict.",
    "Unchanged by: loss (the loss times a number), layers (a ReLU layer times a and the next over a), size (more"
    " parameters of the same kind). A comparison of KAN with MLP differs in all three.",
    "Pairs: of all pairs of seeds, those in which the first is larger by 2 standard errors, and smaller.",
)


def tables(record: Record) -> list[Table]:
    """A table per model, and one of verdicts for each two groups compared.

    Raises:
        KansciError: the record is no result of ``kansciml hessian``.
    """
    try:
        found = [_model_table(row) for row in record.result["models"]]
        pairs: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in record.result["verdicts"]:
            pairs.setdefault(tuple(row[key] for key in ("task", "label", "against_label")), []).append(row)
        return found + [_verdict_table(*key, rows) for key, rows in pairs.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedRecord(f"{record.folder} holds no result of kansciml hessian ({error!r})") from error


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``spectra`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths.

    Raises:
        KansciError: as for `tables`, or the folder cannot be written.
    """
    return save_report(folder, tables(record), {"spectra": partial(spectra, record)})


def spectra(record: Record) -> Figure:
    """Densities of eigenvalues on a symlog axis, of H and of its adaptive form: a row per task, a line per group.

    Line: mean over seeds (and probes). Band: from lowest to highest seed or, of a single one, two standard errors over
    its probes. Call it within `publication_style`.
    """
    models = record.result["models"]
    tasks = list(dict.fromkeys(row["task"] for row in models))
    shown = [name for name in SHOWN if any(_source(record, row, name) is not None for row in models)]
    styles = variant_styles(row["group"] for row in models)
    figure = new_figure(0.7 + 2.2 * len(tasks))
    panels = figure.subplots(len(tasks), len(shown), squeeze=False)
    drawn: dict[str, Any] = {}
    for line, task in zip(panels, tasks):
        for axes, name in zip(line, shown):
            drawn |= _panel(axes, record, [row for row in models if row["task"] == task], name, styles)
            axes.set_title(f"{task}: {TITLES[name]}" if task else TITLES[name])
        line[0].set_ylabel("share of eigenvalues per decade")
    for axes in panels[-1]:
        axes.set_xlabel("eigenvalue")
    figure.legend(
        drawn.values(), drawn, loc="outside lower center", ncols=min(4, len(drawn)),
        title="band: lowest to highest seed, or 2 standard errors over the probes of one; mark: largest eigenvalue",
        title_fontsize=6.5,
    )  # fmt: skip
    return figure


def _panel(
    axes: Axes, record: Record, rows: Sequence[Mapping[str, Any]], name: str, styles: Mapping[str, VariantStyle]
) -> dict[str, Any]:
    """Draw the groups of one task; returns a line per name in the legend."""
    sources = {row["name"]: source for row in rows if (source := _source(record, row, name)) is not None}
    if not sources:
        axes.set_visible(False)
        return {}
    low = min(float(nodes.min()) for nodes, _ in sources.values())
    high = max(float(nodes.max()) for nodes, _ in sources.values())
    unit = 10.0 ** math.floor(math.log10(RESOLVED * max(high, -low, 1e-300)))
    ends = _symlog(np.array([min(low, 0.0), max(high, 0.0)]), unit) + np.array([-1, 1]) * 4 * WIDTH_DECADES
    at = np.linspace(*ends, POINTS)
    drawn, floor = {}, min(1.0 / row["n_parameters"] for row in rows)
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group and row["name"] in sources]
        if not own:
            continue
        style = styles[group]
        curves = [_density(*sources[row["name"]], at, unit) for row in own]  # each (probes, points)
        means = np.array([curve.mean(0) for curve in curves])
        if len(means) > 1:
            lower, upper = means.min(0), means.max(0)
        else:
            count = len(curves[0])
            error = curves[0].std(0, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(len(at))
            lower, upper = means[0] - 2 * error, means[0] + 2 * error
        axes.fill_between(at, np.maximum(lower, floor / 10), np.maximum(upper, floor / 10), color=style.colour,
                          alpha=0.18, linewidth=0)  # fmt: skip
        (line,) = axes.plot(at, np.maximum(means.mean(0), floor / 10), color=style.colour, linestyle=style.line)
        tops = [row["sharpness"]["measures"][f"{'' if name == 'plain' else name + '_'}top"]["value"] for row in own]
        axes.plot(_symlog(np.array(tops), unit), np.full(len(tops), floor / 2), style.marker, color=style.colour)
        label = own[0]["label"]
        single = len({row["label"] for row in record.result["models"] if row["group"] == group}) == 1
        drawn[f"{style.name}: {label.removeprefix(style.name).strip()}" if single else style.name] = line
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor / 4)
    axes.set_xlim(*ends)
    _ticks(axes, ends, unit)
    return drawn


def _source(record: Record, row: Mapping[str, Any], name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Nodes and weights of a model's spectrum, (probes, nodes) each; weights sum to 1. None if not measured."""
    prefix = f"{row['run']}.{row['name']}.{name}"
    known = record.arrays.get(f"{prefix}.eigenvalues")
    if known is not None:
        return known[None], np.full((1, len(known)), 1 / len(known))
    nodes = record.arrays.get(f"{prefix}.nodes")
    if nodes is None:
        return None
    locked, size = record.arrays[f"{prefix}.locked"], row["n_parameters"]
    rest = record.arrays[f"{prefix}.weights"] * (size - len(locked)) / size
    nodes = np.concatenate([nodes, np.broadcast_to(locked, (len(nodes), len(locked)))], axis=1)
    return nodes, np.concatenate([rest, np.full((len(nodes), len(locked)), 1 / size)], axis=1)


def _density(nodes: np.ndarray, weights: np.ndarray, at: np.ndarray, unit: float) -> np.ndarray:
    """Share of eigenvalues per decade at places on the symlog axis, one row per probe."""
    places = _symlog(nodes, unit)
    norm = WIDTH_DECADES * math.sqrt(2 * math.pi)
    return np.array(
        [np.exp(-0.5 * ((at[:, None] - place) / WIDTH_DECADES) ** 2) @ weight / norm
         for place, weight in zip(places, weights)]
    )  # fmt: skip


def _symlog(values: np.ndarray, unit: float) -> np.ndarray:
    """sign(v) log10(1 + |v| / unit): linear below `unit`, decades above."""
    return np.sign(values) * np.log10(1 + np.abs(values) / unit)


def _ticks(axes: Axes, ends: np.ndarray, unit: float) -> None:
    first = round(math.log10(unit))
    step = max(1, math.ceil((ends[1] - min(ends[0], 0)) / 9))
    powers = [first + k for k in range(step, 40, step)]
    ticks = [(0.0, "0")]
    ticks += [(float(_symlog(np.array(10.0**p), unit)), f"$10^{{{p}}}$") for p in powers]
    ticks += [(-place, f"$-10^{{{p}}}$") for (place, _), p in zip(ticks[1:], powers)]
    kept = [(place, text) for place, text in ticks if ends[0] <= place <= ends[1]]
    axes.set_xticks([place for place, _ in kept], [text for _, text in kept])


def _model_table(row: Mapping[str, Any]) -> Table:
    sharpness = row["sharpness"]
    measures, sampled = sharpness["measures"], sharpness["sampled"]
    prefixes = {"plain": "", "adaptive": "adaptive_", "filter": "filter_"}
    spectra = [name for name in TITLES if f"{prefixes[name]}top" in measures]
    keys = list(dict.fromkeys(key.removeprefix("adaptive_").removeprefix("filter_") for key in measures))
    rows = []
    for key in keys:
        cells = [_plus_minus(measures.get(prefixes[name] + key)) for name in spectra]
        rows.append(
            [TEXTS.get(key) or _threshold_text(key), *cells, *([_plus_minus(sampled.get(key))] if sampled else [])]
        )
    columns = ["Measure", *(TITLES[name] for name in spectra), *(["Hessian H, by quadrature"] if sampled else [])]
    loss, recorded = sharpness["loss"], row["recorded_loss"]
    method = "all eigenvalues" if sharpness["exact"] else "Lanczos quadrature, value +- standard error over the probes"
    notes = [
        f"{row['n_parameters']} parameters; {method}. Loss {format_number(loss)} (record: {format_number(recorded)})."
    ]
    if not sharpness["exact"]:
        notes.append("In brackets: bounds on what the quadrature cannot resolve; more steps narrow them.")
    return Table(f"{row['name']}: {row['label']}", columns, rows, notes)


TEXTS = {
    "top": "largest eigenvalue",
    "top_over_loss": "largest eigenvalue / loss",
    "bottom": "smallest eigenvalue",
    "trace": "trace",
    "mean": "trace / n",
    "positive_count": "positive (> 1e-6 of the largest)",
    "positive_share": "positive / n",
    "count_above_loss": "number > loss",
    "effective_rank": "effective rank (tr H)^2 / tr H^2",
    "negative_mass": "negative share of sum |eigenvalue|",
}


def _threshold_text(key: str) -> str:
    what, _, limit = key.partition("_above_")
    name = {"count": "number", "mass": "share of sum |eigenvalue|"}[what]
    return f"{name} > {limit.removesuffix('_top')}{' of the largest' if limit.endswith('_top') else ''}"


def _plus_minus(estimate: Mapping[str, Any] | None) -> str | None:
    if estimate is None:
        return None
    value, error = estimate["value"], estimate["standard_error"]
    text = format_number(value)
    if error is not None and estimate["probes"] and error > 1e-6 * abs(value):
        text += f" +- {format_number(error, 2)}"
    lower, upper = estimate["lower"], estimate["upper"]
    if None not in (lower, upper) and upper - lower > max(0.02 * abs(value), error or 0.0):
        text += f" [{format_number(lower)}, {format_number(upper)}]"
    return text


def _verdict_table(task: str, label: str, against: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    several = max(rows[0]["n_a"], rows[0]["n_b"]) > 1
    found = []
    for row in rows:
        what = TITLES[row["spectrum"]]
        cells = [row["text"], what, ", ".join(row["invariant"]) or "nothing", row["a"], row["b"], row["ratio"]]
        if several:
            cells += [row["p_value"], f"{row['pairs_sharper']} / {row['pairs_flatter']} of {row['pairs']}"]
        found.append([*cells, row["verdict"] or "-", row["reason"] if row["verdict"] else ""])
    columns = ["Measure", "Of", "Unchanged by", label, against, "Ratio"]
    columns += [*(["p", "Pairs"] if several else []), "Verdict", "Why"]
    count = {word: sum(row["verdict"] == word for row in rows) for word in ("sharper", "flatter", "undecided")}
    robust = [row for row in rows if "layers" in row["invariant"] and row["verdict"]]
    decided = {word: sum(row["verdict"] == word for row in robust) for word in count}
    line = (
        f"{label} is sharper by {count['sharper']} measures, flatter by {count['flatter']}, undecided by"
        f" {count['undecided']}; of those that scaling layers leaves unchanged: {decided['sharper']},"
        f" {decided['flatter']}, {decided['undecided']}."
    )
    title = f"{task}: is {label} sharper than {against}?" if task else f"Is {label} sharper than {against}?"
    return Table(title, columns, found, [line, *VERDICT_NOTES[: 3 if several else 2]])
