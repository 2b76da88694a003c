"""The paper's claims on Table 1, by its own numbers, and by the seeds of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kansciml.analysis.paired import DIFFERENCE, REFUTED, SUPPORTED, compare
from kansciml.experiments.hessian.claims import SharpnessClaim, family, sharpness_claims
from kansciml.experiments.table1.record import PAPER, Row, Table1Record, Trainings
from kansciml.experiments.vision.report import points
from kansciml.reporting.claims import Claim, claim_table, counted, in_families
from kansciml.runs.tables import Table

MARGINS = {"kan-spline": (10.0, 12.0), "kan-rswaf": (8.0, 10.0)}
"""Points by which MLPs are said to be better than each kind of KAN (Pal & Das 2024, section 4.2)."""
BETTER, MARGIN, FEWER = "better", "margin", "parameters"


@dataclass(frozen=True, kw_only=True)
class TableClaim(Claim[Trainings | None]):
    """A claim of the paper on one row of Table 1, by its own numbers, and by the seeds of a run or a count.

    `name` is `BETTER`, `MARGIN` or `FEWER`; `group` and `reference` are None where they were not trained, and of a
    count; effects are points of top-1 accuracy, MLP - KAN; `found` is what is counted.

    Args:
        row: that of the KAN. mlp: that of the MLP printed beside it.
        printed: what the paper's own numbers give: points, or times as many parameters. holds: whether they bear it
            out. Of the fair protocol nothing is printed; then these are of the row whose KAN it changes.
    """

    row: Row
    mlp: Row
    printed: float
    holds: bool


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
        outcomes = [counted("", "not trained in this run")] * 2
        if kan is not None and reference is not None:
            sides = reference.by_seed(points), kan.by_seed(points)
            outcomes = [compare(*sides, above=0, scale=DIFFERENCE, text="MLP better")]
            outcomes.append(compare(*sides, above=low, below=high, scale=DIFFERENCE, text="by so much"))
        better = TableClaim(
            BETTER, "MLP is better", kan, reference, outcomes[0], (None,),
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
    return in_families(found)


def flatness_claims(table1: Table1Record) -> list[SharpnessClaim[Trainings]]:
    """That KANs end in sharper minima than the MLP of their size, which the paper denies; none if not measured."""
    found: list[SharpnessClaim[Trainings]] = []
    for row in table1.published if table1.hessian else ():
        mlp = table1.mlps[row.size].trained
        if row.trained is not None and mlp is not None and row.protocol == PAPER and table1.hessian:
            found += [replace(one, paper="no") for one in sharpness_claims(table1.hessian, row.trained, mlp)]
    return in_families(found, family)


def flatness_table(table1: Table1Record) -> Table | None:
    """`flatness_claims` as a table."""
    rows = [([one.group.first.size, one.group.label, one.text, one.paper], one) for one in flatness_claims(table1)]
    if not rows:
        return None
    columns = ["Size", "Model", "Claim: than the MLP", "Paper"]
    notes = ["All are one family. Paper: section 4.2 says that sharper minima do not occur for models like DeiT."]
    return claim_table("Claims: sharper minima", columns, "KAN - MLP", rows, notes, ["MLP", "KAN "])


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
        "MLP - KAN (points)",
        rows,
        [
            "Counted: the KAN's parameters over the MLP's. A margin has two ends, and both must be rejected.",
            *table1.caveat,
        ],
        ["Counted"],
    )
