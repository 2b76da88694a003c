"""Tables of trained image classifiers: what they reach, what they cost, and a verdict on the paper's claim."""

from __future__ import annotations

from kansciml.analysis.comparison import compare_losses
from kansciml.experiments.minibatch import record as minibatch
from kansciml.experiments.vision.record import ImagesRecord, V
from kansciml.reporting.claims import VERDICT_NOTE, Claim, claim_table
from kansciml.reporting.groups import Group, diverged_notes, over
from kansciml.runs.tables import Table


def accuracy_table(vision: ImagesRecord[V]) -> Table:
    """What each kind of model reaches on the test images."""
    rows = []
    for group in vision.groups:
        row = [vision.title(group.task), group.label, group.first.parameters, len(group.rows)]
        row += [group.median(lambda row: row.percent), *group.spread(lambda row: row.percent)]
        row += [group.median(lambda row: row.percent5), 100 * group.median(lambda row: row.best_top1)]
        row += [group.median(lambda row: row.loss), group.median(lambda row: row.train_loss), group.first.epochs]
        rows.append(row)
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "min", "max", "Top-5 (%)", "best epoch (%)"]
    notes = [
        "Test images; median over the seeds that did not diverge. Scores are of the weights of the last step (their"
        " average, where there is one), not of the best epoch. Best epoch: chosen by the test images, so too good."
        " Train loss: mean over the last epoch, with augmentation and label smoothing."
    ]
    columns += ["Test loss", "Train loss", "Epochs"]
    return Table("Accuracy", columns, rows, notes + diverged_notes(vision.groups))


def cost_table(vision: ImagesRecord[V]) -> Table:
    """What each kind of model costs, and in units of the MLP."""

    def further(own: V, base: V | None) -> tuple[object, ...]:
        flops = own.mixing_flops
        return own.printed, None if flops is None else flops / 1e6, over(flops, base.mixing_flops if base else None)

    note = (
        "Printed: by the paper, for this very configuration. MFLOPs: forward, per image, of the MLPs or of the KANs in"
        " their place alone. "
    )
    return minibatch.cost_table(vision, "Images", ("printed", "MFLOPs", "FLOPs over MLP"), further, note)


def claims(vision: ImagesRecord[V]) -> list[Claim[Group[V]]]:
    """That the MLP ends at a lower test error than each of the KANs of its task."""
    found = []
    for group, base in vision.pairs():
        gap = group.median(lambda row: row.percent) - base.median(lambda row: row.percent)
        outcome = compare_losses(base.errors, group.errors)
        found.append(Claim("accuracy", "lower final accuracy (%)", group, base, outcome, (gap,)))
    return found


def verdict_table(vision: ImagesRecord[V]) -> Table | None:
    """Does the MLP end at a lower test error than the KAN? None where there are not both."""
    found = claims(vision)
    if not found:
        return None
    return claim_table(
        "Claim: the MLP ends at a lower test error than the KAN",
        ["Task", "Model", "Paper"],
        ["KAN - MLP (points)"],
        [([vision.title(claim.group.task), claim.group.label, claim.paper], claim) for claim in found],
        [
            f"{VERDICT_NOTE} Cliff's delta: -1 if every MLP is better than every KAN, 1 if none is. Paper: Pal & Das"
            " (2024, section 4.2) claim it of all their vision tasks."
        ],
    )
