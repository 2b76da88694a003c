"""Findings on size: whether KANs gain more from parameters than MLPs do."""

from __future__ import annotations

from kansciml.analysis.paired import UNDECIDED
from kansciml.experiments.scaling.record import ScalingRecord
from kansciml.reporting.judging import VERDICT
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

LEAST_SEEDS = 12
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
    made = []
    for task, outcome in found.faster().items():
        both = {model: found.exponent(task, model).effect for model in ("kan", "mlp")}
        enough = found.n_seeds >= LEAST_SEEDS
        short = "" if enough else f"{found.n_seeds} seeds instead of {LEAST_SEEDS}; "
        sizes = [point.n_parameters for point in found.points if point.task == task]
        low, high = (format_number(end, 2) for end in (outcome.low, outcome.high))
        made.append(
            Finding(
                item="Section 1",
                claim=CLAIM,
                case=found.titles[task],
                printed="no number",
                measured=f"error ~ P^-a with a = {format_number(both['kan'], 2)} for the KAN and"
                f" {format_number(both['mlp'], 2)} for the MLP; difference {format_number(outcome.effect, 2)}"
                f" ({low} to {high})",
                verdict=VERDICT[outcome.corrected if enough else UNDECIDED],
                evidence=f"{short}{outcome.reason}; {min(sizes)} to {max(sizes)} parameters, all with the same"
                " iterations, KANs grown in width at one grid",
                figures=("scaling",),
            )
        )
    return made
