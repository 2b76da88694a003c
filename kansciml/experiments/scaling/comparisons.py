"""The largest KANs against MLPs of as many parameters."""

from __future__ import annotations

from kansciml.experiments.scaling.record import MODELS, ScalingRecord
from kansciml.runs.findings import ELSEWHERE, KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors of the largest networks of every task.

    Raises:
        KansciError: the record holds no trainings.
    """
    found, made = ScalingRecord.read(record), []
    for task, outcome in found.largest().items():
        kan, mlp = (found.medians(task, model)[0].max() for model in MODELS)
        made.append(
            KanOverMlp(
                kind="largest networks",
                task=found.titles[task],
                measure="the largest sizes",
                equal="params",
                outcome=outcome,
                about=ELSEWHERE,
                parameters=(int(kan), int(mlp)),
            )
        )
    return made
