"""From trainings to comparisons: one row per task, KAN layer, protocol and metric, with paired statistics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kansciml.analysis.paired import compare_pairs, holm
from kansciml.experiments.fair.kinds import Kind, Metric, Pair
from kansciml.experiments.fair.record import Comparison, Side, Trained

NAMES = ("KAN", "MLP")


def rows(kind: Kind, task: str, compared: Sequence[Pair], trained: Sequence[Trained], alpha: float) -> list[Comparison]:
    """The comparisons of a task, before `corrected`."""
    groups: dict[str, dict[int, Trained]] = {}
    for run in trained:
        if run.task == task:
            groups.setdefault(run.group, {})[run.seed] = run
    return [
        _row(kind, task, pair, metric, groups[pair.kan], groups[pair.mlp], alpha)
        for pair in compared
        for metric in kind.metrics(task)
    ]


def _row(
    kind: Kind,
    task: str,
    pair: Pair,
    metric: Metric,
    kans: Mapping[int, Trained],
    mlps: Mapping[int, Trained],
    alpha: float,
) -> Comparison:
    seeds = tuple(sorted(set(kans) & set(mlps)))
    kan_losses, mlp_losses = (tuple(group[seed].losses[metric.name] for seed in seeds) for group in (kans, mlps))
    return Comparison(
        **vars(compare_pairs(kan_losses, mlp_losses, NAMES, alpha)),
        task=task,
        title=kind.title(task),
        kind=kind.name,
        layer=pair.layer,
        protocol=pair.protocol,
        adapted=pair.adapted,
        metric=metric.name,
        metric_title=metric.title,
        primary=metric.primary,
        kan=_side([kans[seed] for seed in seeds]),
        mlp=_side([mlps[seed] for seed in seeds]),
        seeds=seeds,
        kan_losses=kan_losses,
        mlp_losses=mlp_losses,
    )


def _side(runs: Sequence[Trained]) -> Side:
    first = runs[0]
    return Side(
        group=first.group,
        label=first.label,
        parameters=first.parameters,
        flops=first.flops,
        steps=int(statistics.median(run.steps for run in runs)),
        seconds=statistics.median(run.seconds for run in runs),
        n_diverged=sum(run.status != "finished" for run in runs),
    )


def corrected(found: Sequence[Comparison], alpha: float) -> list[Comparison]:
    """The rows with Holm's adjusted p-values, and whether their verdicts still stand then.

    The rows of primary metrics are one family, those of the others a second one: the first is the table that answers
    the question, and what is shown beside it should not weaken it.
    """
    families = [[row for row in found if row.primary is primary] for primary in (True, False)]
    adjusted = {id(row): p for rows in families for row, p in zip(rows, holm([row.p_value for row in rows]))}
    return [
        replace(row, adjusted_p=adjusted[id(row)], confirmed=row.decided and adjusted[id(row)] <= alpha)
        for row in found
    ]
