"""KANs against MLPs on functions, at equal parameters, FLOPs and time."""

from __future__ import annotations

from kansciml.experiments.functions.record import CONVERGED, PROTOCOLS, FunctionsRecord, Run
from kansciml.experiments.functions.report import KINDS
from kansciml.runs.findings import BEYOND_TRAINING, ERROR, KanOverMlp
from kansciml.runs.records import Record


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors on fresh points on every function, with and without noise on the training data.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = FunctionsRecord.read(record)
    if not {"kan", "mlp"} <= set(found.variants()):
        return []
    made = []
    for equal in PROTOCOLS:
        for one in found.verdicts("kan", "mlp", equal):
            match = "flops" if equal == "flops" else "params"
            kans, mlps = (found.of(one.target, one.noise, model, match) for model in ("kan", "mlp"))
            made.append(
                KanOverMlp(
                    kind=KINDS.get(one.kind, one.kind).capitalize().replace("feynman", "Feynman"),
                    task=one.target,
                    measure=f"with {100 * one.noise:g} % noise" if one.noise else "error on fresh points",
                    equal=equal,
                    outcome=one.outcome,
                    about=BEYOND_TRAINING if one.noise else ERROR,
                    parameters=(kans[0].n_parameters, mlps[0].n_parameters),
                    ended=(_ended(kans), _ended(mlps)),
                    budget=f"{max(run.iterations for run in found.runs):,} iterations",
                )
            )
    return made


def _ended(runs: list[Run]) -> float:
    return sum(run.ended in (CONVERGED, "at the noise floor") for run in runs) / len(runs)
