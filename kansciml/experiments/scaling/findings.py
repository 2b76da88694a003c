"""Findings on size: whether KANs gain more from parameters than MLPs do."""

from __future__ import annotations

from kansciml.analysis.paired import UNDECIDED, Comparison
from kansciml.experiments.scaling.record import ScalingRecord
from kansciml.reporting.claims import effect_text
from kansciml.reporting.judging import by_seeds
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

CLAIM = (
    'KANs "introduce the potential for improved parameter efficiency, as shown in small-scale studies" (section 1):'
    " their error falls faster with the number of parameters than that of MLPs"
)


def findings(record: Record) -> list[Finding]:
    """One for every function and system.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = ScalingRecord.read(record)
    made, lasting, ends = [], found.lasting(), found.without_ends()
    for task, outcome in found.faster().items():
        both = {model: found.exponent(task, model).effect for model in ("kan", "mlp")}
        verdict, short = by_seeds(lasting[task], found.n_seeds)
        sizes = [point.n_parameters for point in found.points if point.task == task]
        made.append(
            Finding(
                item="Section 1",
                claim=CLAIM,
                case=found.titles[task],
                printed="no number",
                measured=f"error ~ P^-a with a = {format_number(both['kan'], 2)} for the KAN and"
                f" {format_number(both['mlp'], 2)} for the MLP; difference {effect_text(outcome, 2)}",
                verdict=verdict,
                evidence=short
                + outcome.reason
                + _without(outcome, lasting[task], ends[task])
                + f"; {min(sizes)} to {max(sizes)} parameters, all with the same iterations, KANs grown in width at one"
                " grid",
                figures=("scaling",),
            )
        )
    return made


def _without(outcome: Comparison, lasting: str, ends: tuple[Comparison, Comparison]) -> str:
    """What is left of a difference that stands, where it is lost with either end of the sizes left out."""
    if outcome.corrected in (UNDECIDED, lasting):
        return ""
    smallest, largest = (effect_text(one, 2) for one in ends)
    return f"; without the smallest networks {smallest}, without the largest {largest}"
