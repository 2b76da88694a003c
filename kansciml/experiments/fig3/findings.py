"""Findings of Figure 3: accuracy, parameters and spectra of mixers with MLPs and with KANs."""

from __future__ import annotations

from kansciml.analysis.exact_tests import ALPHA
from kansciml.experiments.fig3.generalisation import Correlation, batch_claims, correlations
from kansciml.experiments.fig3.record import Fig3Record
from kansciml.experiments.fig3.report import claims
from kansciml.experiments.hessian.claims import MEASURES, SharpnessClaim, sharper
from kansciml.experiments.vision.record import VisionGroup, top1
from kansciml.reporting.claims import POINTS, effect_text
from kansciml.reporting.judging import NO_NUMBER, VERDICT, diverged, judged, listed, resized, shortfalls
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record

ITEM = "Figure 3"
MODELS = ("mixer-nano", "conv-mixer-256-8")
"""Sizes of the sources that the paper points to; it gives none."""
AT_LEAST = {"epochs": 100}
SAME = {"dataset": "cifar10", "subset": None}
SHARP = '"KAN variants converge to sharp minima (large number of positive eigenvalues)" (Figure 3)'
SHARPNESS = {
    "positive_exact": SHARP,
    "positive_exact_share": f"{SHARP}, as a share of all",
    "positive_count": SHARP,
    "positive_share": f"{SHARP}, as a share of all",
    "count_above_0.01_top": 'sharp minima by "a significant number of large positive eigenvalues" (section 2.2)',
}
"""Measure -> claim."""
SECTION = "Section 2.2"
CORRELATES = '"this sharpness strongly correlates with poor generalization performance" (section 2.2)'
FOOTNOTE = 'KAN convolutions mean "an explosive parameter growth due to grouped convolutions" (footnote 4)'
PAPER_SIZE, CONV_MIXER = (256, 5, 8), 594_186
"""Width, kernel, depth and parameters of the ConvMixer that the paper points to."""
FLATTENED = 0.8
"""Least share of trainings that have flattened."""


def findings(record: Record) -> list[Finding]:
    """What a run says about the minima, accuracies and sizes of KANs against MLPs, for every mixer of it."""
    fig3 = Fig3Record.read(record)
    grouped = [one for one in fig3.groups if one.first.network.get("placement") == "grouped"]
    return [
        *(_finding(record, fig3, claim) for claim in claims(fig3)),
        *(_of_batches(record, fig3, claim) for claim in batch_claims(fig3)),
        *(_correlated(record, fig3, one) for one in correlations(fig3)),
        *(_of_footnote(fig3, one) for one in grouped if one.first.variant != "mlp"),
    ]


def _finding(record: Record, fig3: Fig3Record, claim: SharpnessClaim) -> Finding:
    kan, mlp, outcome = claim.group, claim.reference, claim.outcome
    short = _short(record, fig3, kan) + _unfinished(fig3, mlp)
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


def _of_batches(record: Record, fig3: Fig3Record, claim: SharpnessClaim) -> Finding:
    """Large batches against small ones, of one kind of model."""
    large, small, outcome = claim.group, claim.reference, claim.outcome
    short = _short(record, fig3, large) + _unfinished(fig3, small)
    sizes = [f"batches of {side.first.batch_size}" for side in (large, small)]
    if claim.name == "accuracy":
        text = 'large batches "exhibit poorer generalization" than small ones (section 2.2)'
        measured = f"test top-1: {sizes[0]} {top1(large)}, {sizes[1]} {top1(small)}; difference {effect_text(outcome)}"
        verdict, evidence = judged(claim, short)
    else:
        text = f"large batches converge to sharp minimizers, {MEASURES[claim.name]} (section 2.2)"
        values = [fig3.measured(side, claim.name) for side in (large, small)]
        measured = f"{sizes[0]} {values[0]}, {sizes[1]} {values[1]}; difference {effect_text(outcome)}"
        verdict, evidence = sharper(claim, short)
    where = f"{fig3.title(small.task)}, {small.label}"
    return Finding(SECTION, text, "", measured, verdict, evidence, ("figure3",), where)


def _correlated(record: Record, fig3: Fig3Record, one: Correlation) -> Finding:
    """Accuracy against one measure of sharpness."""
    found = one.found
    measured = f"Kendall's tau-b {found.tau:.2f} ({found.low:.2f} to {found.high:.2f}) over {found.n} models"
    decided = "" if one.adjusted_p > ALPHA else "lower with sharpness" if found.tau < 0 else "higher with sharpness"
    short = sorted({line for group in fig3.groups for line in _short(record, fig3, group)})
    evidence = f"accuracy is {decided or 'neither lower nor higher'}, p = {one.adjusted_p:.2g} after Holm's correction"
    verdict = UNDECIDED
    if not one.within:
        evidence += "; that takes all models for independent, which those of one kind are not: it decides nothing"
    elif decided and not short:
        verdict = REPRODUCED if found.tau < 0 else NOT_REPRODUCED
    if short:
        evidence = f"at this size: {evidence}; it does not decide the paper's claim: {listed(short)}"
    case = f"{one.text}, {one.models}"
    return Finding(SECTION, CORRELATES, "", measured, verdict, evidence, ("accuracy_against_sharpness",), case)


def _of_footnote(fig3: Fig3Record, group: VisionGroup) -> Finding:
    """What KANs in the place of the depthwise convolutions add, counted; and at the size that the paper points to."""
    row, mlp = group.first, fig3.reference(group)
    per_edge = 2 + 5 + 3  # 2 + G + S
    width, kernel, depth = PAPER_SIZE
    grouped = depth * width * (kernel**2 * (per_edge - 1) - 1)
    appended = depth * width**2 * per_edge
    dense = depth * (width**2 * kernel**2 * per_edge - width * (kernel**2 + 1))
    measured = (
        f"ConvMixer-{width}/{depth} of {CONV_MIXER:,} parameters: depthwise KAN convolutions add {grouped:,}, KANs"
        f" after the 1x1 convolutions, which the paper takes instead, {appended:,}; without groups they would add"
        f" {dense:,}"
    )
    here = "" if mlp is None else f"; trained here: {row.parameters:,} against {mlp.first.parameters:,} parameters"
    evidence = (
        "counted, whatever the training: an edge takes 2 + G + S parameters wherever it is, and a depthwise convolution"
        f" has k^2 edges per channel where a 1x1 convolution has as many as there are channels{here}"
    )
    verdict = NOT_REPRODUCED if grouped < appended else REPRODUCED
    where = f"{fig3.title(group.task)}, {group.label}"
    return Finding(
        "Footnote 4", FOOTNOTE, "", measured, verdict, evidence, (f"curves{fig3.suffix(group.task)}",), where
    )


def _short(record: Record, fig3: Fig3Record, group: VisionGroup) -> list[str]:
    """In what a model and its training are smaller than those of the sources, and whether trainings were finished."""
    model = group.first.model
    other = [] if model in MODELS else [f"model {model} instead of {' or '.join(MODELS)}"]
    other += resized(group.first.resized) + shortfalls(record.config, AT_LEAST, SAME)
    return other + _unfinished(fig3, group)


def _unfinished(fig3: Fig3Record, group: VisionGroup) -> list[str]:
    share = fig3.flattened(group)
    few = [] if share >= FLATTENED else [f"{100 * share:.0f} % of the trainings flattened instead of {FLATTENED:.0%}"]
    return [f"{group.label}: {line}" for line in few]
