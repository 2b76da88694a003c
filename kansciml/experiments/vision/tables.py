"""Tables of trained image classifiers: what they reach, what they cost, and a verdict on the paper's claim."""

from __future__ import annotations

from kansciml.analysis.comparison import ALPHA, compare_losses
from kansciml.experiments.vision.record import REFERENCE, VisionRecord
from kansciml.runs.tables import Table

PRECISION_NOTE = (
    "Scores are of the weights of the last step (their average, where there is one), not of the best epoch."
)


def accuracy_table(vision: VisionRecord) -> Table:
    """What each kind of model reaches on the test images."""
    rows, diverged = [], []
    for group in vision.groups:
        low, high = (100 * value for value in group.spread("top1"))
        row = [vision.title(group.task), group.label, group.value("parameters"), len(group.rows)]
        row += [100 * group.median("top1"), low, high, 100 * group.median("top5"), 100 * group.median("best_top1")]
        rows.append([*row, group.median("loss"), group.median("train_loss"), int(group.value("epochs"))])
        if group.n_diverged:
            diverged.append(f"{group.task}, {group.label}: {group.n_diverged} of {len(group.rows)} seeds diverged.")
    columns = ["Task", "Model", "Parameters", "Seeds", "Top-1 (%)", "min", "max", "Top-5 (%)", "best epoch (%)"]
    notes = [
        f"Test images; median over the seeds that did not diverge. {PRECISION_NOTE} Best epoch: chosen by the test"
        " images, so too good. Train loss: mean over the last epoch, with augmentation and label smoothing."
    ]
    return Table("Accuracy", [*columns, "Test loss", "Train loss", "Epochs"], rows, notes + diverged)


def cost_table(vision: VisionRecord) -> Table:
    """What each kind of model costs, and in units of the MLP."""
    rows = []
    for group in vision.groups:
        reference = vision.of(group.task).get(REFERENCE)
        step, flops = group.median("seconds_per_step"), group.value("mixing_flops")
        row = [vision.title(group.task), group.label, group.value("parameters")]
        row += [_over(group.value("parameters"), reference and reference.value("parameters"))]
        row += [group.value("printed"), None if flops is None else flops / 1e6]
        row += [_over(flops, reference and reference.value("mixing_flops")), group.median("images_per_s"), 1e3 * step]
        row += [_over(step, reference and reference.median("seconds_per_step")), group.median("peak_memory_mb")]
        rows.append([*row, group.median("wall_s")])
    columns = ["Task", "Model", "Parameters", "over MLP", "printed", "MFLOPs", "FLOPs over MLP", "Images/s", "ms/step"]
    shared = next(iter(vision.groups))
    machine = vision.record.machine
    notes = [
        "Printed: by the paper, for this very configuration. MFLOPs: forward, per image, of the MLPs or of the KANs in"
        " their place alone. Images/s and time of a step (forward, backward, AdamW): median over epochs but the first."
        " Peak memory: of a GPU, by tensors; on a CPU of the process so far, with all runs before. Wall: with"
        " evaluations.",
        f"{shared.value('processes')} process(es), batches of {shared.value('batch_size')}, precision"
        f" {shared.value('precision')}, {machine.get('device', 'unknown device')}, {machine.get('threads')} threads.",
    ]
    return Table("Cost of training", [*columns, "time over MLP", "Peak (MB)", "Wall (s)"], rows, notes)


def verdict_table(vision: VisionRecord) -> Table | None:
    """Does the MLP end at a lower test error than the KAN? None where there are not both."""
    rows = []
    for task in vision.tasks:
        groups = vision.of(task)
        reference = groups.get(REFERENCE)
        for group in groups.values():
            if reference is None or group is reference:
                continue
            claim = compare_losses(reference.errors, group.errors)
            gap = 100 * (group.median("top1") - reference.median("top1"))
            rows.append([vision.title(task), group.label, "yes", claim.verdict, gap, claim.p_value, claim.effect,
                         f"{claim.n_a} / {claim.n_b}", claim.reason])  # fmt: skip
    if not rows:
        return None
    columns = ["Task", "Model", "Paper", "Verdict", "KAN - MLP (points)", "p", "Cliff's delta", "Seeds", "Why"]
    notes = [
        f"Verdict: exact two-sided Mann-Whitney U test over seeds at level {ALPHA:g}; a diverged seed ranks worst; to"
        " decide takes at least 4 seeds a side (or 3 against 5). Cliff's delta: -1 if every MLP is better than every"
        " KAN, 1 if none is. Paper: Pal & Das (2024, section 4.2) claim it of all their vision tasks."
    ]
    return Table("Claim: the MLP ends at a lower test error than the KAN", columns, rows, notes)


def _over(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None
