"""Report of the comparisons on equal terms (``kansciml run fair``): reads the record only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kansciml.analysis.exact_tests import seeds_needed
from kansciml.experiments.fair.record import PROTOCOLS, Comparison, FairRecord, StepTimes
from kansciml.reporting.groups import over
from kansciml.reporting.legends import hollow, key, legend_below, log_ticks
from kansciml.reporting.style import FAINT, TRUTH, VariantStyle, new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import MISSING, Table, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


STANDS = " *"
"""What a verdict ends with that stands after the correction for the whole table."""
KAN_SIDE, MLP_SIDE = "#fbe9df", "#e2eef7"
"""Pale forms of the colours of KAN and MLP."""
STYLES = {
    "width": ("#D55E00", "s"),
    "params": ("#009E73", "D"),
    "params-up": ("#56B4E9", "v"),
    "flops": ("#E69F00", "^"),
    "flops-up": ("#666666", "P"),
    "time": ("#0072B2", "o"),
}
"""Colour and marker of each protocol, after Okabe and Ito (2008)."""
LINE, GAP = 0.17, 0.16
"""Inches of height per comparison, and between tasks."""
OUTSIDE = 3.0
"""Factor by which the axis reaches beyond the ratios and the ends of intervals that it shows."""
LARGEST = 1e4
"""An interval's end so many times beyond the ratios is drawn as an arrow, not waited for."""


def answer_table(fair: FairRecord) -> Table:
    """When is a KAN worth it? A row per task, a column per protocol."""
    rows = []
    for task, layer in fair.lines:
        own = [fair.of(task, layer, protocol) for protocol in fair.protocols]
        metric = next(row.metric_title for row in own if row)
        rows.append([fair.title(task, layer), metric, *map(_cell, own)])
    columns = ["task", "error", *(PROTOCOLS[protocol] for protocol in fair.protocols)]
    return Table("When is a KAN worth it? Error of the KAN over that of the MLP", columns, rows, _answer_notes(fair))


def _answer_notes(fair: FairRecord) -> list[str]:
    n, level, verdicts = len(fair.rows), fair.alpha, [row.verdict for row in fair.rows]
    kan, mlp = verdicts.count("KAN better"), verdicts.count("MLP better")
    stands = sum(row.confirmed for row in fair.rows)
    seeds = sorted({len(row.seeds) for row in fair.rows})
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    notes = [
        f"Of {n} comparisons over {shown} seeds the KAN is better in {kan}, the MLP in {mlp}, and {n - kan - mlp} are"
        f" undecided; {stands} of the verdicts stand after Holm's correction over the table ({STANDS.strip()}).",
        f"Cell: ratio (below 1: the KAN's error is lower), its interval of {100 * (1 - level):g} %, and the verdict of"
        f" this comparison by itself at p <= {level:g}: exact signed-rank test on log ratios paired by seed. A run that"
        " diverged is worse than any other.",
    ]
    if n > 1:
        notes.append(
            f"Were there no differences, {n * level:.2g} of {n} comparisons would be decided by chance; a verdict"
            f" with {STANDS.strip()} is safe from that. With {n} comparisons it takes at least"
            f" {seeds_needed(level, n)} seeds."
        )
    return notes


def detail_table(fair: FairRecord) -> Table:
    """The statistics behind the answer, of the tasks' own errors and then of those shown beside them."""
    columns = [
        "task", "protocol", "error", "KAN, median", "MLP, median", "KAN / MLP", "from", "to", "p", "p adjusted",
        "verdict", "seeds", "why",
    ]  # fmt: skip
    rows = [
        [fair.title(row.task, row.layer), PROTOCOLS[row.protocol], row.metric_title, _median(row.kan_losses),
         _median(row.mlp_losses), row.ratio, row.outcome.low, row.outcome.high, row.outcome.p_value,
         row.outcome.adjusted_p, _verdict(row), len(row.seeds), row.outcome.why]
        for row in (*fair.rows, *fair.others)
    ]  # fmt: skip
    notes = (
        "Medians over seeds, diverged ones counted as infinite. from, to: interval of the ratio. p adjusted: by Holm's"
        " method over the tasks' own errors and, apart from them, over those shown beside.",
    )
    return Table("Comparisons in detail", columns, rows, notes)


