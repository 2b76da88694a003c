"""How sharp a minimum is, by many measures at once: the largest eigenvalue alone depends on the scale of the weights.

A KAN and an MLP differ in the scale and number of their parameters. So besides largest eigenvalue, trace and counts,
the same is measured of D H D, where D is made of the weights' sizes (`adaptive_scale`, `filter_scale`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..._errors import KansciError, UsageError, unknown_name
from ._matrix import formed_matrix
from ._measures import ABSOLUTE, ADAPTIVE, FILTER, PLAIN, RELATIVE, Source, kinds, measure
from ._probes import Estimate
from ._product.plan import available_memory
from .eigenvalues import top_eigenvalues
from .scales import Named, adaptive_scale, filter_scale
from .spectrum import Spectrum, spectral_density
from .symmetric import MatrixOperator, ScaledOperator, SymmetricOperator

EXACT = ("auto", "both", "never")
EXACT_LIMIT = 10_000
"""Largest number of parameters of which the matrix is formed, by n products; see `exact_bytes` and `exact_seconds`."""
DEFLATE = 10
"""Largest eigenpairs found first and counted exactly. A few large ones make nearly all of a trained network's trace,
and what ten random vectors tell of a single eigenvector is off by a third, and its standard error often too small."""
SECONDS_PER_CUBE = 1e-10
"""Of all eigenvalues of a symmetric matrix, per n^3: measured, with one thread, at n = 2000 and 5000."""
_END_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Sharpness:
    """Measures of the sharpness of one minimum.

    Args:
        size: number n of parameters. loss: at the minimum; None if unknown.
        measures: by the names of `kinds`. From all eigenvalues (no error) if `exact`.
        exact: whether the matrix was formed.
        asymmetry: with `exact`, |A - A^T| / |A| of the products, which rounding alone should make.
        zero: with `exact`, eigenvalues of H of at most this size count as zero: the larger of n eps |H| and
            |A - A^T| / 2, what eigensolver and products may be off by.
        relative, absolute: thresholds of counts and masses, as shares of the largest eigenvalue, and as they are.
        sampled: the measures by quadrature, where both were asked for, to be checked; else empty.
        spectra: the quadrature rules by name (``plain``, ``adaptive``, ``filter``).
        eigenvalues: with `exact`, all of them, ascending.
    """

    size: int
    loss: float | None
    measures: Mapping[str, Estimate]
    exact: bool = False
    relative: tuple[float, ...] = RELATIVE
    absolute: tuple[float, ...] = ABSOLUTE
    sampled: Mapping[str, Estimate] = field(default_factory=dict)
    asymmetry: float | None = None
    zero: float | None = None
    spectra: Mapping[str, Spectrum] = field(default_factory=dict, repr=False, compare=False)
    eigenvalues: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """All but spectra and eigenvalues, which `arrays` gives, in JSON types (NaN stays a float)."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("size", "loss", "exact", "asymmetry", "zero")}
        for name in ("relative", "absolute"):
            found[name] = list(getattr(self, name))
        for name in ("measures", "sampled"):
            found[name] = {measure: vars(estimate).copy() for measure, estimate in getattr(self, name).items()}
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """``<spectrum>.nodes``, ``.weights`` (probes, steps), ``.locked`` (r,); with `exact` ``.eigenvalues`` (n,)."""
        found = {f"{name}.eigenvalues": values for name, values in self.eigenvalues.items()}
        for name, spectrum in self.spectra.items():
            found |= {f"{name}.{key}": getattr(spectrum, key) for key in ("nodes", "weights", "locked")}
        return found


