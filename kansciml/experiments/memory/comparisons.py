"""Memory of KANs over that of MLPs in a training step."""

from __future__ import annotations

from dataclasses import replace

from kansciml.analysis.paired import REFUTED, SUPPORTED, UNDECIDED
from kansciml.experiments.memory.record import TOO_SMALL, MemoryRecord
from kansciml.reporting.claims import counted
from kansciml.runs.findings import COST, KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Memory per sample of this package's spline KANs, counted; models whose batches tell it, at their largest size.

    Raises:
        KansciError: the record holds no finished run of figure 4.
    """
    memory, made = MemoryRecord.read(record), {}
    for curve, base in memory.pairs("kan-spline"):
        if curve.rating(base) == TOO_SMALL:
            continue
        ratio = curve.over(base)
        outcome = counted(SUPPORTED if ratio > 1 else REFUTED if ratio < 1 else UNDECIDED, "counted")
        name = memory.titles[curve.model].partition(":")[0]
        made[name] = KanOverMlp(
            kind="memory per sample",
            task=f"operator, {name}" if memory.experiment == "fig4b" else name,
            measure="memory per sample",
            equal="width",
            outcome=replace(outcome, effect=ratio),
            about=COST,
            parameters=(curve.parameters, base.parameters),
        )
    return list(made.values())
