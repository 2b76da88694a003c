"""Tables of trained neural operators: what they reach, at which resolutions, what they cost, and the paper's claims."""

from __future__ import annotations

import statistics

from kansciml.analysis.comparison import Comparison, compare_losses
from kansciml.experiments.fno.record import RESIDUALS, FnoRecord, OperatorGroup
from kansciml.experiments.minibatch.record import cost_table
from kansciml.reporting.claims import VERDICT_NOTE, Claim, claim_table
from kansciml.reporting.groups import diverged_notes, over
from kansciml.runs.tables import Table

LOWER, HELPS = "lower", "helps"
"""Names of claims: on KANs against MLPs, and on residual connections."""


def error_table(fno: FnoRecord) -> Table:
    """What each kind of network reaches on the test samples."""
    rows = []
    for group in fno.groups:
        row = [fno.title(group.task), group.label, group.first.parameters, group.first.ends_parameters, len(group.rows)]
        row += [group.median(lambda row: row.relative_l2), *group.spread(lambda row: row.relative_l2)]
        row += [group.median(lambda row: row.best_relative_l2), group.median(lambda row: row.train_loss)]
        rows.append([*row, group.first.epochs])
    columns = [
        "Task", "Model", "Parameters", "of lift and projection", "Seeds", "Test error", "min", "max", "best epoch",
        "Training error", "Epochs",
    ]  # fmt: skip
    data = ", ".join(f"{one.n_train} / {one.n_test}" for one in fno.data.values())
    notes = [
        "Error: relative L2, mean over samples, in the units of the solutions; median over the seeds that did not"
        f" diverge, of the weights of the last step. Training / test samples: {data}. Best epoch: chosen by the test"
        " samples, so too good. Training error: mean over the steps of the last epoch."
    ]
    return Table("Error", columns, rows, notes + diverged_notes(fno.groups))


def resolution_table(fno: FnoRecord) -> Table | None:
    """Errors at other resolutions than trained at; None where there is but one."""
    sizes = sorted({int(size) for group in fno.groups for row in group.rows for size in row.relative_l2_at})
    if len(sizes) < 2:
        return None
    rows = []
    for group in fno.groups:
        found = ([row.relative_l2_at.get(str(size)) for row in group.rows] for size in sizes)
        known = ([error for error in errors if error is not None] for errors in found)
        medians = [statistics.median(errors) if errors else None for errors in known]
        rows.append([fno.title(group.task), group.label, *medians])
    notes = [
        "Test error, median over seeds, of networks that were trained at the resolution of their task alone; means and"
        " deviations of the normalisation are interpolated to the others. The same samples at every resolution."
    ]
    return Table("Resolution", ["Task", "Model", *(f"{size} x {size}" for size in sizes)], rows, notes)


def claims(fno: FnoRecord) -> list[Claim[OperatorGroup]]:
    """The paper's two claims on KANs against MLPs, and whether residual connections help.

    Of residual connections the paper says so for KANs alone (caption of Figure 5).
    """
    found = []
    for group, base in fno.pairs():
        residual = group.first.residual
        text = f"{'KAN' if residual else 'MLP'} lower, {RESIDUALS[residual]}"
        lower, upper = (group, base) if residual else (base, group)
        found.append(_claim(LOWER, text, group, base, compare_losses(lower.errors, upper.errors)))
    for group in fno.groups:
        plain = fno.without_residual(group)
        if plain is not None:
            outcome = compare_losses(group.errors, plain.errors)
            found.append(_claim(HELPS, "residual lower than without", group, plain, outcome))
    return found


def _claim(
    name: str, text: str, group: OperatorGroup, other: OperatorGroup, outcome: Comparison
) -> Claim[OperatorGroup]:
    ratio = over(group.median(lambda row: row.relative_l2), other.median(lambda row: row.relative_l2))
    paper = None if name == HELPS and group.first.variant == "mlp" else "yes"
    return Claim(name, text, group, other, outcome, (ratio,), paper)


def claims_table(fno: FnoRecord) -> Table | None:
    """`claims` as a table; None where no two groups are compared."""
    found = claims(fno)
    if not found:
        return None
    return claim_table(
        "Claims: which ends at the lower test error",
        ["Task", "Claim", "Model", "Paper"],
        ["Error over other"],
        [([fno.title(one.group.task), one.text, one.group.label, one.paper], one) for one in found],
        [
            f"{VERDICT_NOTE} Cliff's delta: -1 if every run said to be lower is. Error over other: median of this model"
            " over that of the MLPs, or of the same model without residual. Paper: Pal & Das (2024, Figure 5) claim it;"
            " it says nothing of the rows with a dash."
        ],
    )


def all_tables(fno: FnoRecord) -> list[Table]:
    """All of them, but those that have nothing to say."""
    found = [error_table(fno), resolution_table(fno), cost_table(fno, "Samples"), claims_table(fno)]
    return [table for table in found if table is not None]
