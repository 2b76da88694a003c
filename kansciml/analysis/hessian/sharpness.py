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

from ..._errors import UsageError, unknown_name
from ._matrix import matrix_of
from ._measures import ABSOLUTE, ADAPTIVE, FILTER, PLAIN, RELATIVE, Source, kinds, measure
from ._probes import Estimate
from .eigenvalues import top_eigenvalues
from .scales import Named, adaptive_scale, filter_scale
from .spectrum import Spectrum, spectral_density
from .symmetric import MatrixOperator, ScaledOperator, SymmetricOperator

EXACT = ("auto", "both", "never")
EXACT_LIMIT = 3000
"""Largest number of parameters of which the matrix is formed: 72 MB, and some seconds for its eigenvalues."""
DEFLATE = 10
"""Largest eigenpairs found first and counted exactly. A few large ones make nearly all of a trained network's trace,
and what ten random vectors tell of a single eigenvector is off by a third, and its standard error often too small."""
_END_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Sharpness:
    """Measures of the sharpness of one minimum.

    Args:
        size: number n of parameters. loss: at the minimum; None if unknown.
        measures: by the names of `kinds`. From all eigenvalues (no error) if `exact`.
        exact: whether the matrix was formed.
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
    spectra: Mapping[str, Spectrum] = field(default_factory=dict, repr=False, compare=False)
    eigenvalues: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """All but spectra and eigenvalues, which `arrays` gives, in JSON types (NaN stays a float)."""
        found: dict[str, Any] = {"size": self.size, "loss": self.loss, "exact": self.exact}
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

    By quadrature that takes some 3 steps probes products. Where n is less, forming the matrix by n products and taking
    all its eigenvalues costs less and has no error.

    Args:
        operator: H: a `HessianOperator`, or any other.
        module: the operator's, whose weights give the scales; None: only H is measured, unless `scales` are given.
        loss: at the minimum; default: the operator's, if it has `loss_value`.
        scales: ``adaptive`` and ``filter``, to be used instead of the module's.
        steps, probes, seed, basis: see `spectral_density`.
        deflate: largest eigenpairs that are found first and counted exactly (default 10, at most n / 2).
        exact: ``"auto"`` (default): take all eigenvalues if n is at most 3000 and at most the number of products by
            quadrature; ``"both"``: take them, and run the quadrature too, to be checked by them; ``"never"``.
        relative, absolute: thresholds > 0, as shares of the largest eigenvalue, and as they are.
        checkpoints: folder in which each probe is saved when done (with `exact`, each block of columns), and from which
            the same call resumes.
        progress: called as ``progress(done, total, what)`` after each probe or block of columns.

    Raises:
        UsageError: a threshold that is not positive, unknown scales or `exact`, ``"both"`` with more than 3000
            parameters.
        KansciError: see `spectral_density`.
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
    products = (1 + len(scales)) * steps * probes
    formed = exact == "both" or (exact == "auto" and operator.size <= min(EXACT_LIMIT, products))
    sampling = exact == "both" or not formed
    total = (operator.size if formed else 0) + (probes * (1 + len(scales)) if sampling else 0)
    report = _Report(progress, total)
    if formed:
        path = None if checkpoints is None else checkpoints / "matrix.npz"
        operator = MatrixOperator(matrix_of(operator, checkpoint=path, progress=report.of("matrix")))
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
            columns = part.matvec(torch.eye(part.size, dtype=part.dtype))
            eigenvalues[name] = torch.linalg.eigvalsh(columns).numpy()
            ends = [Estimate(float(value), 0.0, 0) for value in eigenvalues[name][[-1, 0]]]
            measures |= measure(Source(eigenvalues[name], *ends), name, loss, relative, absolute)
    if not formed:
        measures, sampled = sampled, {}
    thresholds = tuple(map(float, relative)), tuple(map(float, absolute))
    order = [kind.name for kind in kinds(*thresholds)]
    measures, sampled = ({name: side[name] for name in order if name in side} for side in (measures, sampled))
    return Sharpness(operator.size, loss, measures, formed, *thresholds, sampled, spectra, eigenvalues)


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
