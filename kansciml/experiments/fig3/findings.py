"""Findings of Figure 3: accuracy, parameters and spectra of mixers with MLPs and with KANs."""

from __future__ import annotations

from kansciml.experiments.fig3.report import Fig3Record, claims
from kansciml.experiments.hessian.claims import MEASURES, SharpnessClaim, sharper
from kansciml.experiments.vision.record import VisionGroup, top1
from kansciml.reporting.claims import POINTS, effect_text
from kansciml.reporting.judging import NO_NUMBER, VERDICT, diverged, judged, resized, shortfalls
from kansciml.runs.findings import Finding
from kansciml.runs.records import Record

ITEM = "Figure 3"
MODELS = ("mixer-nano", "conv-mixer-256-8")
"""Sizes of the sources that the paper points to; it gives none."""
AT_LEAST = {"epochs": 100}
SAME = {"dataset": "cifar10", "subset": None}
SHARP = '"KAN variants converge to sharp minima (large number of positive eigenvalues)" (Figure 3)'
SHARPNESS = {
    "positive_count": SHARP,
    "positive_share": f"{SHARP}, as a share of all",
    "count_above_0.01_top": 'sharp minima by "a significant number of large positive eigenvalues" (section 2.2)',
}
"""Measure -> claim."""


def findings(record: Record) -> list[Finding]:
    """What a run says about the minima, accuracies and sizes of KANs against MLPs, for every mixer of it."""
    fig3 = Fig3Record.read(record)
    return [_finding(record, fig3, claim) for claim in claims(fig3)]


def _finding(record: Record, fig3: Fig3Record, claim: SharpnessClaim) -> Finding:
    kan, mlp, outcome = claim.group, claim.reference, claim.outcome
    short = _short(record, kan)
    figures: tuple[str, ...] = ("figure3",)
    if claim.name == "parameters":
        text = '"KANs use significantly large number of parameters compared to MLP" (Figure 3)'
        measured = f"KAN {kan.first.parameters:,}, MLP {mlp.first.parameters:,} parameters"
        verdict = VERDICT[outcome.verdict]
        evidence = f"{outcome.reason}, whatever the training; more at all is taken for significantly more"
    elif claim.name == "accuracy":
        text = 'KANs attain "a lower final accuracy" (Figure 3)'
        lost = diverged({name: (side.n_diverged, len(side.rows)) for name, side in (("KAN", kan), ("MLP", mlp))})
        measured = f"test top-1, mean +- standard error over seeds: KAN {top1(kan)}, MLP {top1(mlp)}"
        measured += f"; {POINTS} {effect_text(outcome)}{lost}"
        verdict, evidence = judged(claim, short)
        figures += (f"curves{fig3.suffix(kan.task)}",)
    else:
        text = SHARPNESS[claim.name]
        values = [fig3.measured(side, claim.name) for side in (kan, mlp)]
        measured = (
            f"{MEASURES[claim.name]}: KAN {values[0]}, MLP {values[1]} (mean over seeds +- error); KAN - MLP"
            f" {effect_text(outcome)}"
        )
        verdict, evidence = sharper(claim, short)
    where = f"{fig3.title(kan.task)}, {kan.label}"
    return Finding(ITEM, text, NO_NUMBER, measured, verdict, evidence, figures, where)


def _short(record: Record, group: VisionGroup) -> list[str]:
    """In what a model and its training are smaller than those of the sources."""
    model = group.first.model
    other = [] if model in MODELS else [f"model {model} instead of {' or '.join(MODELS)}"]
    return other + resized(group.first.resized) + shortfalls(record.config, AT_LEAST, SAME)