def models_table(fair: FairRecord) -> Table:
    """What was compared: both models, how they were made equal, their sizes and cost."""
    columns = ["task", "protocol", "adapted", "KAN", "MLP"]
    columns += [f"{what}, {side}" for what in ("parameters", "FLOPs", "steps", "seconds") for side in ("KAN", "MLP")]
    rows = []
    for row in fair.rows:
        kan, mlp = row.kan, row.mlp
        rows.append(
            [fair.title(row.task, row.layer), PROTOCOLS[row.protocol], row.adapted, kan.named, mlp.named,
             kan.parameters, mlp.parameters, kan.flops, mlp.flops, kan.steps, mlp.steps, kan.seconds, mlp.seconds]
        )  # fmt: skip
    notes = (
        "parameters: of the whole model. FLOPs: forward, of the MLPs or KANs alone, per evaluation of a neural ODE's"
        " field, per image, or per field of lift and projection.",
        "steps, seconds (of the wall clock, several runs may share the processors): medians over seeds, of training"
        " alone. Equal time gives steps by the measured time of a step; what was really spent can differ, as solvers"
        " and line searches adapt, and as epochs are whole.",
    )
    return Table("Models compared, and what their training took", columns, rows, notes)


def times_table(fair: FairRecord) -> Table:
    """What equal time rests on."""
    columns = ["task", "KAN [s]", "MLP [s]", "KAN / MLP", "clock", "steps MLP / KAN", "seconds used KAN / MLP"]
    rows = [
        [fair.title(one.task, one.layer), one.kan_s, one.mlp_s, one.factor, one.clock, *_used(fair, one)]
        for one in fair.times
    ]
    notes = (
        "Of one training step of the models of equal width (neural ODEs: a loss with its gradient at the trained"
        " parameters of every seed), on one thread, in turn, medians; measured once and kept.",
    )
    return Table("Time of a training step", columns, rows, notes)


def _used(fair: FairRecord, times: StepTimes) -> tuple[float | None, float | None]:
    row = fair.of(times.task, times.layer, "time")
    if row is None:
        return None, None
    return over(row.mlp.steps, row.kan.steps), over(row.kan.seconds, row.mlp.seconds)


def _cell(row: Comparison | None) -> str:
    """``0.31 (0.22 to 0.48) KAN better *``."""
    if row is None or row.outcome.n_pairs == 0:
        return MISSING if row is None else "both diverged"
    ratio, low, high = (format_number(value, 2) for value in (row.ratio, row.outcome.low, row.outcome.high))
    return f"{ratio} ({low} to {high}) {_verdict(row)}"


def _verdict(row: Comparison) -> str:
    return row.verdict + STANDS * (row.confirmed and row.decided)


def _median(losses: Sequence[float | None]) -> float:
    return statistics.median(math.inf if loss is None else loss for loss in losses)


