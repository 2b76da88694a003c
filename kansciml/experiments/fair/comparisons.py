"""KANs against MLPs on equal terms, as the other experiments show them."""

from __future__ import annotations

from kansciml.experiments.fair.record import FairRecord
from kansciml.runs.findings import KanOverMlp
from kansciml.runs.records import Record

KINDS = {"ode": "neural ODEs", "images": "images", "darcy": "operators"}


def comparisons(record: Record) -> list[KanOverMlp]:
    """The comparisons of each task's own metric.

    Raises:
        KansciError: the record holds no comparisons.
    """
    fair = FairRecord.read(record)
    return [
        KanOverMlp(
            kind=KINDS.get(row.kind, row.kind),
            task=fair.title(row.task, row.layer),
            measure=f"{row.metric_title}, steps set beforehand",
            equal=row.protocol.removesuffix("-up"),
            outcome=row.outcome,
            parameters=(row.kan.parameters, row.mlp.parameters),
            budget=f"{max(row.kan.steps, row.mlp.steps):,} steps",
        )
        for row in fair.rows
    ]
