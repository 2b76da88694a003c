"""The paper's claims on Table 1, by its own numbers, and by the seeds of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kansciml.analysis.comparison import ALPHA, REFUTED, SUPPORTED, UNDECIDED, Comparison, compare_losses
from kansciml.experiments.table1.record import PAPER, Row, Table1Record, Trainings
from kansciml.reporting.claims import Claim, claim_table, counted
from kansciml.reporting.groups import mean_error
from kansciml.runs.tables import Table, format_number

MARGINS = {"kan-spline": (10.0, 12.0), "kan-rswaf": (8.0, 10.0)}
"""Points by which MLPs are said to be better than each kind of KAN (Pal & Das 2024, section 4.2)."""
BETTER, MARGIN, FEWER = "better", "margin", "parameters"


@dataclass(frozen=True, kw_only=True)
class TableClaim(Claim[Trainings | None]):
    """A claim of the paper on one row of Table 1, by its own numbers, and by the seeds of a run or a count.

    `name` is `BETTER`, `MARGIN` or `FEWER`; `group` and `reference` are None where they were not trained, and of a
    count; `found` is what is measured or counted, with its error.

    Args:
        row: that of the KAN. mlp: that of the MLP printed beside it.
        printed: what the paper's own numbers give: points, or times as many parameters. holds: whether they bear it
            out. Of the fair protocol nothing is printed; then these are of the row whose KAN it changes.
    """

    row: Row
    mlp: Row
    printed: float
    holds: bool


def margin(better: Sequence[float], worse: Sequence[float], low: float, high: float) -> Comparison:
    """The claim that `worse` is larger than `better` by `low` to `high`, all errors of seeds in one unit.

    Both ends are claims of their own: better + low lies below worse, and worse below better + high. Refuted if one of
    them is, supported if both are, by `compare_losses`; undecided otherwise.
    """
    least = compare_losses([error + low for error in better], worse)
    most = compare_losses(worse, [error + high for error in better])
    ends = {f"less than {100 * low:g} points: ": least, f"more than {100 * high:g} points: ": most}
    text, end = next(((text, end) for text, end in ends.items() if end.verdict == REFUTED), ("", None))
    if end is None:
        both = least.verdict == most.verdict == SUPPORTED
        worst = max(least, most, key=lambda one: one.p_value)
        end = worst if both else least if least.verdict == UNDECIDED else most
    return replace(end, median_log10_ratio=math.nan, effect=math.nan, reason=text + end.reason)


def claims(table1: Table1Record) -> list[TableClaim]:
    """The paper's claims on Table 1, for every KAN of it and of the fair protocol."""
    printed = {(row.size, row.variant): row.printed_top1 for row in table1.published if row.protocol == PAPER}
    found = []
    for row in table1.published:
        kan, mlp = row.trained, table1.mlps[row.size]
        if row.variant == "mlp":
            continue
        paper = row.protocol == PAPER
        reference = mlp.trained if paper else table1.scratch.get(row.size, mlp.trained)
        gap = mlp.printed_top1 - printed[row.size, row.variant]
        low, high = MARGINS[row.variant]
        outcomes, measured = [counted("", "not trained in this run")] * 2, None
        if kan is not None and reference is not None:
            sides = reference.errors, kan.errors
            outcomes = [compare_losses(*sides), margin(*sides, low / 100, high / 100)]
            measured = _gap(reference, kan)
        better = TableClaim(
            BETTER, "MLP is better", kan, reference, outcomes[0], (measured,),
            row=row, mlp=mlp, printed=gap, holds=gap > 0,
        )  # fmt: skip
        found.append(better)
        text, holds = f"by {low:g} to {high:g} points", low <= gap <= high
        found.append(replace(better, name=MARGIN, text=text, outcome=outcomes[1], holds=holds))
        if paper:
            ratio = row.parameters / mlp.parameters
            as_printed = row.printed_parameters / mlp.printed_parameters
            fewer = counted(SUPPORTED if ratio > 1 else REFUTED, "counted: those in use, at the printed sizes")
            found.append(
                TableClaim(
                    FEWER, "MLP has fewer parameters", None, None, fewer, (f"{ratio:.3f} x",),
                    row=row, mlp=mlp, printed=as_printed, holds=as_printed > 1,
                )
            )  # fmt: skip
    return found


def claims_table(table1: Table1Record) -> Table:
    """`claims` as a table: those of the fair protocol where they were trained."""
    rows = []
    for claim in claims(table1):
        paper = claim.row.protocol == PAPER
        unit = " x" if claim.name == FEWER else ""
        word = f"{'yes' if claim.holds else 'no'} ({claim.printed:.2f}{unit})" if paper else None
        if paper or claim.tested:
            rows.append(([*claim.row.key, claim.text, word], claim))
    return claim_table(
        "Claims on Table 1",
        ["Protocol", "Size", "Model", "Claim", "Printed numbers"],
        ["Found"],
        rows,
        [
            "Found: top-1 of MLP minus KAN in points +- standard error, or the KAN's parameters over the MLP's."
            f" Verdict: exact two-sided Mann-Whitney U test over seeds at level {ALPHA:g}, a diverged seed ranks worst;"
            " a margin is two such claims, one for each end. To decide takes at least 4 seeds a side.",
            *table1.caveat,
        ],
        effect=False,
    )


def _gap(better: Trainings, worse: Trainings) -> str | None:
    """Difference of the means in points, +- its standard error."""
    (a, error_a), (b, error_b) = (mean_error(one.values(lambda row: row.percent)) for one in (better, worse))
    if math.isnan(a - b):
        return None
    error = math.hypot(error_a, error_b)
    return f"{a - b:+.2f}" + ("" if math.isnan(error) else f" +- {format_number(error, 2)}")
