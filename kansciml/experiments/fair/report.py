"""Report of the comparisons on equal terms (``kansciml run fair``): reads the record only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kansciml.analysis.paired import seeds_needed
from kansciml.experiments.fair.figure import ratio_figure
from kansciml.experiments.fair.record import PROTOCOLS, Comparison, FairRecord, StepTimes
from kansciml.reporting.groups import over
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import MISSING, Table, format_number

STANDS = " *"
"""What a verdict ends with that stands after the correction for the whole table."""


def summary(record: Record) -> list[Table]:
    """The answer (one row per task), the comparisons in detail, the models, and the times of training steps."""
    fair = FairRecord.read(record)
    tables = [answer_table(fair), detail_table(fair), models_table(fair)]
    return [*tables, times_table(fair)] if fair.times else tables


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
         _median(row.mlp_losses), row.ratio, row.low, row.high, row.p_value, row.adjusted_p, _verdict(row),
         len(row.seeds), row.reason]
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


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``fair`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths."""
    return save_report(folder, summary(record), {"fair": partial(ratio_figure, FairRecord.read(record))})


def _cell(row: Comparison | None) -> str:
    """``0.31 (0.22 to 0.48) KAN better *``."""
    if row is None or row.n_pairs == 0:
        return MISSING if row is None else "both diverged"
    ratio, low, high = (format_number(value, 2) for value in (row.ratio, row.low, row.high))
    return f"{ratio} ({low} to {high}) {_verdict(row)}"


def _verdict(row: Comparison) -> str:
    return row.verdict + STANDS * (row.confirmed and row.decided)


def _median(losses: Sequence[float | None]) -> float:
    found = np.sort([math.inf if loss is None else loss for loss in losses])
    # two infinite ones in the middle have no mean
    low, high = found[(len(found) - 1) // 2], found[len(found) // 2]
    return float(low if low == high else (low + high) / 2)
