"""KANs whose grid is refined against MLPs at equal cost."""

from __future__ import annotations

from kansciml.experiments.functions.comparisons import REFINED
from kansciml.experiments.functions.record import FunctionsRecord
from kansciml.experiments.functions.report import KINDS
from kansciml.experiments.refine.record import COSTS, RefineRecord
from kansciml.runs.findings import ASIDE, KanOverMlp
from kansciml.runs.records import Record

EQUAL = {"flops": "flops", "seconds": "time"}
"""Cost -> what is equal, as `kansciml.runs.findings.EQUAL` has it."""
PAIR = (("refined", "lbfgs"), ("mlp", "lbfgs"))


def comparisons(record: Record) -> list[KanOverMlp]:
    """Errors of both, by L-BFGS, on every function and system.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = RefineRecord(FunctionsRecord.read(record))
    size = {(run.target, run.variant, run.match): run.n_parameters for run in found.found.runs}  # at the end
    targets, made = {target.name: target for target in found.found.targets}, []
    for cost in COSTS:
        for one in found.matched("KAN or MLP", cost):
            target, system = targets[one.target], targets[one.target].kind == "system"
            if (one.a, one.b) == PAIR:
                made.append(
                    KanOverMlp(
                        kind="neural ODEs" if system else KINDS.get(target.kind, target.kind),
                        task=target.formula.partition(",")[0] if system else target.name,
                        measure=f"{REFINED} at equal cost",  # of training, where `functions` has equal networks
                        equal=EQUAL[cost],
                        outcome=one.outcome,
                        about=ASIDE,
                        parameters=(size[(one.target, *one.a)], size[(one.target, *one.b)]),
                        budget=f"{max(run.iterations for run in found.found.runs):,} iterations",
                        cut=COSTS[cost].removeprefix("equal "),
                    )
                )
    return made