def sharpness(
    operator: SymmetricOperator,
    module: nn.Module | None = None,
    *,
    loss: float | None = None,
    scales: Mapping[str, Float[Tensor, " n"]] | None = None,
    steps: int = 100,
    probes: int = 10,
    seed: int = 0,
    deflate: int = DEFLATE,
    exact: str = "auto",
    relative: Sequence[float] = RELATIVE,
    absolute: Sequence[float] = ABSOLUTE,
    basis: str = "auto",
    checkpoints: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Sharpness:
    """Measure H, T_w H T_w (elementwise) and its filter-normalised form by Lanczos quadrature, and their ends.

    By quadrature that takes some 3 steps probes products. Up to 10,000 parameters the matrix is formed by n products
    instead, and all its eigenvalues are taken: no measure has an error then but that of rounding.

    Args:
        operator: H: a `HessianOperator`, or any other.
        module: the operator's, whose weights give the scales; None: only H is measured, unless `scales` are given.
        loss: at the minimum; default: the operator's, if it has `loss_value`.
        scales: ``adaptive`` and ``filter``, to be used instead of the module's.
        steps, probes, seed, basis: see `spectral_density`.
        deflate: largest eigenpairs that are found first and counted exactly (default 10, at most n / 2).
        exact: ``"auto"`` (default): take all eigenvalues if n is at most 10,000; ``"both"``: take them, and run the
            quadrature too, to be checked by them; ``"never"``. Memory and time: `exact_bytes`, `exact_seconds`.
        relative, absolute: thresholds > 0, as shares of the largest eigenvalue, and as they are.
        checkpoints: folder in which each probe is saved when done (with `exact`, each block of columns), and from which
            the same call resumes.
        progress: called as ``progress(done, total, what)`` after each probe or block of columns.

    Raises:
        UsageError: a threshold that is not positive, unknown scales or `exact`, ``"both"`` with more than 10,000
            parameters.
        KansciError: see `spectral_density`; too little memory for the matrix, or one that is not symmetric.
    """
    if not all(t > 0 for t in (*relative, *absolute)):
        raise UsageError(f"got thresholds {(*relative, *absolute)}: expected positive numbers")
    if exact not in EXACT:
        raise unknown_name("exact", exact, EXACT)
    if exact == "both" and operator.size > EXACT_LIMIT:
        raise UsageError(f"got {operator.size} parameters: expected at most {EXACT_LIMIT} for exact 'both'; use 'auto'")
    if scales is None:
        both = {ADAPTIVE: adaptive_scale, FILTER: filter_scale}
        named = cast("Named", operator)  # those of a module have names
        scales = {} if module is None else {name: scale(named, module) for name, scale in both.items()}
    elif not set(scales) <= {ADAPTIVE, FILTER}:
        raise UsageError(f"got scales {', '.join(scales)}: expected {ADAPTIVE} and {FILTER}")
    if loss is None and hasattr(operator, "loss_value"):
        loss = operator.loss_value()
    formed = exact == "both" or (exact == "auto" and operator.size <= EXACT_LIMIT)
    sampling = exact == "both" or not formed
    total = (operator.size if formed else 0) + (probes * (1 + len(scales)) if sampling else 0)
    report = _Report(progress, total)
    asymmetry = zero = None
    if formed:
        _require_memory(operator.size)
        path = None if checkpoints is None else checkpoints / "matrix.npz"
        made = formed_matrix(operator, checkpoint=path, progress=report.of("matrix"))
        operator, asymmetry, zero = MatrixOperator.of_symmetric(made.matrix), made.asymmetry, made.rounding
    spectra: dict[str, Spectrum] = {}
    eigenvalues: dict[str, np.ndarray] = {}
    measures: dict[str, Estimate] = {}
    sampled: dict[str, Estimate] = {}
    parts: dict[str, SymmetricOperator] = {PLAIN: operator}
    parts |= {name: ScaledOperator(operator, scale) for name, scale in scales.items()}
    for name, part in parts.items():
        if sampling:
            spectra[name] = spectral_density(
                part,
                steps=steps,
                probes=probes,
                seed=seed,
                deflate=min(deflate, operator.size // 2),
                basis=basis,
                checkpoint=None if checkpoints is None or formed else checkpoints / f"{name}.npz",
                progress=report.of(name),
            )
            sampled |= measure(Source(spectra[name], *_ends(part, seed, basis)), name, loss, relative, absolute)
        if formed:
            values = eigenvalues[name] = _all_eigenvalues(made.matrix, scales.get(name))
            if name == PLAIN:
                zero = max(made.rounding, operator.size * torch.finfo(torch.float64).eps * float(np.abs(values).max()))
            top, bottom = (Estimate(float(value), 0.0, 0) for value in values[[-1, 0]])
            measures |= measure(Source(values, top, bottom, zero or 0.0), name, loss, relative, absolute)
    if not formed:
        measures, sampled = sampled, {}
    thresholds = tuple(map(float, relative)), tuple(map(float, absolute))
    order = [kind.name for kind in kinds(*thresholds)]
    measures, sampled = ({name: side[name] for name in order if name in side} for side in (measures, sampled))
    return Sharpness(operator.size, loss, measures, formed, *thresholds, sampled, asymmetry, zero, spectra, eigenvalues)


def exact_bytes(size: int) -> int:
    """Memory for the matrix, a scaled copy or its file, and what the eigensolver overwrites: 3.2 GB at 10,000."""
    return 4 * 8 * size**2


def exact_seconds(size: int) -> float:
    """About how long the three eigenvalue problems take, on one core; the n products come on top."""
    return 3 * SECONDS_PER_CUBE * size**3


def _require_memory(size: int) -> None:
    needed, free = exact_bytes(size), available_memory(torch.device("cpu"))
    if needed > free:
        raise KansciError(
            f"all eigenvalues of {size} parameters take {needed / 1e9:.2g} GB, and {free / 1e9:.2g} GB are free:"
            " expected that much; use exact 'never' for the quadrature"
        )


def _all_eigenvalues(matrix: Tensor, scale: Tensor | None) -> np.ndarray:
    """Of the matrix, or of D A D, ascending."""
    if scale is not None:
        own = scale.detach().to("cpu", matrix.dtype)
        matrix = (matrix * own).mul_(own[:, None])
    return torch.linalg.eigvalsh(matrix).numpy()


class _Report:
    """Adds up the progress of all parts."""

    def __init__(self, progress: Callable[[int, int, str], None] | None, total: int) -> None:
        self.progress, self.total, self.before = progress, total, 0

    def of(self, what: str) -> Callable[[int, int], None]:
        """The ``progress(done, total)`` of one part."""

        def tell(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(self.before + done, self.total, what)
            if done == total:
                self.before += done

        return tell


def _ends(operator: SymmetricOperator, seed: int, basis: str) -> tuple[Estimate, Estimate]:
    """Largest and smallest eigenvalue; the error is the residual, within which an eigenvalue lies."""
    pairs = top_eigenvalues(operator, tol=_END_TOLERANCE, seed=seed, verify=False, vectors=False, basis=basis)
    top, bottom = int(np.argmax(pairs.values)), int(np.argmin(pairs.values))
    found = [Estimate(float(pairs.values[i]), float(pairs.residuals[i]), 0) for i in (top, bottom)]
    return found[0], found[1]
