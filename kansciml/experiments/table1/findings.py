"""Findings of Table 1: accuracies, parameters, and parameters that no forward pass uses."""

from __future__ import annotations

from kansciml.experiments.table1.claims import BETTER, FEWER, MARGIN, MARGINS, TableClaim, claims
from kansciml.experiments.table1.record import Row, Table1Record, TrainedGroup, rows_of
from kansciml.reporting.groups import plus_minus
from kansciml.reporting.judging import VERDICT, by_seeds
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

ITEM = "Table 1"
PRINTED_DIGITS = 0.1e6
"""Unit of the last printed digit of a number of parameters: the paper rounds some and cuts others off."""
NAMES = {"kan-spline": "B-Spline KANs", "kan-rswaf": "RSWAF KANs"}


def findings(record: Record) -> list[Finding]:
    """What a run says about the accuracies of Table 1, and what counting says about its numbers of parameters.

    Raises:
        KansciError: the record is no finished run of table1.
    """
    found = [_count(row) for row in rows_of(record) if row.published["protocol"] == "paper"]
    every = claims(record)
    for claim in every:
        if claim.row.published["protocol"] != "paper":
            continue
        fair = [one for one in every if one.name == BETTER and _same_kan(one.row, claim.row)]
        found.append(_fewer(claim) if claim.name == FEWER else _accuracy(record, claim, fair))
    return found


def _count(row: Row) -> Finding:
    own = row.published
    built, used, printed = own["parameters"] + own["dead"], own["parameters"], own["printed_parameters"]
    met, meets_dead = (abs(number - printed) < PRINTED_DIGITS for number in (used, built))
    if own["dead"]:
        evidence = (
            f"the source builds MLPs of {own['dead']:,} parameters beside the KANs and never calls them: with them it"
            f" has {built:,}, {'the printed number' if meets_dead else 'not the printed number either'}"
        )
    else:
        evidence = "every parameter is used by the forward pass"
    return Finding(
        item=ITEM,
        claim='"Number of Params"',
        case=_where(row),
        printed=f"{printed / 1e6:.1f}M",
        measured=f"{used:,} in use" + (f", and {own['dead']:,} that are never used" if own["dead"] else ""),
        verdict=REPRODUCED if met else NOT_REPRODUCED,
        evidence=f"counted exactly at the printed size; {evidence}",
        figures=("table1",),
    )


def _fewer(claim: TableClaim) -> Finding:
    own, mlp = claim.row.published, claim.mlp.published
    return Finding(
        item=ITEM,
        claim='MLPs outperform KANs "while requiring significantly less parameters" (Table 1)',
        case=_where(claim.row),
        printed=f"{own['printed_parameters'] / 1e6:.1f}M against {mlp['printed_parameters'] / 1e6:.1f}M,"
        f" {claim.printed:.2f} x",
        measured=f"in use {own['parameters']:,} against {mlp['parameters']:,}, {claim.found[0]}",
        verdict=VERDICT[claim.outcome.verdict],
        evidence=f"{claim.outcome.reason}; fewer at all is taken for significantly fewer. Of the KAN's printed number"
        f" {100 * own['dead'] / (own['parameters'] + own['dead']):.0f} % are MLPs that are never called",
        figures=("table1",),
    )


def _accuracy(record: Record, claim: TableClaim, fair: list[TableClaim]) -> Finding:
    own, mlp = claim.row.published, claim.mlp.published
    low, high = MARGINS[own["variant"]]
    text = {
        BETTER: '"MLPs outperform KANs" (Table 1)',
        MARGIN: f'"MLPs outperform" {NAMES[own["variant"]]} "by {low:g} - {high:g}%" (section 4.2)',
    }[claim.name]
    printed = f"top-1 {mlp['printed_top1']:.2f} % against {own['printed_top1']:.2f} %: {claim.printed:.2f} points"
    if not claim.holds:
        printed += ", which is not what the text says"
    figures = ("table1",)
    if claim.group is None or claim.reference is None:
        verdict, measured, evidence = UNDECIDED, "-", claim.outcome.reason
    else:
        verdict, evidence = by_seeds(claim.outcome, record.result.get("deviations") or [])
        measured = (
            f"top-1, mean +- standard error over seeds: MLP {_top1(claim.reference)}, KAN {_top1(claim.group)};"
            f" difference {claim.found[0] or '-'} points"
        )
        tasks = Table1Record.read(record).tasks
        task = claim.group.task
        figures += (f"curves_{task}" if len(tasks) > 1 else "curves",)
    equal = [_equal_terms(one) for one in fair if one.tested]
    if equal and claim.name == BETTER:
        evidence += f". On equal terms, MLP minus KAN: {'; '.join(equal)}"
    return Finding(ITEM, text, printed, measured, verdict, evidence, figures, _where(claim.row))


def _equal_terms(claim: TableClaim) -> str:
    """``equal params: +1.4 +- 0.5 points, p = 0.03``, from a claim of the fair protocol."""
    by = claim.row.published["group"].rpartition("-")[2]
    return f"equal {by}: {claim.found[0] or '-'} points, p = {format_number(claim.outcome.p_value)}"


def _same_kan(one: Row, other: Row) -> bool:
    """Whether `one` is of the fair protocol and of the size and kind of KAN of `other`."""
    same = all(one.published[name] == other.published[name] for name in ("size", "variant"))
    return same and one.published["protocol"] == "fair"


def _where(row: Row) -> str:
    return f"DeiT-{row.published['size'].capitalize()}, {row.published['label']}"


def _top1(group: TrainedGroup) -> str:
    return f"{plus_minus(group.values(lambda row: row.percent)) or '-'} %"
