"""When a run may decide a claim of the paper on trained models, and how what its seeds say is written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kansciml.analysis.comparison import REFUTED, SUPPORTED, UNDECIDED, Comparison
from kansciml.runs import findings
from kansciml.runs.tables import format_number

LEAST_SEEDS = 4
"""Fewest seeds a side that decide a claim on trained models."""
VERDICT = {SUPPORTED: findings.REPRODUCED, REFUTED: findings.NOT_REPRODUCED, UNDECIDED: findings.UNDECIDED}
"""The verdict of a finding for that of a comparison or a count of the paper's own size."""
OPPOSITE = {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}
MOST_SHORTFALLS = 5
"""Shortfalls that evidence names."""
NO_NUMBER = "no number: a picture"
TEST = "exact two-sided Mann-Whitney U test over seeds"


def judged(
    decided: str,
    reason: str,
    seeds: tuple[int, int],
    short: Sequence[str],
    least: int = LEAST_SEEDS,
    what: str = "",
) -> tuple[str, str]:
    """Verdict on the paper's claim, and the evidence, from what the seeds of one run say.

    Only a run with `least` seeds a side and without shortfalls decides the paper's claim; of any other the evidence
    says what holds at its size.

    Args:
        decided: ``"supported"``, ``"refuted"`` or ``"undecided"``. reason: why.
        seeds: of the two sides. short: in what the run is smaller than the paper's, in words.
        what: what exactly is decided, in a few words, where the claim does not say it.
    """
    short = [*short]
    if min(seeds) < least:
        short.insert(0, f"{min(seeds)} {'seed' if min(seeds) == 1 else 'seeds'} a side instead of {least}")
    test = f"{TEST}, {seeds[0]} against {seeds[1]}" if max(seeds) > 1 else "one model of each"
    said = f"{what + ': ' if what else ''}{decided}, {reason} ({test})"
    if not short:
        return VERDICT[decided], said
    return findings.UNDECIDED, f"at this size: {said}; it does not decide the paper's claim: {listed(short)}"


def by_seeds(
    outcome: Comparison,
    short: Sequence[str],
    least: int = LEAST_SEEDS,
    what: str = "",
    decided: str | None = None,
) -> tuple[str, str]:
    """`judged` of a comparison; `decided` where its claim is not the paper's but the opposite."""
    reason = outcome.reason
    if not math.isnan(outcome.effect):
        reason += f", Cliff's delta {format_number(outcome.effect)}"
    return judged(decided or outcome.verdict, reason, (outcome.n_a, outcome.n_b), short, least, what)


def listed(short: Sequence[str]) -> str:
    """The first few of `short`, and how many more there are."""
    rest = (
        [f"and {len(short) - MOST_SHORTFALLS} more"]
        if len(short) > MOST_SHORTFALLS + 1
        else list(short[MOST_SHORTFALLS:])
    )
    return "; ".join([*short[:MOST_SHORTFALLS], *rest])


def shortfalls(got: Mapping[str, Any], at_least: Mapping[str, float], same: Mapping[str, Any]) -> list[str]:
    """In what `got` is less than, or other than, the reference, in words: ``epochs 12 instead of 500``.

    Args:
        got: settings by name. at_least, same: of the reference; None stands for all there is.
    """

    def less(name: str, least: float) -> bool:
        return got.get(name) is None or got[name] < least

    names = [name for name, least in at_least.items() if less(name, least)]
    names += [name for name, value in same.items() if got.get(name) != value]
    wanted = {**at_least, **same}
    return [f"{name.replace('_', ' ')} {shown(got.get(name))} instead of {shown(wanted[name])}" for name in names]


def resized(sizes: Mapping[str, Any] | None) -> list[str]:
    """The same for a network with other sizes than its model's own, of which the record names those that differ."""
    return [
        f"{name.replace('_', ' ')} {shown(value)} instead of the model's own" for name, value in (sizes or {}).items()
    ]


def diverged(counts: Mapping[str, tuple[int, int]]) -> str:
    """``; 1 of 5 seeds of KAN diverged``, from label -> (diverged, all); empty where none did."""
    return "".join(f"; {bad} of {all_} seeds of {label} diverged" for label, (bad, all_) in counts.items() if bad)


def shown(value: Any) -> str:
    """A setting for a reader: ``8 x 8``, and ``all`` for None."""
    if value is None:
        return "all"
    return " x ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
