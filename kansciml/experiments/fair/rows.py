"""From trainings to comparisons: one row per task, KAN layer, protocol and metric, with paired statistics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from kansciml.analysis.paired import UNDECIDED, compare_pairs, holm
from kansciml.experiments.fair.kinds import Kind, Metric, Pair, Trained

NAMES = ("KAN", "MLP")


def rows(
    kind: Kind, task: str, compared: Sequence[Pair], trained: Sequence[Trained], alpha: float
) -> list[dict[str, Any]]:
    """The comparisons of a task, before `corrected`; see `kansciml.experiments.fair.report` for their layout."""
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
) -> dict[str, Any]:
    seeds = sorted(set(kans) & set(mlps))
    losses = [[group[seed].losses[metric.name] for seed in seeds] for group in (kans, mlps)]
    found = compare_pairs(losses[0], losses[1], NAMES, alpha)
    return {
        "task": task,
        "title": kind.title(task),
        "kind": kind.name,
        "layer": pair.layer,
        "protocol": pair.protocol,
        "adapted": pair.adapted,
        "metric": metric.name,
        "metric_title": metric.title,
        "primary": metric.primary,
        "kan": _group([kans[seed] for seed in seeds]),
        "mlp": _group([mlps[seed] for seed in seeds]),
        "seeds": seeds,
        "kan_losses": losses[0],
        "mlp_losses": losses[1],
        **asdict(found),
    }


def _group(runs: Sequence[Trained]) -> dict[str, Any]:
    first = runs[0]
    return {
        "group": first.group,
        "label": first.label,
        "parameters": first.parameters,
        "flops": first.flops,
        "steps": int(statistics.median(run.steps for run in runs)),
        "seconds": statistics.median(run.seconds for run in runs),
        "n_diverged": sum(run.status != "finished" for run in runs),
    }


def corrected(found: Sequence[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """The rows with ``adjusted_p`` (Holm) and ``confirmed``: whether the verdict still stands then.

    The rows of primary metrics are one family, those of the others a second one: the first is the table that answers
    the question, and what is shown beside it should not weaken it.
    """
    adjusted: dict[int, float] = {}
    for primary in (True, False):
        family = [place for place, row in enumerate(found) if row["primary"] is primary]
        values = holm([found[place]["p_value"] for place in family])
        adjusted |= dict(zip(family, values))
    return [
        row | {"adjusted_p": adjusted[place], "confirmed": row["verdict"] != UNDECIDED and adjusted[place] <= alpha}
        for place, row in enumerate(found)
    ]
