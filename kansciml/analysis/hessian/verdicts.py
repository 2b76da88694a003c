"""Judges which of two models, or groups of models, sits in the sharper minimum, by each measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..._errors import UsageError
from ..exact_tests import ALPHA
from ..paired import DIFFERENCE, REFUTED, SUPPORTED, UNDECIDED, Comparison, compare, corrected
from ._measures import Kind, kinds
from ._probes import Estimate
from .sharpness import Sharpness

SHARPER, FLATTER = "sharper", "flatter"
WORDS = {SUPPORTED: SHARPER, REFUTED: FLATTER, UNDECIDED: UNDECIDED}
Z = 2.0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SharpnessVerdict:
    """One measure of two groups of models, a against b.

    Args:
        measure, spectrum, text, invariant: see `kinds`: name, what it is measured of, and what leaves it unchanged.
        sharper: whether a larger value means sharper, or the measure only describes.
        a, b: medians over the seeds. ratio: a over b; NaN if they differ in sign or b is 0.
        outcome: of the claim that a's is larger, the effect being the difference a - b: over pairs of seeds, or of two
            single models, whose p-value is NaN.
        z: of a pair, difference over its standard error; NaN with several seeds.
        pairs_sharper, pairs_flatter, pairs: of the pairs of one seed, those in which a is larger (smaller) by z > 2.
        n_a, n_b: numbers of models.
    """

    measure: str
    spectrum: str
    text: str
    invariant: tuple[str, ...]
    sharper: bool
    a: float
    b: float
    ratio: float
    outcome: Comparison
    z: float
    pairs_sharper: int
    pairs_flatter: int
    pairs: int
    n_a: int
    n_b: int

    @property
    def verdict(self) -> str:
        """``"sharper"`` (a is), ``"flatter"``, ``"undecided"``; ``""`` for a measure that only describes."""
        return WORDS[self.outcome.verdict] if self.sharper else ""

    @property
    def corrected(self) -> str:
        """The same after Holm's correction over the measures that are judged."""
        return WORDS[self.outcome.corrected] if self.sharper else ""


def compare_sharpness(
    a: Sharpness | Mapping[int, Sharpness],
    b: Sharpness | Mapping[int, Sharpness],
    *,
    z: float = Z,
    alpha: float = ALPHA,
) -> list[SharpnessVerdict]:
    """Is a sharper than b? One row per measure that all of them have.

    Two single models are compared by their standard errors: decided if they differ by more than `z` of them, where the
    error of a count includes half the width of its bounds. That is a statement on these two trained models. Of several,
    by seed, the claim is about the models in general, and they are compared in pairs of one seed
    (`kansciml.analysis.paired.compare`), with Holm's correction over all measures that say sharper or flatter.

    Raises:
        UsageError: an empty side, or nothing measured on both.
    """
    left, right = ({0: side} if isinstance(side, Sharpness) else dict(side) for side in (a, b))
    if not left or not right:
        raise UsageError(f"got {len(left)} and {len(right)} models to compare: expected at least one on each side")
    if len(left) == len(right) == 1:
        right = dict(zip(left, right.values()))
    everyone = [*left.values(), *right.values()]
    found = []
    for kind in kinds(everyone[0].relative, everyone[0].absolute):
        if all(kind.name in one.measures for one in everyone):
            first, second = ({seed: one.measures[kind.name] for seed, one in side.items()} for side in (left, right))
            found.append(_verdict(kind, first, second, z, alpha))
    if not found:
        raise UsageError("the models have no measure in common: measure them with the same thresholds")
    outcomes = iter(corrected([one.outcome for one in found if one.sharper], alpha))
    return [replace(one, outcome=next(outcomes)) if one.sharper else one for one in found]


def _verdict(
    kind: Kind, a: Mapping[int, Estimate], b: Mapping[int, Estimate], limit: float, alpha: float
) -> SharpnessVerdict:
    first, second = ({seed: one.value for seed, one in side.items() if not math.isnan(one.value)} for side in (a, b))
    pairs = [_z(one, b[seed]) for seed, one in a.items() if seed in b]
    single = len(a) == len(b) == 1
    medians = float(np.median([*first.values()])), float(np.median([*second.values()]))
    return SharpnessVerdict(
        measure=kind.name,
        spectrum=kind.spectrum,
        text=kind.text,
        invariant=kind.invariant,
        sharper=kind.sharper,
        a=medians[0],
        b=medians[1],
        ratio=medians[0] / medians[1] if medians[0] * medians[1] > 0 else math.nan,
        outcome=_of_pair(medians[0] - medians[1], pairs[0], limit)
        if single
        else compare(first, second, above=0, scale=DIFFERENCE, text="larger", alpha=alpha),
        z=pairs[0] if single else math.nan,
        pairs_sharper=sum(one > limit for one in pairs),
        pairs_flatter=sum(one < -limit for one in pairs),
        pairs=len(pairs),
        n_a=len(a),
        n_b=len(b),
    )


def _of_pair(difference: float, z: float, limit: float) -> Comparison:
    """Two trained models, told apart by the standard errors of what was measured of them."""
    decided = UNDECIDED if not abs(z) > limit else SUPPORTED if z > 0 else REFUTED
    if math.isnan(z):
        reason = "no standard error from a single probe: use at least 2"
    elif decided == UNDECIDED:
        reason = f"they differ by {abs(z):.2g} standard errors, not more than {limit:g}"
    else:
        reason = f"they differ by {'far more than the rounding' if abs(z) > 1e4 else f'{abs(z):.3g} standard errors'}"
    half = abs(difference / z) * limit if z else math.nan
    ends = (difference - half, difference + half)
    return Comparison(decided, difference, *ends, math.nan, 1, int(z > 0), reason, corrected=decided)


def _z(a: Estimate, b: Estimate) -> float:
    """Difference over its standard error; the sampling errors, half the bounds' widths, and rounding, all added up."""
    errors = [one.standard_error for one in (a, b)] + [(one.upper - one.lower) / 2 for one in (a, b)]
    error = math.hypot(*errors, _ROUNDING * max(abs(a.value), abs(b.value)))
    difference = a.value - b.value
    return math.nan if math.isnan(error) else 0.0 if difference == 0 else difference / error
