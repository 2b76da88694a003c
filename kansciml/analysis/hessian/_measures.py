"""Defines the measures of sharpness: their values from a spectrum, and which changes of a model leave them alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._probes import Estimate
from .spectrum import RESOLVED, Spectrum, share

PLAIN, ADAPTIVE, FILTER = "plain", "adaptive", "filter"
NAMES = {PLAIN: "H", ADAPTIVE: "adaptive |w| H |w|", FILTER: "filter-normalised H"}
RELATIVE = (1e-1, 1e-2, 1e-3)
ABSOLUTE = (1.0, 1e-2, 1e-4)
LOSS, LAYERS, SIZE = "loss", "layers", "size"
WHOLE = 1e-6
"""How near to a whole number a count is that number."""


@dataclass(frozen=True)
class Kind:
    """One measure.

    Args:
        name: key in records. spectrum: ``"plain"``, ``"adaptive"`` or ``"filter"``. text: what it is.
        invariant: what may change without changing it: ``"loss"`` (the loss times a number), ``"layers"`` (a layer of a
            ReLU network times a > 0 and the next over a), ``"size"`` (eigenvalues that repeat, or a share instead of a
            number: no growth with the number of parameters by itself).
        sharper: whether a larger value means a sharper minimum; False for what only describes the spectrum.
    """

    name: str
    spectrum: str
    text: str
    invariant: tuple[str, ...] = ()
    sharper: bool = True


@dataclass(frozen=True)
class Source:
    """A spectrum as it is measured: by quadrature, or all eigenvalues; and its two ends with their residuals.

    Args:
        zero: of all eigenvalues, those of at most this size are zero to rounding.
    """

    values: Spectrum | np.ndarray
    top: Estimate
    bottom: Estimate
    zero: float = 0.0

    @property
    def size(self) -> int:
        return self.values.size  # of both kinds

    def estimate(self, combine: Callable[..., float], *functions: Callable[[np.ndarray], np.ndarray]) -> Estimate:
        """combine(*sums of the functions over all eigenvalues)."""
        if isinstance(self.values, Spectrum):
            return self.values.estimate(combine, *functions)
        return Estimate(float(combine(*(function(self.values).sum() for function in functions))), 0.0, 0)

    def count_above(self, threshold: float) -> Estimate:
        if not isinstance(self.values, Spectrum):
            return Estimate(float((self.values > threshold).sum()), 0.0, 0)
        found = self.values.count_above(threshold)
        whole = round(found.value)
        # sums of weights round: what is a whole number to rounding is that number, and two zeros are equal
        return dataclasses.replace(found, value=float(whole)) if abs(found.value - whole) < WHOLE else found


def kinds(relative: Sequence[float] = RELATIVE, absolute: Sequence[float] = ABSOLUTE) -> tuple[Kind, ...]:
    """All measures, in the order of tables."""
    of_sum = "share of sum |eigenvalue|"
    found = [
        Kind("top", PLAIN, "largest eigenvalue"),
        Kind("top_over_loss", PLAIN, "largest eigenvalue / loss", (LOSS,)),
        Kind("trace", PLAIN, "trace"),
        Kind("mean", PLAIN, "trace / n", (SIZE,)),
        Kind("positive_count", PLAIN, f"eigenvalues > {RESOLVED:g} of the largest", (LOSS,)),
        Kind("positive_share", PLAIN, f"eigenvalues > {RESOLVED:g} of the largest / n", (LOSS, SIZE)),
        Kind("positive_exact", PLAIN, "positive eigenvalues", (LOSS,)),
        Kind("positive_exact_share", PLAIN, "positive eigenvalues / n", (LOSS, SIZE)),
        Kind("zero_exact", PLAIN, "eigenvalues that are zero to rounding", (LOSS,), False),
        Kind("negative_exact", PLAIN, "negative eigenvalues", (LOSS,), False),
        *(Kind(f"count_above_{t:g}", PLAIN, f"eigenvalues > {t:g}") for t in absolute),
        *(Kind(f"mass_above_{t:g}", PLAIN, f"{of_sum} > {t:g}", (SIZE,)) for t in absolute),
        *(Kind(f"count_above_{t:g}_top", PLAIN, f"eigenvalues > {t:g} of the largest", (LOSS,)) for t in relative),
        *(
            Kind(f"mass_above_{t:g}_top", PLAIN, f"{of_sum} > {t:g} of the largest", (LOSS, SIZE), False)
            for t in relative
        ),
    ]
    for spectrum in (ADAPTIVE, FILTER):
        found += [
            Kind(f"{spectrum}_top", spectrum, "largest eigenvalue", (LAYERS,)),
            Kind(f"{spectrum}_top_over_loss", spectrum, "largest eigenvalue / loss", (LOSS, LAYERS)),
            Kind(f"{spectrum}_trace", spectrum, "trace", (LAYERS,)),
            Kind(f"{spectrum}_mean", spectrum, "trace / n", (LAYERS, SIZE)),
            Kind(f"{spectrum}_count_above_loss", spectrum, "eigenvalues > loss", (LOSS, LAYERS)),
            Kind(f"{spectrum}_count_above_0.01_top", spectrum, "eigenvalues > 0.01 of the largest", (LOSS, LAYERS)),
        ]
    negative = "negative share of sum |eigenvalue|"
    for spectrum, prefix, layers in ((PLAIN, "", ()), (ADAPTIVE, "adaptive_", (LAYERS,))):
        found += [
            Kind(f"{prefix}effective_rank", spectrum, "effective rank (tr H)^2 / tr H^2", (LOSS, *layers), False),
            Kind(f"{prefix}negative_mass", spectrum, negative, (LOSS, SIZE, *layers), False),
            Kind(f"{prefix}bottom", spectrum, "smallest eigenvalue", layers, False),
        ]
    return tuple(found)


def measure(
    source: Source, spectrum: str, loss: float | None, relative: Sequence[float], absolute: Sequence[float]
) -> dict[str, Estimate]:
    """Values of all measures of one of the three spectra, by name."""
    prefix, size, top = "" if spectrum == PLAIN else f"{spectrum}_", source.size, source.top.value
    trace = source.estimate(lambda s: s, lambda v: v)
    found = {"top": source.top, "bottom": source.bottom, "trace": trace, "mean": trace.scaled(1 / size)}
    found["effective_rank"] = source.estimate(_effective_rank, lambda v: v, np.square)
    found["negative_mass"] = source.estimate(share, lambda v: np.maximum(-v, 0), np.abs)
    if loss is not None and loss > 0:
        found["top_over_loss"] = source.top.scaled(1 / loss)
        found["count_above_loss"] = source.count_above(loss)
    zero = RESOLVED * max(abs(top), abs(source.bottom.value))
    found["positive_count"] = source.count_above(zero)
    found["positive_share"] = found["positive_count"].scaled(1 / size)
    if isinstance(source.values, np.ndarray):
        counted = {"positive": source.values > source.zero, "negative": source.values < -source.zero}
        for sign, which in {**counted, "zero": np.abs(source.values) <= source.zero}.items():
            found[f"{sign}_exact"] = Estimate(float(which.sum()), 0.0, 0)
        found["positive_exact_share"] = found["positive_exact"].scaled(1 / size)
    limits = [(f"{t:g}_top", t * top) for t in relative]
    if spectrum == PLAIN:
        limits += [(f"{t:g}", t) for t in absolute]
    elif 0.01 not in relative:
        limits += [("0.01_top", 0.01 * top)]
    for name, limit in limits:
        found[f"count_above_{name}"] = source.count_above(limit)
        found[f"mass_above_{name}"] = source.estimate(share, functools.partial(_sizes_above, limit), np.abs)
    wanted = {kind.name for kind in kinds(relative, absolute) if kind.spectrum == spectrum}
    return {prefix + name: estimate for name, estimate in found.items() if prefix + name in wanted}


def _sizes_above(limit: float, values: np.ndarray) -> np.ndarray:
    return np.where(values > limit, np.abs(values), 0)


def _effective_rank(total: float, squares: float) -> float:
    return total**2 / squares if squares > 0 else 0.0
