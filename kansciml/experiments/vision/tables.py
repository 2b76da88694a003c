"""Tables of trained image classifiers: what they reach, what they cost, and a verdict on the paper's claim."""

from __future__ import annotations

from kansciml.analysis.comparison import compare_losses
from kansciml.experiments.minibatch.record import cost_note
from kansciml.experiments.vision.record import REFERENCE, VisionGroup, VisionRecord
from kansciml.reporting.claims import VERDICT_NOTE, Claim, claim_table
from kansciml.reporting.groups import diverged_notes, over
from kansciml.runs.tables import Table


def accuracy_table(vision: VisionRecord) -> Table:
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


def cost_table(vision: VisionRecord) -> Table:
    """What each kind of model costs, and in units of the MLP."""
    rows = []
    for group in vision.groups:
        base, own = vision.of(group.task).get(REFERENCE), group.first
        step, flops = group.median(lambda row: row.seconds_per_step), own.mixing_flops
        row = [
            vision.title(group.task),
            group.label,
            own.parameters,
            over(own.parameters, base.first.parameters if base else None),
        ]
        row += [
            own.printed,
            None if flops is None else flops / 1e6,
            over(flops, base.first.mixing_flops if base else None),
        ]
        row += [group.median(lambda row: row.images_per_s), 1e3 * step]
        row += [over(step, base.median(lambda row: row.seconds_per_step) if base else None)]
        rows.append([*row, group.median(lambda row: row.peak_memory_mb), group.median(lambda row: row.wall_s)])
    columns = ["Task", "Model", "Parameters", "over MLP", "printed", "MFLOPs", "FLOPs over MLP", "Images/s", "ms/step"]
    notes = [
        "Printed: by the paper, for this very configuration. MFLOPs: forward, per image, of the MLPs or of the KANs in"
        " their place alone. Images/s and time of a step (forward, backward, AdamW): median over epochs but the first."
        " Peak memory: of a GPU, by tensors; on a CPU of the process so far, with all runs before. Wall: with"
        " evaluations.",
        cost_note(vision.groups[0].first, vision.record),
    ]
    return Table("Cost of training", [*columns, "time over MLP", "Peak (MB)", "Wall (s)"], rows, notes)


def claims(vision: VisionRecord) -> list[Claim[VisionGroup]]:
    """That the MLP ends at a lower test error than each of the KANs of its task."""
    found = []
    for task in vision.tasks:
        groups = vision.of(task)
        reference = groups.pop(REFERENCE, None)
        if reference is None:
            continue
        for group in groups.values():
            gap = group.median(lambda row: row.percent) - reference.median(lambda row: row.percent)
            outcome = compare_losses(reference.errors, group.errors)
            found.append(Claim("accuracy", "lower final accuracy (%)", group, reference, outcome, (gap,)))
    return found


def verdict_table(vision: VisionRecord) -> Table | None:
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
