"""Findings of footnote 3: whether the observations on CIFAR-10 are those on MNIST too."""

from __future__ import annotations

from kansciml.experiments.hessian.claims import CLAIMED, SharpnessClaim, measured_text, sharper
from kansciml.experiments.mnist.report import claims
from kansciml.experiments.vision.record import VisionRecord, top1
from kansciml.reporting.claims import POINTS, effect_text
from kansciml.reporting.judging import NO_NUMBER, VERDICT, diverged, judged, resized, shortfalls
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record

MODEL = "mixer-nano"
AT_LEAST = {"epochs": 30}
"""The paper gives no number: that of the recipe for small images."""
SAME = {"dataset": "mnist", "subset": None}
CLAIM = '"we have similar observations to CIFAR-10 when using MLP-Mixer", on MNIST (footnote 3)'


def findings(record: Record) -> list[Finding]:
    """Whether KANs have sharper minima, more parameters and a lower accuracy on MNIST too."""
    return [_finding(record, claim) for claim in claims(VisionRecord.read(record))]


def _finding(record: Record, claim: SharpnessClaim) -> Finding:
    kan, mlp = claim.group, claim.reference
    short = resized(kan.first.resized) + shortfalls(record.config, AT_LEAST, SAME)
    figures = ["curves"]
    if claim.name in CLAIMED:
        figures, measured = ["spectra"], measured_text(claim)
        verdict, evidence = sharper(claim, short)
    elif claim.name == "parameters":
        measured = f"KAN {kan.first.parameters:,}, MLP {mlp.first.parameters:,} parameters"
        verdict, evidence = VERDICT[claim.outcome.verdict], f"{claim.outcome.reason}, whatever the training"
    else:
        lost = diverged({name: (side.n_diverged, len(side.rows)) for name, side in (("KAN", kan), ("MLP", mlp))})
        measured = f"test top-1, mean +- standard error over seeds: KAN {top1(kan)}, MLP {top1(mlp)}"
        measured += f"; {POINTS} {effect_text(claim.outcome)}{lost}"
        verdict, evidence = judged(claim, short)
    return Finding("Footnote 3", CLAIM, NO_NUMBER, measured, verdict, evidence, figures, f"{claim.text}, {kan.label}")
