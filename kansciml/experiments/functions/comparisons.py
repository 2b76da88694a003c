"""KANs against MLPs on functions, at equal parameters, FLOPs and time."""

from __future__ import annotations

from kansciml.experiments.functions.record import CONVERGED, PROTOCOLS, FunctionsRecord, Run, Verdict
from kansciml.experiments.functions.report import KINDS
from kansciml.runs.findings import ASIDE, ELSEWHERE, ERROR, KanOverMlp
from kansciml.runs.records import Record

REFINED = "with a refined grid"


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors on fresh points on every function, with and without noise on the training data.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = FunctionsRecord.read(record)
    if "mlp" not in found.variants():
        return []
    return [
        _row(found, one, equal)
        for kan in ("kan", "kan-refined")
        for equal in PROTOCOLS
        for one in found.verdicts(kan, "mlp", equal)
        if kan in found.variants() and (kan == "kan" or not one.noise)
    ]


def _row(found: FunctionsRecord, one: Verdict, equal: str) -> KanOverMlp:
    match = "flops" if equal == "flops" else "params"
    kans, mlps = (found.of(one.target, one.noise, model, match) for model in (one.a, one.b))
    plain = one.a == "kan" and not one.noise
    other = f"with {100 * one.noise:g} % noise" if one.noise else REFINED
    return KanOverMlp(
        kind=KINDS.get(one.kind, one.kind),
        task=one.target,
        measure="error on fresh points" if plain else other,
        equal=equal,
        outcome=one.outcome,
        about=ERROR if plain else ELSEWHERE if one.a == "kan" else ASIDE,
        parameters=(kans[0].n_parameters, mlps[0].n_parameters),
        ended=None if equal == "time" else (_ended(kans), _ended(mlps)),
        budget=f"{max(run.iterations for run in found.runs):,} iterations",
        cut="time" * (equal == "time"),
    )


def _ended(runs: list[Run]) -> float:
    return sum(run.ended in (CONVERGED, "at the noise floor") for run in runs) / len(runs)
