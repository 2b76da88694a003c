"""Judges which of two models, or groups of models, sits in the sharper minimum, by each measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._errors import UsageError
from ..comparison import ALPHA, compare_ranks
from ._measures import Kind, kinds
from ._probes import Estimate
from .sharpness import Sharpness

SHARPER, FLATTER, UNDECIDED = "sharper", "flatter", "undecided"
Z = 2.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SharpnessVerdict:
    """One measure of two groups of models, a against b.

    Args:
        measure, spectrum, text, invariant: see `kinds`: name, what it is measured of, and what leaves it unchanged.
        a, b: medians over the seeds. ratio: a over b; NaN if they differ in sign or b is 0.
        verdict: ``"sharper"`` (a is), ``"flatter"``, ``"undecided"``; ``""`` for a measure that only describes.
        z: of a pair, difference over its standard error; NaN with several seeds.
        p_value, effect: of several seeds, exact two-sided Mann-Whitney U test and Cliff's delta (1: every a larger).
        pairs_sharper, pairs_flatter, pairs: of all pairs of seeds, those in which a is larger (smaller) by z > 2.
        n_a, n_b: numbers of models. reason: why, in one line.
    """

    measure: str
    spectrum: str
    text: str
    invariant: tuple[str, ...]
    a: float
    b: float
    ratio: float
    verdict: str
    z: float
    p_value: float
    effect: float
    pairs_sharper: int
    pairs_flatter: int
    pairs: int
    n_a: int
    n_b: int
    reason: str


def compare_sharpness(
    a: Sharpness | Sequence[Sharpness],
    b: Sharpness | Sequence[Sharpness],
    *,
    z: float = Z,
    alpha: float = ALPHA,
) -> list[SharpnessVerdict]:
    """Is a sharper than b? One row per measure that all of them have.

    Two single models are compared by their standard errors: decided if they differ by more than `z` of them, where the
    error of a count includes half the width of its bounds. That is a statement on these two trained models. With
    several seeds on a side the claim is about the models in general, and the seeds are compared by rank (exact
    Mann-Whitney U test at `alpha`; at 0.05 at least 4 a side are needed). Measures are not corrected for their number.

    Raises:
        UsageError: an empty side, or nothing measured on both.
    """
    left, right = ([side] if isinstance(side, Sharpness) else list(side) for side in (a, b))
    if not left or not right:
        raise UsageError(f"got {len(left)} and {len(right)} models to compare: expected at least one on each side")
    everyone = [*left, *right]
    found = [
        _verdict(kind, [s.measures[kind.name] for s in left], [s.measures[kind.name] for s in right], z, alpha)
        for kind in kinds(left[0].relative, left[0].absolute)
        if all(kind.name in s.measures for s in everyone)
    ]
    if not found:
        raise UsageError("the models have no measure in common: measure them with the same thresholds")
    return found


def _verdict(kind: Kind, a: Sequence[Estimate], b: Sequence[Estimate], limit: float, alpha: float) -> SharpnessVerdict:
    first, second = (np.array([one.value for one in side]) for side in (a, b))
    pairs = [_z(one, other) for one in a for other in b]
    z = p_value = effect = math.nan
    if len(pairs) == 1:
        z = pairs[0]
        decided, positive = abs(z) > limit, z > 0
        if math.isnan(z):
            reason = "no standard error from a single probe: use at least 2"
        elif not decided:
            reason = f"they differ by {abs(z):.2g} standard errors, not more than {limit:g}"
        else:
            how = "far more than the rounding" if abs(z) > 1e4 else f"{abs(z):.3g} standard errors"
            reason = f"they differ by {how}"
    else:
        test = compare_ranks(first, second, alpha, "seeds")
        p_value, effect, reason = test.p_value, test.effect, test.reason
        decided, positive = test.decided, effect > 0
    verdict = "" if not kind.sharper else UNDECIDED if not decided else SHARPER if positive else FLATTER
    medians = float(np.median(first)), float(np.median(second))
    return SharpnessVerdict(
        measure=kind.name,
        spectrum=kind.spectrum,
        text=kind.text,
        invariant=kind.invariant,
        a=medians[0],
        b=medians[1],
        ratio=medians[0] / medians[1] if medians[0] * medians[1] > 0 else math.nan,
        verdict=verdict,
        z=z,
        p_value=p_value,
        effect=effect,
        pairs_sharper=sum(one > limit for one in pairs),
        pairs_flatter=sum(one < -limit for one in pairs),
        pairs=len(pairs),
        n_a=len(a),
        n_b=len(b),
        reason=reason,
    )


def _z(a: Estimate, b: Estimate) -> float:
    """Difference over its standard error; the sampling errors, half the bounds' widths, and rounding, all added up."""
    errors = [one.standard_error for one in (a, b)] + [(one.upper - one.lower) / 2 for one in (a, b)]
    error = math.hypot(*errors, _ROUNDING * max(abs(a.value), abs(b.value)))
    difference = a.value - b.value
    return math.nan if math.isnan(error) else 0.0 if difference == 0 else difference / error
