"""Image classifiers with KANs against those with MLPs."""

from __future__ import annotations

from kansciml.analysis.paired import compare
from kansciml.experiments.minibatch.comparisons import compared
from kansciml.experiments.vision.record import ImagesRecord, V, VisionRecord
from kansciml.reporting.claims import Claim, in_families
from kansciml.runs.findings import KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Shares of the test images that are classified wrongly.

    Raises:
        KansciError: the record holds no trained classifiers.
    """
    return of_images(VisionRecord.read(record))


def of_images(vision: ImagesRecord[V]) -> list[KanOverMlp]:
    """`comparisons` of what was read already."""
    claims = []
    for kan, mlp in vision.pairs():
        outcome = compare(kan.by_seed(), mlp.by_seed(), below=1, text="KAN errs less")
        claims.append(Claim("test error", "", kan, mlp, outcome))
    alike = len({vision.title(task, False) for task in vision.tasks}) < len(vision.tasks)
    return compared("images", "test error", in_families(claims), lambda group: vision.title(group.task, alike))
