"""Tables of trained neural operators: what they reach, at which resolutions, what they cost, and the paper's claims."""

from __future__ import annotations

from dataclasses import dataclass

from kansciml.analysis.comparison import ALPHA, Comparison, compare_losses
from kansciml.experiments.fno.record import RESIDUALS, FnoRecord, OperatorGroup
from kansciml.runs.tables import Table


@dataclass(frozen=True)
class FnoClaim:
    """Which of two kinds of network ends at the lower test error, and what the seeds say.

    Args:
        text: the claim in words. group: the network in question. other: the one it is compared with.
        helps: about residual connections, which both kinds of network are compared with and without.
        outcome: of the comparison of their seeds: supported if the claim is.
    """

    text: str
    group: OperatorGroup
    other: OperatorGroup
    helps: bool
    outcome: Comparison

    @property
    def ratio(self) -> float | None:
        """Median error of `group` over that of `other`."""
        return _over(self.group.median("relative_l2"), self.other.median("relative_l2"))


def error_table(fno: FnoRecord) -> Table:
    """What each kind of network reaches on the test samples."""
    rows, diverged = [], []
    for group in fno.groups:
        row = [fno.title(group.task), group.label, group.value("parameters"), group.value("ends_parameters")]
        row += [len(group.rows), group.median("relative_l2"), *group.spread("relative_l2")]
        row += [group.median("best_relative_l2"), group.median("train_loss"), int(group.value("epochs"))]
        rows.append(row)
        if group.n_diverged:
            diverged.append(f"{group.task}, {group.label}: {group.n_diverged} of {len(group.rows)} seeds diverged.")
    columns = [
        "Task", "Model", "Parameters", "of lift and projection", "Seeds", "Test error", "min", "max", "best epoch",
        "Training error", "Epochs",
    ]  # fmt: skip
    data = ", ".join(f"{one['n_train']} / {one['n_test']}" for one in fno.record.result["data"].values())
    notes = [
        "Error: relative L2, mean over samples, in the units of the solutions; median over the seeds that did not"
        f" diverge, of the weights of the last step. Training / test samples: {data}. Best epoch: chosen by the test"
        " samples, so too good. Training error: mean over the steps of the last epoch."
    ]
    return Table("Error", columns, rows, notes + diverged)


def resolution_table(fno: FnoRecord) -> Table | None:
    """Errors at other resolutions than trained at; None where there is but one."""
    sizes = sorted({int(size) for group in fno.groups for row in group.rows for size in row["relative_l2_at"]})
    if len(sizes) < 2:
        return None
    rows = []
    for group in fno.groups:
        found = [[row["relative_l2_at"].get(str(size)) for row in group.rows] for size in sizes]
        rows.append([fno.title(group.task), group.label, *(_median(values) for values in found)])
    notes = [
        "Test error, median over seeds, of networks that were trained at the resolution of their task alone; means and"
        " deviations of the normalisation are interpolated to the others. The same samples at every resolution."
    ]
    return Table("Resolution", ["Task", "Model", *(f"{size} x {size}" for size in sizes)], rows, notes)


def cost_table(fno: FnoRecord) -> Table:
    """What each kind of network costs, and in units of the MLPs with the same connections."""
    rows = []
    for group in fno.groups:
        base = fno.find(group.task, "mlp", group.residual)
        step = group.median("seconds_per_step")
        row = [fno.title(group.task), group.label, group.value("parameters")]
        row += [_over(group.value("parameters"), base and base.value("parameters")), group.median("samples_per_s")]
        row += [1e3 * step, _over(step, base and base.median("seconds_per_step"))]
        rows.append([*row, group.median("peak_memory_mb"), group.median("wall_s")])
    columns = ["Task", "Model", "Parameters", "over MLP", "Samples/s", "ms/step", "time over MLP", "Peak (MB)",
               "Wall (s)"]  # fmt: skip
    shared, machine = fno.groups[0], fno.record.machine
    notes = [
        "Time of a step (forward, backward, AdamW): median over epochs but the first. Peak memory: of a GPU, by"
        " tensors; on a CPU of the process so far, with all runs before. Wall: with evaluations.",
        f"{shared.value('processes')} process(es), batches of {shared.value('batch_size')}, precision"
        f" {shared.value('precision')}, {machine.get('device', 'unknown device')}, {machine.get('threads')} threads.",
    ]
    return Table("Cost of training", columns, rows, notes)


def claims(fno: FnoRecord) -> list[FnoClaim]:
    """The paper's two claims on KANs against MLPs, and whether residual connections help, for every task."""
    found = []
    for task in fno.tasks:
        for group in fno.of(task):
            base = fno.find(task, "mlp", group.residual)
            if base is None or group.variant == "mlp":
                continue
            lower, upper = (group, base) if group.residual else (base, group)
            text = f"{'KAN' if group.residual else 'MLP'} lower, {RESIDUALS[group.residual]}"
            found.append(FnoClaim(text, group, base, False, compare_losses(lower.errors, upper.errors)))
        for group in fno.of(task, residual=True):
            plain = fno.find(task, group.variant, residual=False)
            if plain is not None:
                outcome = compare_losses(group.errors, plain.errors)
                found.append(FnoClaim("residual lower than without", group, plain, True, outcome))
    return found


def claimed(claim: FnoClaim) -> bool:
    """Whether the paper claims it: of residual connections it says so for KANs alone (caption of Figure 5)."""
    return not claim.helps or claim.group.variant != "mlp"


def claims_table(fno: FnoRecord) -> Table | None:
    """`claims` as a table; None where no two groups are compared."""
    rows = [
        [fno.title(claim.group.task), claim.text, claim.group.label, "yes" if claimed(claim) else "-", *_judged(claim)]
        for claim in claims(fno)
    ]
    if not rows:
        return None
    columns = ["Task", "Claim", "Model", "Paper", "Verdict", "Error over other", "p", "Cliff's delta", "Seeds", "Why"]
    notes = [
        f"Verdict: exact two-sided Mann-Whitney U test over seeds at level {ALPHA:g}; a diverged seed ranks worst; to"
        " decide takes at least 4 seeds a side (or 3 against 5). Cliff's delta: -1 if every run said to be lower is."
        " Error over other: median of this model over that of the MLPs, or of the same model without residual."
        " Paper: Pal & Das (2024, Figure 5) claim it; it says nothing of the rows with a dash."
    ]
    return Table("Claims: which ends at the lower test error", columns, rows, notes)


def all_tables(fno: FnoRecord) -> list[Table]:
    """All of them, but those that have nothing to say."""
    found = [error_table(fno), resolution_table(fno), cost_table(fno), claims_table(fno)]
    return [table for table in found if table is not None]


def _judged(claim: FnoClaim) -> list[object]:
    found = claim.outcome
    return [found.verdict, claim.ratio, found.p_value, found.effect, f"{found.n_a} / {found.n_b}", found.reason]


def _median(values: list[float | None]) -> float | None:
    import numpy as np

    found = [value for value in values if value is not None]
    return float(np.median(found)) if found else None


def _over(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None