def ratio_figure(fair: FairRecord) -> Figure:
    """Ratios with intervals on a log axis, the protocols of a task one below the other; within `publication_style`.

    A filled mark is a verdict, a ringed one stands after the correction over the table, a hollow one is undecided. An
    arrow is an interval that goes on beyond the picture.
    """
    n, lines = len(fair.protocols), fair.lines
    figure = new_figure(1.25 + (LINE * n + GAP) * len(lines))
    axes = figure.subplots()
    low, high = limits(fair)
    axes.set(xscale="log", xlim=(low, high))
    axes.axvspan(low, 1, color=KAN_SIDE, linewidth=0, zorder=0)
    axes.axvspan(1, high, color=MLP_SIDE, linewidth=0, zorder=0)
    axes.axvline(1, color=TRUTH, linewidth=0.8, zorder=1)
    ticks, height = [], LINE * n + GAP
    for place, (task, layer) in enumerate(lines):
        ticks.append(place * height + LINE * (n - 1) / 2)
        if place:
            axes.axhline(place * height - (LINE + GAP) / 2, color="white", linewidth=1.6, zorder=1)
        for index, protocol in enumerate(fair.protocols):
            row = fair.of(task, layer, protocol)
            if row and row.outcome.n_pairs:
                _mark(axes, row, place * height + index * LINE, (low, high))
    axes.set_ylim((len(lines) - 1) * height + LINE * (n - 1) + (LINE + GAP) / 2, -(LINE + GAP) / 2)
    axes.set_yticks(ticks, [fair.title(task, layer).replace(", ", "\n", 1) for task, layer in lines])
    axes.tick_params(axis="y", length=0)
    log_ticks(axes.xaxis, (low, high), few=1000.0)
    seeds = max(len(row.seeds) for row in fair.rows)
    axes.set_xlabel(
        f"error of the KAN / error of the MLP, with {100 * (1 - fair.alpha):g} % intervals over {seeds}"
        f" seed{'s' * (seeds != 1)}"
    )
    for text, x, side in (("KAN better", 0.0, "left"), ("MLP better", 1.0, "right")):
        axes.annotate(
            text, (x, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", ha=side,
            fontsize=8.5, fontweight="bold", color=STYLES["width" if side == "left" else "time"][0],
        )  # fmt: skip
    _legend(figure, fair)
    return figure


def limits(fair: FairRecord) -> tuple[float, float]:
    """Ends of the axis: around all ratios and 1, and the intervals' ends that are not too far from them."""
    ratios = [row.ratio for row in fair.rows if 0 < row.ratio < math.inf]
    around = min([1.0, *ratios]), max([1.0, *ratios])
    ends = [end for row in fair.rows for end in (row.outcome.low, row.outcome.high)]
    ends = [end for end in ends if around[0] / LARGEST < end < around[1] * LARGEST]
    return min([around[0], *ends]) / OUTSIDE, max([around[1], *ends]) * OUTSIDE


def _mark(axes: Axes, row: Comparison, y: float, ends: tuple[float, float]) -> None:
    colour, marker = STYLES[row.protocol]
    low, high = (float(np.clip(end, *ends)) for end in (row.outcome.low, row.outcome.high))
    ratio = float(np.clip(row.ratio, ends[0] * 1.2, ends[1] / 1.2))
    axes.plot((low, high), (y, y), color=colour, linewidth=1.4, solid_capstyle="butt", zorder=2)
    for whole, end in ((row.outcome.low, low), (row.outcome.high, high)):
        if whole == end:
            axes.plot(end, y, marker="|", color=colour, markersize=5, zorder=2)
        else:  # 4 and 5 are matplotlib's caretleft and caretright
            axes.plot(end, y, marker=4 if end == ends[0] else 5, color=colour, markersize=5, clip_on=False, zorder=2)
    if row.confirmed:
        axes.plot(ratio, y, "o", markersize=8.5, markerfacecolor="none", markeredgecolor=colour, zorder=3)
    axes.plot(
        ratio, y, marker, color=colour, markersize=5, markerfacecolor=colour if row.decided else "white",
        markeredgewidth=1.1, zorder=4,
    )  # fmt: skip
    if not 0 < row.ratio < math.inf:
        higher, lower, losses = ("KAN", "MLP", row.kan_losses) if row.ratio else ("MLP", "KAN", row.mlp_losses)
        axes.annotate(
            f"{higher} diverged" if None in losses else f"{lower} without error", (ratio, y),
            xytext=(0, 3.5), textcoords="offset points", va="bottom", fontsize=6,
            ha="right" if row.ratio else "left", color=colour,
        )  # fmt: skip


def _legend(figure: Figure, fair: FairRecord) -> None:
    handles = [
        key(VariantStyle(PROTOCOLS[protocol], STYLES[protocol][0], "-", STYLES[protocol][1]), markersize=5)
        for protocol in fair.protocols
    ]
    handles.append(hollow("undecided", markersize=5))
    if any(row.decided for row in fair.rows):
        handles.append(hollow("decided by itself", markersize=5, markerfacecolor=FAINT))
    if any(row.confirmed for row in fair.rows):
        handles.append(hollow("and after Holm's correction", markersize=8.5, markerfacecolor="none"))
    legend_below(figure, handles, columnspacing=1.4, handlelength=2.0)


def summary(record: Record) -> list[Table]:
    """The answer (one row per task), the comparisons in detail, the models, and the times of training steps."""
    fair = FairRecord.read(record)
    tables = [answer_table(fair), detail_table(fair), models_table(fair)]
    return [*tables, times_table(fair)] if fair.times else tables


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``fair`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), {"fair": partial(ratio_figure, FairRecord.read(record))})
