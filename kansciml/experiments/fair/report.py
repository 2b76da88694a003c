"""Report of the comparisons on equal terms (``kansciml run fair``): reads the record only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kansciml.analysis.exact_tests import seeds_needed
from kansciml.experiments.fair.record import PROTOCOLS, Comparison, FairRecord, StepTimes
from kansciml.reporting.claims import STANDS
from kansciml.reporting.groups import over
from kansciml.reporting.legends import place_legend
from kansciml.reporting.palette import PROTOCOL_MARKS
from kansciml.reporting.ratios import Ratio, height_of, limits, name_sides, ratio_keys, ratio_note, ratio_panel
from kansciml.reporting.style import new_figure, save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import MISSING, Table, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


KINDS = {"ode": "Neural ODEs", "images": "Images", "darcy": "Darcy flow"}
"""Titles of the kinds of tasks: a panel each."""
STEP = 0.16
"""Inches of height per comparison."""


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
    """Ratios with intervals on log axes, a panel for each kind of task; within `publication_style`."""
    kinds = {
        kind: [one for one in fair.lines if _kind(fair, one) == kind] for kind in map(partial(_kind, fair), fair.lines)
    }
    panels = {kind: [(_row_title(fair, line), _ratios(fair, line)) for line in lines] for kind, lines in kinds.items()}
    heights = [height_of(rows, STEP) for rows in panels.values()]
    figure = new_figure(sum(heights) + 0.5 * len(panels) + 0.2)
    shape = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (kind, rows) in zip(shape, panels.items()):
        sides = (fair.lines[0][1] if len(fair.layers) == 1 else "kan", "mlp")
        ratio_panel(axes, rows, limits([one.outcome for _, own in rows for one in own]), STEP, sides)
        name_sides(axes, "KAN better", "MLP better", sides)
        axes.set_title(KINDS.get(kind, kind))
    shape[-1].set_xlabel("error of the KAN / error of the MLP")
    note = ratio_note(fair.alpha, max(len(row.seeds) for row in fair.rows))
    place_legend(figure, ratio_keys({PROTOCOLS[one]: PROTOCOL_MARKS[one] for one in fair.protocols}), note)
    return figure


def _kind(fair: FairRecord, line: tuple[str, str]) -> str:
    return next(row.kind for row in fair.rows if (row.task, row.layer) == line)


def _row_title(fair: FairRecord, line: tuple[str, str]) -> str:
    return fair.title(*line).replace(", ", "\n", 1)


def _ratios(fair: FairRecord, line: tuple[str, str]) -> list[Ratio]:
    found = [row for protocol in fair.protocols if (row := fair.of(*line, protocol))]
    return [Ratio(row.outcome, PROTOCOL_MARKS[row.protocol], row.layer, "mlp", _extreme(row)) for row in found]


def _extreme(row: Comparison) -> str:
    """``KAN diverged`` or ``KAN without error`` where there is no ratio."""
    if 0 < row.ratio < math.inf:
        return ""
    higher, lower, losses = ("KAN", "MLP", row.kan_losses) if row.ratio else ("MLP", "KAN", row.mlp_losses)
    return f"{higher} diverged" if None in losses else f"{lower} without error"


def summary(record: Record) -> list[Table]:
    """The answer (one row per task), the comparisons in detail, the models, and the times of training steps."""
    fair = FairRecord.read(record)
    tables = [answer_table(fair), detail_table(fair), models_table(fair)]
    return [*tables, times_table(fair)] if fair.times else tables


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``fair`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), {"fair": partial(ratio_figure, FairRecord.read(record))})
