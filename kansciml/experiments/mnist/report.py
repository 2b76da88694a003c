"""Report of the mixers on MNIST (``kansciml run mnist``): reads the record only."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kansciml.analysis.paired import REFUTED, SUPPORTED
from kansciml.experiments.hessian import report as hessian
from kansciml.experiments.hessian.claims import SharpnessClaim, family, sharpness_claims
from kansciml.experiments.hessian.record import HessianRecord
from kansciml.experiments.vision.record import VisionGroup, VisionRecord
from kansciml.experiments.vision.report import accuracy_table, cost_table, drawings
from kansciml.experiments.vision.report import claims as accuracy_claims
from kansciml.reporting.claims import claim_table, counted, in_families
from kansciml.reporting.style import save_report
from kansciml.runs.records import Record
from kansciml.runs.tables import Table, format_number


def claims(vision: VisionRecord) -> list[SharpnessClaim[VisionGroup]]:
    """What the paper observes on CIFAR-10, of this run; `found` are medians, the MLPs' first, and effects KAN - MLP."""
    measured, found = HessianRecord.read(vision.record), []
    for claim in accuracy_claims(vision):
        kans, mlps = claim.group, claim.reference
        found += sharpness_claims(measured, kans, mlps)
        tops = tuple(side.median(lambda row: row.percent) for side in (mlps, kans))
        found.append(SharpnessClaim(claim.name, claim.text, kans, mlps, claim.outcome, tops))
        few, many = mlps.first.parameters, kans.first.parameters
        more = counted(SUPPORTED if many > few else REFUTED, f"counted: {format_number(many / few)} times as many")
        found.append(SharpnessClaim("parameters", "more parameters", kans, mlps, more, (few, many)))
    return in_families(found, family)


def claims_table(vision: VisionRecord) -> Table:
    """`claims` as a table."""
    rows = [([one.group.label, one.text], one) for one in claims(vision)]
    notes = ["The claims on eigenvalues are one family. Of single models: 2 standard errors of the probes."]
    return claim_table("Claims on MNIST", ["KAN", "Claim: than the MLP"], "KAN - MLP", rows, notes, ["MLP", "KAN "])


def summary(record: Record) -> list[Table]:
    """Claims, accuracies, cost of the trainings, and the verdicts of all measures of sharpness."""
    vision = VisionRecord.read(record)
    own = [claims_table(vision), accuracy_table(vision), cost_table(vision)]
    return own + hessian.verdict_tables(HessianRecord.read(record))


def render(record: Record, folder: Path) -> list[Path]:
    """Write ``spectra``, the curves (SVG, PNG, PDF), and ``tables`` (Markdown and JSON) into `folder`."""
    spectra = partial(hessian.spectra, HessianRecord.read(record))
    return save_report(folder, summary(record), {**drawings(VisionRecord.read(record)), "spectra": spectra})
