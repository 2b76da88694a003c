"""KANs against MLPs, both tuned with equally many trials."""

from __future__ import annotations

from kansciml.experiments.tune.record import read_tuned
from kansciml.experiments.tune.report import TUNED, span_of
from kansciml.experiments.tune.report import comparisons as claims
from kansciml.runs.findings import ELSEWHERE, KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors of both on unseen trajectories, or on those trained on where there are no others.

    Raises:
        KansciError: the record holds no finished run.
    """
    tuned = read_tuned(record)
    measure = "with both tuned" + ", unseen states" * (span_of(one.system for one in tuned) == "unseen")
    return [
        KanOverMlp("neural ODEs", title, measure, "params", outcome, ELSEWHERE)
        for title, claim, outcome in claims(tuned)
        if claim == TUNED
    ]
