"""Findings of Table 1: accuracies, parameters, and parameters that no forward pass uses."""

from __future__ import annotations

from kansciml.experiments.hessian.claims import SharpnessClaim, measured_text, sharper
from kansciml.experiments.table1.claims import BETTER, FEWER, MARGIN, MARGINS, TableClaim, claims, flatness_claims
from kansciml.experiments.table1.record import FAIR, PAPER, Row, Table1Record
from kansciml.experiments.vision.record import top1
from kansciml.reporting.claims import effect_text
from kansciml.reporting.judging import VERDICT, judged
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEM = "Table 1"
PRINTED_DIGITS = 0.1e6
"""Unit of the last printed digit of a number of parameters: the paper rounds some and cuts others off."""
NAMES = {"kan-spline": "B-Spline KANs", "kan-rswaf": "RSWAF KANs"}


def findings(record: Record) -> list[Finding]:
    """What a run says about the accuracies of Table 1, and what counting says about its numbers of parameters."""
    table1 = Table1Record.read(record)
    found = [_count(row) for row in table1.published if row.protocol == PAPER]
    every = claims(table1)
    for claim in every:
        if claim.row.protocol == PAPER:
            same = (FAIR, claim.row.size, claim.row.variant)
            tested = [one for one in every if one.name == BETTER and one.tested]
            fair = [one for one in tested if (one.row.protocol, one.row.size, one.row.variant) == same]
            found.append(_fewer(claim) if claim.name == FEWER else _accuracy(table1, claim, fair))
    return found + [_flat(table1, claim) for claim in flatness_claims(table1)]


def _flat(table1: Table1Record, claim: SharpnessClaim) -> Finding:
    """The paper's claim is the opposite: that the KAN is not sharper."""
    verdict, evidence = sharper(claim, table1.deviations, f"not {claim.text}", opposite=True)
    return Finding(
        item="Section 4.2",
        claim='"this issue of sharper minima doesn\'t seem to occur for larger models like DeiT" (section 4.2)',
        printed="no number",
        measured=measured_text(claim),
        verdict=verdict,
        evidence=evidence,
        figures=("spectra",),
        case=f"DeiT-{claim.group.first.size.capitalize()}, {claim.group.label}, {claim.text}",
    )


def _count(row: Row) -> Finding:
    built, printed = row.parameters + row.dead, row.printed_parameters
    met, meets_dead = (abs(number - printed) < PRINTED_DIGITS for number in (row.parameters, built))
    evidence, unused = "every parameter is used by the forward pass", ""
    if row.dead:
        evidence = (
            f"the source builds MLPs of {row.dead:,} parameters beside the KANs and never calls them: with them it has"
            f" {built:,}, {'the printed number' if meets_dead else 'not the printed number either'}"
        )
        unused = f", and {row.dead:,} that are never used"
    return Finding(
        item=ITEM,
        claim='"Number of Params"',
        printed=f"{printed / 1e6:.1f}M",
        measured=f"{row.parameters:,} in use{unused}",
        verdict=REPRODUCED if met else NOT_REPRODUCED,
        evidence=f"counted exactly at the printed size; {evidence}",
        figures=("table1",),
        case=_case(row),
    )


def _fewer(claim: TableClaim) -> Finding:
    kan, mlp = claim.row, claim.mlp
    return Finding(
        item=ITEM,
        claim='MLPs outperform KANs "while requiring significantly less parameters" (Table 1)',
        printed=f"{kan.printed_parameters / 1e6:.1f}M against {mlp.printed_parameters / 1e6:.1f}M,"
        f" {claim.printed:.2f} x",
        measured=f"in use {kan.parameters:,} against {mlp.parameters:,}, {claim.found[0]}",
        verdict=VERDICT[claim.outcome.verdict],
        evidence=f"{claim.outcome.reason}; fewer at all is taken for significantly fewer. Of the KAN's printed number"
        f" {100 * kan.dead / (kan.parameters + kan.dead):.0f} % are MLPs that are never called",
        figures=("table1",),
        case=_case(kan),
    )


def _accuracy(table1: Table1Record, claim: TableClaim, fair: list[TableClaim]) -> Finding:
    kan, mlp = claim.row, claim.mlp
    text = '"MLPs outperform KANs" (Table 1)'
    if claim.name == MARGIN:
        low, high = MARGINS[kan.variant]
        text = f'"MLPs outperform" {NAMES[kan.variant]} "by {low:g} - {high:g}%" (section 4.2)'
    printed = f"top-1 {mlp.printed_top1:.2f} % against {kan.printed_top1:.2f} %: {claim.printed:.2f} points"
    if not claim.holds:
        printed += ", which is not what the text says"
    verdict, measured, evidence = UNDECIDED, "-", claim.outcome.reason
    figures: tuple[str, ...] = ("table1",)
    if claim.group is not None and claim.reference is not None:
        verdict, evidence = judged(claim, table1.deviations)
        measured = (
            f"top-1, mean +- standard error over seeds: MLP {top1(claim.reference)}, KAN {top1(claim.group)};"
            f" MLP - KAN {effect_text(claim.outcome)} points"
        )
        figures += (f"curves{table1.suffix(claim.group.task)}",)
    if fair and claim.name == BETTER:
        evidence += f". On equal terms, MLP minus KAN: {'; '.join(map(_equal_terms, fair))}"
    return Finding(ITEM, text, printed, measured, verdict, evidence, figures, _case(kan))


def _equal_terms(claim: TableClaim) -> str:
    """``equal params: 1.4 (0.9 to 2.1) points, p = 0.03 after Holm's correction``, from one of the fair protocol."""
    p_value = format_number(claim.outcome.adjusted_p)
    return f"equal {claim.row.match}: {effect_text(claim.outcome)} points, p = {p_value} after Holm's correction"


def _case(row: Row) -> str:
    return f"DeiT-{row.size.capitalize()}, {row.label}"
