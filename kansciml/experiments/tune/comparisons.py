"""KANs against MLPs, both tuned with equally many trials."""

from __future__ import annotations

from kansciml.experiments.tune.record import read_tuned
from kansciml.experiments.tune.report import TUNED
from kansciml.experiments.tune.report import comparisons as claims
from kansciml.runs.findings import ELSEWHERE, KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors of both on unseen trajectories, or on those trained on where there are no others.

    Raises:
        KansciError: the record holds no finished run.
    """
    return [
        KanOverMlp("neural ODEs", title, "with both tuned", "params", outcome, ELSEWHERE)
        for title, claim, outcome in claims(read_tuned(record))
        if claim == TUNED
    ]
