"""The paper's claims on Table 1, by its own numbers, and by the seeds of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kansciml.analysis.comparison import ALPHA, REFUTED, SUPPORTED, UNDECIDED, Comparison, compare_losses
from kansciml.reporting.records import Record
from kansciml.reporting.table1_rows import SCRATCH, caveat, mean_error, rows_of
from kansciml.reporting.tables import Table, format_number
from kansciml.reporting.vision_runs import Group, VisionRecord

MARGINS = {"kan-spline": (10.0, 12.0), "kan-rswaf": (8.0, 10.0)}
"""Points by which MLPs are said to be better than each kind of KAN (Pal & Das 2024, section 4.2)."""


def margin(better: Sequence[float], worse: Sequence[float], low: float, high: float) -> Comparison:
    """The claim that `worse` is larger than `better` by `low` to `high`, all errors of seeds in one unit.

    Both ends are claims of their own: better + low lies below worse, and worse below better + high. Refuted if one of
    them is, supported if both are, by `compare_losses`; undecided otherwise.
    """
    least = compare_losses([error + low for error in better], worse)
    most = compare_losses(worse, [error + high for error in better])
    for end, text in ((least, f"less than {100 * low:g}"), (most, f"more than {100 * high:g}")):
        if end.verdict == REFUTED:
            return _with(end, REFUTED, f"{text} points: {end.reason}")
    if least.verdict == most.verdict == SUPPORTED:
        worst = max(least, most, key=lambda end: end.p_value)
        return _with(worst, SUPPORTED, worst.reason)
    open_end = least if least.verdict == UNDECIDED else most
    return _with(open_end, UNDECIDED, open_end.reason)


def _with(one: Comparison, verdict: str, reason: str) -> Comparison:
    return Comparison(verdict, one.p_value, math.nan, math.nan, one.n_a, one.n_b, reason)


def claim_table(record: Record) -> Table:
    """The paper's claims on Table 1, by its own numbers and by the seeds of this run."""
    rows = rows_of(record)
    mlps = {row.published["size"]: row for row in rows if row.published["group"] == "mlp"}
    scratch = {g.value("size"): g for g in VisionRecord.read(record).groups if g.name == SCRATCH}
    printed = {(r.published["size"], r.published["group"]): r.published for r in rows if "printed_top1" in r.published}
    body = []
    for row in rows:
        own, group, mlp = row.published, row.group, mlps[row.published["size"]]
        if own["variant"] == "mlp":
            continue
        name, paper = list(row.key), own["protocol"] == "paper"
        reference = mlp.group if paper else scratch.get(own["size"], mlp.group)
        gap = mlp.published["printed_top1"] - printed[own["size"], own["variant"]]["printed_top1"]
        low, high = MARGINS[own["variant"]]
        found: tuple[Comparison | None, ...] = (None, None)
        if group is not None and reference is not None:
            sides = reference.errors, group.errors
            found = compare_losses(*sides), margin(*sides, low / 100, high / 100)
        claims = (("MLP is better", gap > 0), (f"by {low:g} to {high:g} points", low <= gap <= high))
        for (text, holds), one in zip(claims, found):
            word = f"{_yes(holds)} ({gap:.2f})" if paper else None
            if one is not None:
                seeds = f"{one.n_a} / {one.n_b}"
                outcome = [one.verdict, _gap(reference, group), one.p_value, seeds, one.reason]
                body.append([*name, text, word, *outcome])
            elif paper:
                body.append([*name, text, word, *[None] * 4, "not trained in this run"])
        if paper:
            ratio = own["parameters"] / mlp.published["parameters"]
            as_printed = own["printed_parameters"] / mlp.published["printed_parameters"]
            verdict = SUPPORTED if ratio > 1 else REFUTED
            word = f"{_yes(as_printed > 1)} ({as_printed:.2f} x)"
            body.append([*name, "MLP has fewer parameters", word, verdict, f"{ratio:.3f} x", None, None,
                         "counted: those in use, at the printed sizes"])  # fmt: skip
    columns = ["Protocol", "Size", "Model", "Claim", "Printed numbers", "Verdict", "Found", "p", "Seeds", "Why"]
    notes = [
        "Found: top-1 of MLP minus KAN in points +- standard error, or the KAN's parameters over the MLP's. Verdict:"
        f" exact two-sided Mann-Whitney U test over seeds at level {ALPHA:g}, a diverged seed ranks worst; a margin is"
        " two such claims, one for each end. To decide takes at least 4 seeds a side.",
    ]
    return Table("Claims on Table 1", columns, body, notes + caveat(record))


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _gap(better: Group, worse: Group) -> str | None:
    """Difference of the means in points, +- its standard error."""
    (a, error_a), (b, error_b) = (mean_error([100 * v for v in g.values("top1")]) for g in (better, worse))
    if math.isnan(a - b):
        return None
    error = math.hypot(error_a, error_b)
    return f"{a - b:+.2f}" + ("" if math.isnan(error) else f" +- {format_number(error, 2)}")
