"""What the comparison on functions says of claims that the paper makes or quotes of small problems and of formulas."""

from __future__ import annotations

from collections.abc import Sequence

from kansciml.analysis.paired import UNDECIDED
from kansciml.experiments.functions.record import VARIANTS, FunctionsRecord, Verdict
from kansciml.experiments.functions.report import budget
from kansciml.reporting.judging import by_seeds, majority
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record


def findings(record: Record) -> list[Finding]:
    """On formulas at equal FLOPs, and on all functions at equal parameters.

    Raises:
        KansciError: the record holds no trainings.
    """
    found = FunctionsRecord.read(record)
    if not {"kan", "mlp"} <= set(found.variants()):
        return []
    told = (
        (
            '"KANs have demonstrated promise in small-scale problems by achieving similar or better performance with'
            ' fewer parameters" (abstract)',
            "params",
            ("feynman", "special", "rough"),
        ),
        (
            '"When FLOPs were controlled, MLPs generally outperformed KANs across tasks, excluding symbolic formula'
            ' representation" (section 1, of Yu, Yu and Wang 2024): KANs are better at formulas',
            "flops",
            ("feynman", "special"),
        ),
    )
    made = []
    for claim, equal, kinds in told:
        for noise in found.noises:
            half, whole = (
                [one for one in found.verdicts("kan", "mlp", equal, share) if one.kind in kinds and one.noise == noise]
                for share in (0.5, 1.0)
            )
            if whole:
                made.append(_finding(found, claim, half, whole, noise))
    return made


def _finding(
    found: FunctionsRecord, claim: str, half: Sequence[Verdict], whole: Sequence[Verdict], noise: float
) -> Finding:
    (early, before), (said, measured) = (
        majority([one.outcome for one in own], VARIANTS["kan"], VARIANTS["mlp"]) for own in (half, whole)
    )
    verdict, short = by_seeds(said if early == said else UNDECIDED, found.n_seeds)
    return Finding(
        item="Section 1",
        claim=claim,
        case=f"noise {100 * noise:g} %" if noise else "no noise",
        printed="no number",
        measured=measured,
        verdict=verdict,
        evidence=f"{short}exact signed-rank tests over {found.n_seeds} paired seeds, after Holm's correction; a claim"
        f" stands if one side wins more than half of all functions, after half of the budget ({before}) as after the"
        f" whole. {budget(found)}",
        figures=("functions",),
    )
