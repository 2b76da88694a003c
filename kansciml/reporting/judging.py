"""When a run may decide a claim of the paper on trained models, and how what its seeds say is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kansciml.analysis.paired import RECOMMENDED_SEEDS, REFUTED, SUPPORTED, UNDECIDED, Comparison
from kansciml.reporting.claims import TEST, Claim
from kansciml.runs import findings

VERDICT = {SUPPORTED: findings.REPRODUCED, REFUTED: findings.NOT_REPRODUCED, UNDECIDED: findings.UNDECIDED}
"""The verdict of a finding for that of a comparison or a count of the paper's own size."""
OPPOSITE = {SUPPORTED: REFUTED, REFUTED: SUPPORTED, UNDECIDED: UNDECIDED}
MOST_SHORTFALLS = 5
"""Shortfalls that evidence names."""
NO_NUMBER = "no number: a picture"


def judged(claim: Claim[Any], short: Sequence[str], what: str = "", opposite: bool = False) -> tuple[str, str]:
    """Verdict on the paper's claim, and the evidence, from what the seeds of one run say.

    Only the verdict after Holm's correction decides the paper's claim, and only of a run without shortfalls and with
    as many seeds as can decide one claim of the family; of any other the evidence says what holds at its size.

    Args:
        short: in what the run is smaller than the paper's, in words.
        what: what exactly is decided, in a few words, where the claim does not say it.
        opposite: whether the paper claims the opposite.
    """
    one, short = claim.outcome, [*short]
    if one.n_pairs < one.needed:
        short.insert(0, f"{one.n_pairs} paired {'seed' if one.n_pairs == 1 else 'seeds'} instead of {one.needed}")
    first, last = (OPPOSITE[verdict] if opposite else verdict for verdict in (one.verdict, one.corrected))
    decided = last if first == last else f"{first} by itself, {last} after Holm's correction"
    said = f"{what}: {decided}, {one.why}" if what else f"{decided}, {one.why}"
    if claim.tested:
        holm = f", p = {one.adjusted_p:.2g} after Holm's correction over {one.family}" * (one.family > 1)
        said += f" ({TEST}{holm})"
    if not short:
        return VERDICT[last], said
    return findings.UNDECIDED, f"at this size: {said}; it does not decide the paper's claim: {listed(short)}"


def majority(outcomes: Sequence[Comparison], first: str, second: str) -> tuple[str, str]:
    """What more than half of the claims that `first` has the lower error say after their correction, and the counts.

    Of all of them: those that are undecided cannot turn it.
    """
    said = [one.corrected for one in outcomes]
    yes, no, n = said.count(SUPPORTED), said.count(REFUTED), len(said)
    counts = f"of {n} functions the {first} has the lower error on {yes}, the {second} on {no}"
    verdict = SUPPORTED if yes > n / 2 else REFUTED if no > n / 2 else UNDECIDED
    return verdict, f"{counts}, {n - yes - no} are undecided"


def by_seeds(verdict: str, seeds: int) -> tuple[str, str]:
    """The finding's verdict for one of a comparison, and what its evidence begins with: of few seeds, that they are."""
    few = seeds < RECOMMENDED_SEEDS
    return VERDICT[UNDECIDED if few else verdict], f"{seeds} seeds instead of {RECOMMENDED_SEEDS}; " * few


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
