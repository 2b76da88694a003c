"""Networks with KANs against those with MLPs, by their errors on the test data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from kansciml.experiments.minibatch.record import R, TrainedRecord
from kansciml.reporting.claims import Claim
from kansciml.reporting.groups import Group
from kansciml.runs.findings import KanOverMlp

T = TypeVar("T", bound=TrainedRecord)


def compared(
    kind: str, measure: str, claims: Iterable[Claim[Group[R]]], title: Callable[[Group[R]], str]
) -> list[KanOverMlp]:
    """Claims on ratios of errors, KAN over MLP, after Holm's correction; a task by `title` of its group of KANs.

    A kind of KAN whose name says nothing of parameters or FLOPs is compared as it stands in the MLPs' place.
    """
    return [
        KanOverMlp(
            kind=kind,
            task=title(claim.group) + _further(claim.group.first.group),
            measure=measure,
            equal=_equal(claim.group.first.group),
            outcome=claim.outcome,
            parameters=(claim.group.first.parameters, claim.reference.first.parameters),
            budget=f"{max(row.epochs for side in (claim.group, claim.reference) for row in side.rows)} epochs",
        )
        for claim in claims
    ]


def _equal(name: str) -> str:
    return next((by for by in ("params", "flops") if f"-{by}" in name), "width")


def _further(name: str) -> str:
    """What tells a kind of KAN from splines in the place of the MLPs: ``, rswaf``, ``, head``."""
    words = [word for word in name.split("-") if word not in ("kan", "spline", "params", "flops", "residual")]
    return "".join(f", {'RSWAF' if word == 'rswaf' else word}" for word in words)
