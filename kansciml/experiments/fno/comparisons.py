"""Neural operators with KANs against those with MLPs."""

from __future__ import annotations

from kansciml.experiments.fno.record import RESIDUALS, FnoRecord, OperatorGroup
from kansciml.experiments.fno.report import LOWER, claims
from kansciml.experiments.minibatch.comparisons import compared
from kansciml.runs.findings import KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Relative L2 errors on the test samples, with and without residual connections.

    Raises:
        KansciError: the record holds no trained operators.
    """
    fno = FnoRecord.read(record)

    def title(group: OperatorGroup) -> str:
        data, several = fno.data_of(group).title, len({one.first.residual for one in fno.of(group.task)}) > 1
        alone = len(fno.tasks) == 1
        return (data if alone else fno.title(group.task)) + f", {RESIDUALS[group.first.residual]}" * several

    return compared("operators", "test error", [one for one in claims(fno) if one.name == LOWER], title)
