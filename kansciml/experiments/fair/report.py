"""Report of the comparisons on equal terms (``kansciml run fair``): reads the record only, as `fair_record` has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kansciml.analysis.paired import UNDECIDED, seeds_needed
from kansciml.experiments.fair.figure import ratio_figure
from kansciml.experiments.fair.record import PROTOCOLS, FairRecord
from kansciml.reporting.groups import over
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import MISSING, Table, format_number

STANDS = " *"
"""What a verdict ends with that stands after the correction for the whole table."""


def summary(record: Record) -> list[Table]:
    """The answer (one row per task), the comparisons in detail, the models, and the times of training steps.

    Raises:
        KansciError: the record holds no comparisons.
    """
    fair = FairRecord.read(record)
    tables = [answer_table(fair), detail_table(fair), models_table(fair)]
    return [*tables, times_table(fair)] if fair.times else tables


def answer_table(fair: FairRecord) -> Table:
    """When is a KAN worth it? A row per task, a column per protocol."""
    rows = []
    for task, layer in fair.lines:
        own = {protocol: fair.of(task, layer, protocol) for protocol in fair.protocols}
        metric = next(row["metric_title"] for row in own.values() if row)
        rows.append([fair.title(task, layer), metric, *(_cell(row) for row in own.values())])
    columns = ["task", "error", *(PROTOCOLS[protocol] for protocol in fair.protocols)]
    return Table("When is a KAN worth it? Error of the KAN over that of the MLP", columns, rows, _answer_notes(fair))


def _answer_notes(fair: FairRecord) -> list[str]:
    n, level = len(fair.rows), fair.alpha
    counts = {verdict: sum(row["verdict"] == verdict for row in fair.rows) for verdict in ("KAN better", "MLP better")}
    stands = sum(row["confirmed"] for row in fair.rows)
    seeds = sorted({len(row["seeds"]) for row in fair.rows})
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    notes = [
        f"Of {n} comparisons over {shown} seeds the KAN is better in {counts['KAN better']}, the MLP in"
        f" {counts['MLP better']}, and {n - sum(counts.values())} are undecided; {stands} of the verdicts stand after"
        f" Holm's correction over the table ({STANDS.strip()}).",
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
    rows = []
    for row in (*fair.rows, *fair.others):
        medians = [_median(row[f"{side}_losses"]) for side in ("kan", "mlp")]
        found = [row[name] for name in ("ratio", "low", "high", "p_value", "adjusted_p")]
        named = [fair.title(row["task"], row["layer"]), PROTOCOLS[row["protocol"]], row["metric_title"]]
        rows.append([*named, *medians, *found, _verdict(row), len(row["seeds"]), row["reason"]])
    notes = (
        "Medians over seeds, diverged ones counted as infinite. from, to: interval of the ratio. p adjusted: by Holm's"
        " method over the tasks' own errors and, apart from them, over those shown beside.",
    )
    return Table("Comparisons in detail", columns, rows, notes)


def models_table(fair: FairRecord) -> Table:
    """What was compared: both models, how they were made equal, their sizes and cost."""
    measures = {"parameters": "parameters", "flops": "FLOPs", "steps": "steps", "seconds": "seconds"}
    columns = ["task", "protocol", "adapted", "KAN", "MLP"]
    columns += [f"{title}, {side}" for title in measures.values() for side in ("KAN", "MLP")]
    rows = []
    for row in fair.rows:
        kan, mlp = row["kan"], row["mlp"]
        numbers = [side[name] for name in measures for side in (kan, mlp)]
        named = [fair.title(row["task"], row["layer"]), PROTOCOLS[row["protocol"]], row["adapted"]]
        rows.append([*named, _labelled(kan), _labelled(mlp), *numbers])
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
    rows = [
        [fair.title(row["task"], row["layer"]), row["kan_s"], row["mlp_s"], row["factor"], row["clock"],
         *_used(fair, row)]
        for row in fair.times
    ]  # fmt: skip
    columns = ["task", "KAN [s]", "MLP [s]", "KAN / MLP", "clock", "steps MLP / KAN", "seconds used KAN / MLP"]
    notes = (
        "Of one training step of the models of equal width (neural ODEs: a loss with its gradient at the trained"
        " parameters of every seed), on one thread, in turn, medians; measured once and kept.",
    )
    return Table("Time of a training step", columns, rows, notes)


def _used(fair: FairRecord, times: Mapping[str, Any]) -> tuple[float | None, float | None]:
    row = fair.of(times["task"], times["layer"], "time")
    if row is None:
        return None, None
    kan, mlp = row["kan"], row["mlp"]
    return over(mlp["steps"], kan["steps"]), over(kan["seconds"], mlp["seconds"])


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``fair`` (SVG, PNG and PDF) and ``tables`` (Markdown and JSON) into `folder`; returns their paths.

    Raises:
        KansciError: the record holds no comparisons, or the folder cannot be written.
    """
    return save_report(folder, summary(record), {"fair": partial(ratio_figure, FairRecord.read(record))})


def _cell(row: Mapping[str, Any] | None) -> str:
    """``0.31 (0.22 to 0.48) KAN better *``."""
    if row is None or row["n_pairs"] == 0:
        return MISSING if row is None else "both diverged"
    ratio, low, high = (format_number(row[name], 2) for name in ("ratio", "low", "high"))
    return f"{ratio} ({low} to {high}) {_verdict(row)}"


def _verdict(row: Mapping[str, Any]) -> str:
    return row["verdict"] + STANDS * bool(row["confirmed"] and row["verdict"] != UNDECIDED)


def _labelled(group: Mapping[str, Any]) -> str:
    lost = group["n_diverged"]
    return group["label"] + (f"; {lost} diverged" if lost else "")


def _median(losses: Sequence[float | None]) -> float:
    found = sorted(math.inf if loss is None else loss for loss in losses)
    if not found:
        return math.nan
    low, high = found[(len(found) - 1) // 2], found[len(found) // 2]
    return low if low == high else (low + high) / 2
