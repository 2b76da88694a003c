"""What comparisons on equal terms say of what the paper, and the studies that it quotes, claim in general."""

from __future__ import annotations

from kansciml.experiments.fair.record import Comparison, FairRecord, StepTimes
from kansciml.reporting.claims import RATIO, Claim, effect_text
from kansciml.reporting.groups import over
from kansciml.reporting.judging import judged, shortfalls
from kansciml.runs.findings import NOT_REPRODUCED, REPRODUCED, UNDECIDED, Finding
from kansciml.runs.records import Record
from kansciml.runs.tables import format_number

PICTURES = ("fair",)
CLAIMS = {
    "flops": '"When FLOPs were controlled, MLPs generally outperformed KANs across tasks" (section 1, of Yu, Yu and'
    " Wang 2024)",
    "params": '"the parameter efficiency of KANs is limited to toy problems, with MLPs outperforming KANs on more'
    ' complex tasks" (section 1): at equal parameters',
}
"""Protocol -> what MLPs are said to be better in."""
COSTLY = (
    '"KANs exhibit significantly higher computational demands compared to MLPs [...] with comparable network width"'
    " (section 3): time of a training step"
)
MUCH_LONGER = 1.5
"""Times as long that count as significantly higher."""
AT_LEAST = {"images": {"images_epochs": 100}, "darcy": {"darcy_epochs": 500}}
SAME = {"images": {"images_dataset": "cifar10", "images_subset": None}}
"""What a task has to have to count as a complex one, by its kind; the paper's neural ODEs have no sizes."""


def findings(record: Record) -> list[Finding]:
    """Who is better at equal FLOPs and equal parameters, per task, and how much longer a KAN's step takes."""
    fair = FairRecord.read(record)
    found = [_better(record, fair, row) for protocol in CLAIMS for row in fair.rows if row.protocol == protocol]
    return found + [_longer(fair, times) for times in fair.times]


def _better(record: Record, fair: FairRecord, row: Comparison) -> Finding:
    short = shortfalls(record.config, AT_LEAST.get(row.kind, {}), SAME.get(row.kind, {}))
    claim = Claim(row.protocol, "", row.kan, row.mlp, row.outcome)
    verdict, evidence = judged(claim, short, "MLP better", opposite=True)
    return Finding(
        item="Section 1",
        claim=CLAIMS[row.protocol],
        printed="no number",
        measured=f"{row.metric_title}, {RATIO} {effect_text(row.outcome)}",
        verdict=verdict,
        evidence=f"{evidence}. {row.kan.named} against {row.mlp.named}",
        figures=PICTURES,
        case=fair.title(row.task, row.layer),
    )


def _longer(fair: FairRecord, times: StepTimes) -> Finding:
    row = fair.of(times.task, times.layer, "width")
    more = f"; parameters {format_number(over(row.kan.parameters, row.mlp.parameters))} times" if row else ""
    more += f", FLOPs {format_number(over(row.kan.flops, row.mlp.flops))} times" if row and row.kan.flops else ""
    return Finding(
        item="Section 3",
        claim=COSTLY,
        printed="no number",
        measured=f"{RATIO} {format_number(times.factor)}{more}",
        verdict=UNDECIDED if not times.pairs else REPRODUCED if times.factor >= MUCH_LONGER else NOT_REPRODUCED,
        evidence=f"medians of {times.rounds} rounds of {times.pairs} pairs, {times.clock} clock, one thread;"
        f" {MUCH_LONGER:g} times as long is taken for significantly higher",
        figures=PICTURES,
        case=fair.title(times.task, times.layer),
    )
